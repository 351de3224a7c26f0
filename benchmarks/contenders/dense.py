"""A float32 copy of the bundled model: on a CPU ours computes in dense float32, and so must everyone beside it.

``python -m benchmarks.contenders.dense SOURCE TARGET`` makes it, in a process of its own.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.processes import BenchmarkError
from tasks.demo.bundled import MODEL, ensure_model
from worker_config.cache import cache_folder

if TYPE_CHECKING:
    from collections.abc import Callable


def ensure_dense_model(say: Callable[[str], None]) -> Path:
    """The folder of the copy, made at the first call and kept in the project's folder for caches (540 MB)."""
    source = ensure_model(lambda about, _: say(about))
    target = cache_folder() / "benchmarks" / f"{MODEL}-float32"
    if not target.is_dir():
        say("making a float32 copy of the bundled model")
        command = [sys.executable, "-m", "benchmarks.contenders.dense", str(source), str(target)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchmarkError(f"the float32 copy cannot be made: {done.stderr.strip()[-500:]}")
    return target


def make_dense(source: Path, target: Path) -> None:
    """Write the copy; it appears under its name only when it is whole."""
    import mlx.core as mx
    from mlx_lm import utils

    scratch = target.with_name(f".{target.name}")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    model, config = utils.load_model(source)
    model = utils.dequantize_model(model)
    model.set_dtype(mx.float32)
    utils.save_model(scratch, model)
    config = {name: value for name, value in config.items() if not name.startswith("quantization")}
    utils.save_config({**config, "torch_dtype": "float32"}, scratch / "config.json")
    for path in source.iterdir():
        if not (scratch / path.name).exists() and path.suffix != ".safetensors":
            shutil.copy(path, scratch)
    scratch.rename(target)


if __name__ == "__main__":
    make_dense(Path(sys.argv[1]), Path(sys.argv[2]))
