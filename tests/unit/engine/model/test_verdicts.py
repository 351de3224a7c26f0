"""A model is tried out once on a machine, and again when anything that its verdict follows from is another."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import pytest

from benchmarks.parts.tiny_model import make_tiny_architecture, make_tiny_model
from tasks.engine.files.folder import read_folder
from tasks.engine.model.kept.verdict_file import FILE, on_numpy
from tasks.engine.model.kept.verdicts import MOST, Verdicts, running_code
from tasks.engine.model.layout.dense import lay_out
from tasks.engine.model.layout.panels import PanelLinear
from tasks.engine.model.layout.record import Measured, Record
from tasks.engine.model.loading import find_batch_support, load_laid_out
from tasks.engine.model.reference import Reference
from tasks.messages.engine import EngineConfig
from tests.unit.engine.model.test_layout import MACHINE, small

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tasks.engine.model.selftest import BatchSupport

pytestmark = pytest.mark.xdist_group("mlx")


class Counted:
    """Loads a model as an engine does, and counts the calls of the model that this takes."""

    def __init__(self, cache: Path | None) -> None:
        self.cache = cache
        #: In the place of versions and loaded modules, which differ between test processes.
        self.code = "a version"

    def load(self, folder: Path, *, warm_up: bool = False) -> tuple[int, BatchSupport]:
        """Calls of the model until it is known how it is served, and how it is."""
        described = EngineConfig(model="any", source=str(folder))
        opened = read_folder(described)
        verdicts = Verdicts(self.cache, opened, "", lambda: self.code)
        loaded = load_laid_out(opened, described, "", verdicts)
        calls = 0

        class Counting(type(loaded.model)):  # type: ignore[misc]
            def __call__(self, *args: Any, **options: Any) -> Any:
                nonlocal calls
                calls += 1
                return super().__call__(*args, **options)

        loaded.model.__class__ = Counting
        support = find_batch_support(loaded, verdicts, warm_up=warm_up)
        return calls, support


def _edit(folder: Path, name: str, change: Callable[[dict[str, Any]], Any]) -> None:
    described = json.loads((folder / name).read_text())
    change(described)
    (folder / name).write_text(json.dumps(described))


@pytest.mark.parametrize("name", ["llama", "gpt_bigcode"])
def test_the_second_load_tries_nothing(tmp_path: Path, name: str) -> None:
    """It has the verdict of the first one, the reason with it."""
    folder, counted = make_tiny_architecture(tmp_path / "model", name), Counted(tmp_path / "cache")
    first, second = counted.load(folder), counted.load(folder)
    assert first[0] > 3
    assert second == (0, first[1])


def test_what_a_verdict_follows_from_is_tried_again_where_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A field of config.json, the weights, the precision, a version, the code, a variable that MLX reads; what comes back as it
    was is known still."""
    folder, counted = make_tiny_model(tmp_path / "model"), Counted(tmp_path / "cache")
    weights = folder / "model.safetensors"
    assert counted.load(folder)[0]
    assert not counted.load(folder)[0]

    def scaled(factor: float) -> None:
        tensors: Any = mx.load(str(weights))
        mx.save_safetensors(str(weights), {name: factor * array for name, array in tensors.items()})

    def touch() -> None:
        stat = weights.stat()
        os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))

    changes: list[Callable[[], object]] = [
        lambda: _edit(folder, "config.json", lambda described: described.update(rope_theta=5000.0)),
        lambda: scaled(1.5),
        touch,
        lambda: monkeypatch.setenv("MLX_ENABLE_TF32", "0"),
        lambda: setattr(counted, "code", "another version"),
    ]
    for number, change in enumerate(changes):
        change()
        assert counted.load(folder)[0], number
        assert not counted.load(folder)[0], number
    counted.code = "a version"
    assert not counted.load(folder)[0]


def test_the_code_is_that_which_is_loaded(tmp_path: Path) -> None:
    """Versions of MLX and mlx-lm, and each module that computes: a line more in one of them is other code."""
    before = running_code()
    assert running_code() == before
    path = tmp_path / "made.py"
    path.write_text("ONE = 1\n")
    specification = importlib.util.spec_from_file_location("mlx_lm.models.made", path)
    assert specification is not None
    sys.modules["mlx_lm.models.made"] = importlib.util.module_from_spec(specification)
    try:
        loaded = running_code()
        path.write_text("ONE = 1\nTWO = 2\n")
        assert len({before, loaded, running_code()}) == 3
    finally:
        del sys.modules["mlx_lm.models.made"]


def test_other_parameters_of_the_same_files_have_a_verdict_of_their_own(tmp_path: Path) -> None:
    """A folder may be computed with in two precisions, by what the memory has room for."""
    folder = make_tiny_model(tmp_path / "model")
    described = EngineConfig(model="any", source=str(folder))
    opened = read_folder(described)
    verdicts = Verdicts(tmp_path / "cache", opened, "")
    find_batch_support(load_laid_out(opened, described, ""), verdicts, warm_up=False)
    loaded = load_laid_out(opened, described, "")
    loaded.model.set_dtype(mx.bfloat16)
    find_batch_support(loaded, verdicts, warm_up=False)
    assert len(json.loads((tmp_path / "cache" / FILE).read_text())) == 2


@pytest.mark.parametrize(
    "content", ["{", "[1, null]", '[{"key": 1}]', "null", '[{"key": "%s", "verdict": {"batching": "quickly"}}]']
)
def test_a_damaged_file_is_as_none(tmp_path: Path, content: str) -> None:
    """Also one whose entry says what no trial says; the next load has a whole one."""
    folder, counted = make_tiny_model(tmp_path / "model"), Counted(tmp_path / "cache")
    tried = counted.load(folder)
    kept = tmp_path / "cache" / FILE
    kept.write_text(content.replace("%s", json.loads(kept.read_text())[0]["key"]))
    assert counted.load(folder) == tried
    assert counted.load(folder) == (0, tried[1])


def test_where_nothing_can_be_kept_every_load_tries(tmp_path: Path) -> None:
    """A file where the folder should be; and without a folder, which is what CELERY_MLX_TRY_EACH_LOAD asks for."""
    folder = make_tiny_model(tmp_path / "model")
    (tmp_path / "file").write_text("")
    for cache in (tmp_path / "file" / "cache", None):
        counted = Counted(cache)
        assert counted.load(folder)[0]
        assert counted.load(folder)[0]


def test_the_file_is_bounded(tmp_path: Path) -> None:
    """The oldest verdicts go first."""
    opened = read_folder(EngineConfig(model="any", source=str(make_tiny_model(tmp_path / "model"))))
    verdicts = Verdicts(tmp_path / "cache", opened, "")
    for number in range(MOST + 2):
        verdicts.keep(number, {"number": number})
    kept = json.loads((tmp_path / "cache" / FILE).read_text())
    assert [entry["verdict"]["number"] for entry in kept] == list(range(2, MOST + 2))
    assert verdicts.find(1) is None
    assert verdicts.find(2) == {"number": 2}


def test_what_is_gone_makes_room(tmp_path: Path) -> None:
    """Models that come and go, as those of a test run, push out no verdict on one that stays."""
    stays, goes = (
        Verdicts(tmp_path / "cache", read_folder(EngineConfig(model="any", source=str(make_tiny_model(folder)))), "")
        for folder in (tmp_path / "stays", tmp_path / "goes")
    )
    stays.keep("it", {"right": True})
    goes.keep("it", {"right": True})
    assert goes.find("it")
    shutil.rmtree(tmp_path / "goes")
    stays.keep("its speed", {"right": True})
    kept = json.loads((tmp_path / "cache" / FILE).read_text())
    assert {entry["folder"] for entry in kept} == {str((tmp_path / "stays").resolve())}
    assert stays.find("it")


def test_a_layout_is_tried_once(tmp_path: Path) -> None:
    """Then weights are laid out without a call of the model, or stay as they come where it does not bear that."""
    record, opened = (
        Record(tmp_path),
        read_folder(EngineConfig(model="any", source=str(make_tiny_model(tmp_path / "model")))),
    )
    for kind in ("layers 512x512, 2 threads", "head 32768x512, 2 threads"):
        record.add(Measured(machine=MACHINE, kind=kind, width=64, streams=(1,) * 4, gains=(2.0,) * 4, load=0.0))
    verdicts = Verdicts(tmp_path / "cache", opened, "")

    def laid_out(known: Verdicts) -> tuple[bool, bool, bool]:
        model = small(hidden_size=512, intermediate_size=512, vocab_size=32768, num_hidden_layers=1)
        reference = Reference(model)
        bears = lay_out(model, record, MACHINE, 2, reference, known)
        return bears, isinstance(model.layers[0].mlp.up_proj, PanelLinear), "logits" in vars(reference)

    assert on_numpy(tmp_path / "cache", opened.path) is None
    assert laid_out(verdicts) == (True, True, True)
    assert on_numpy(tmp_path / "cache", opened.path) is not None  # which doctor shows
    assert laid_out(verdicts) == (True, True, False)
    kept = tmp_path / "cache" / FILE
    kept.write_text(kept.read_text().replace("true", "false"))
    assert laid_out(verdicts) == (True, False, False)


def test_a_gpu_computes_once_all_the_same(tmp_path: Path) -> None:
    """It compiles its kernels at the first call, which is not to be a request's."""
    folder, counted = make_tiny_model(tmp_path / "model"), Counted(tmp_path / "cache")
    tried = counted.load(folder, warm_up=True)
    assert counted.load(folder, warm_up=True) == (2, tried[1])  # one of them for its shape alone
