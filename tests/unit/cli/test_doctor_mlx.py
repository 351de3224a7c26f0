"""What doctor says of MLX, and the probe that asks it."""

from __future__ import annotations

import sys
from importlib import metadata
from types import ModuleType, SimpleNamespace
from typing import Any

import psutil
import pytest

from tasks.cli.diagnosis.line import Line
from tasks.cli.diagnosis.mlx import ask_probe, hub_lines, mlx_lines
from tasks.engine import probe as probing
from tasks.engine.probe import hub_state, probe
from tasks.hardware import Hardware, detect
from tests.unit.hardware.machines import FakeNvml, linux, mac, recording
from worker_config.settings import Settings

ANSWER: dict[str, Any] = {
    "mlx": "0.32.4",
    "mlx_lm": "0.32.2",
    "stage": "mlx-lm",
    "error": "",
    "blas": "",
    "advice": "",
    "layouts": [],
    "device": "gpu",
    "device_name": "Apple M4 Max",
    "recommended_bytes": 115_448_725_504,
    "metal": True,
    "cuda": False,
    "hub": "https://hub.example",
    "hub_error": "",
}
MAC = detect(Settings(), mac(recording("m4-max")))
NVIDIA = detect(Settings(), linux(nvml=FakeNvml))
PROCESSOR = detect(Settings(), linux())


def python(code: str, timeout_s: float = 30.0) -> dict[str, Any] | Line:
    return ask_probe([sys.executable, "-c", code], timeout_s)


def levels(hardware: Hardware = MAC, **changes: Any) -> list[tuple[str, str]]:
    return [(line.level, line.what) for line in mlx_lines({**ANSWER, **changes}, hardware)]


def test_the_last_line_is_the_answer() -> None:
    """What MLX prints before the probe's answer does not disturb it."""
    assert python("print('warming up'); print('{\"mlx\": \"1\"}')") == {"mlx": "1"}


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "was ended by SIGKILL: it said nothing"),
        ("import sys; sys.exit('libmlx.so: not found')", "ended with status 1: libmlx.so: not found"),
        ("print('garbage')", "ended with status 0"),
        ("print('7')", "ended with status 0"),
        ("", "ended with status 0"),
    ],
)
def test_a_probe_that_breaks_is_one_line(code: str, says: str) -> None:
    """A crash, an error, garbage and silence are each one failure with the last words and what to do."""
    line = python(code)
    assert isinstance(line, Line)
    assert line.level == "failure"
    assert line.says.startswith(says)
    assert "celery-mlx[worker]" in line.remedy
    assert list(mlx_lines(line, MAC)) == [line]
    assert list(hub_lines(line)) == []


def test_a_probe_that_hangs_is_killed() -> None:
    """A hung device does not hang doctor."""
    before = set(psutil.Process().children())
    line = python("import time; time.sleep(60)", timeout_s=0.3)
    assert isinstance(line, Line)
    assert "0.3 s" in line.says
    assert set(psutil.Process().children()) <= before


def test_mlx_on_metal() -> None:
    """On a Mac doctor shows the versions, the device and what it recommends using."""
    lines = list(mlx_lines(ANSWER, MAC))
    assert [line.level for line in lines] == ["ok", "ok"]
    assert lines[0].says == "mlx 0.32.4, mlx-lm 0.32.2 computes on the GPU, Apple M4 Max"
    assert "108 GB" in lines[1].says


@pytest.mark.parametrize("missing", ["mlx", "mlx_lm"])
def test_mlx_that_is_not_installed(missing: str) -> None:
    """A producer's machine is told that it cannot serve, and what to install."""
    (line,) = mlx_lines({**ANSWER, missing: None}, MAC)
    assert line.level == "failure"
    assert missing.replace("_", "-") in line.says
    assert "celery-mlx[worker]" in line.remedy


def test_mlx_that_fails() -> None:
    """An error of MLX is shown with what was being tried."""
    (line,) = mlx_lines({**ANSWER, "error": "RuntimeError: no device", "stage": "device"}, MAC)
    assert (line.level, line.says.endswith("RuntimeError: no device (device)")) == ("failure", True)


def test_a_gpu_that_only_one_of_the_two_knows() -> None:
    """MLX on the processor of a machine with a GPU is a failure; a GPU that only MLX knows is a warning."""
    processor = {"device": "cpu", "recommended_bytes": None}
    assert ("failure", "GPU") in levels(MAC, **processor)
    assert ("failure", "GPU") in levels(NVIDIA, **processor)
    assert ("warning", "GPU") in levels(PROCESSOR, recommended_bytes=None)
    assert levels(PROCESSOR, **processor) == [("ok", "MLX")]
    simulated = detect(Settings(chip="M2 Pro"), linux())
    assert levels(simulated, **processor) == [("ok", "MLX")]


def test_blas() -> None:
    """An optimised BLAS is named, and the reference one is a warning with the command."""
    assert levels(PROCESSOR, device="cpu", recommended_bytes=None, blas="OpenBLAS")[-1] == ("ok", "BLAS")
    laid_out = {"blas": "OpenBLAS", "layouts": ["layers: in panels of 64"]}
    assert levels(PROCESSOR, device="cpu", recommended_bytes=None, **laid_out)[-1] == ("ok", "weights")
    changes = {"device": "cpu", "recommended_bytes": None, "blas": "reference", "advice": "slow"}
    assert levels(PROCESSOR, **changes)[-1] == ("warning", "BLAS")


def test_hub() -> None:
    """A hub that answers is ok, one that does not is a warning, and without its client there is nothing to say."""
    assert [line.level for line in hub_lines(ANSWER)] == ["ok"]
    (line,) = hub_lines({**ANSWER, "hub_error": "ConnectError: no route"})
    assert (line.level, "no route" in line.says) == ("warning", True)
    assert list(hub_lines({**ANSWER, "hub": ""})) == []


class FakeMlx(ModuleType):
    """``mlx.core`` on a device of which a product comes out as told."""

    gpu = "gpu"
    metal = SimpleNamespace(is_available=lambda: True)
    cuda = SimpleNamespace(is_available=lambda: False)

    def __init__(self, product: float) -> None:
        super().__init__("mlx.core")
        self._product = product

    def default_device(self) -> Any:
        return SimpleNamespace(type="gpu")

    def device_info(self, _: object) -> dict[str, Any]:
        return {"device_name": "Apple M2", "max_recommended_working_set_size": 7}

    def ones(self, _: object) -> Any:
        product = self._product

        class Matrix:
            def __matmul__(self, _: object) -> Any:
                return SimpleNamespace(sum=lambda: SimpleNamespace(item=lambda: product))

        return Matrix()


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """No BLAS is loaded into this process and no hub is asked."""
    monkeypatch.setattr(probing, "load_blas", lambda: "reference")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)


@pytest.mark.usefixtures("no_hub")
def test_probe_of_a_device_that_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe reports the device, its recommendation and the BLAS, and no error."""
    monkeypatch.setitem(sys.modules, "mlx", ModuleType("mlx"))
    monkeypatch.setitem(sys.modules, "mlx.core", FakeMlx(64**3))
    monkeypatch.setitem(sys.modules, "mlx_lm", ModuleType("mlx_lm"))
    for module in ("mlx_lm.generate", "mlx_lm.utils"):
        monkeypatch.setitem(sys.modules, module, ModuleType(module))
    found = probe()
    assert (found["error"], found["device"], found["device_name"]) == ("", "gpu", "Apple M2")
    assert (found["recommended_bytes"], found["metal"], found["cuda"]) == (7, True, False)
    assert (found["blas"], bool(found["advice"])) == ("reference", True)
    assert found["hub"] == ""


@pytest.mark.usefixtures("no_hub")
def test_probe_of_a_device_that_computes_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A product that is wrong is an error, and mlx-lm is not tried after it."""
    monkeypatch.setitem(sys.modules, "mlx", ModuleType("mlx"))
    monkeypatch.setitem(sys.modules, "mlx.core", FakeMlx(1.0))
    found = probe()
    assert (found["stage"], "came out wrong" in found["error"]) == ("product", True)


@pytest.mark.usefixtures("no_hub")
def test_probe_without_mlx(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without MLX the probe says that the import failed, and that there is no version."""
    monkeypatch.setitem(sys.modules, "mlx", None)

    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    found = probe()
    assert (found["mlx"], found["mlx_lm"], found["stage"]) == (None, None, "import")
    assert "mlx" in found["error"]


def test_hub_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub is offline by setting, or answers, or does not, and each is told apart."""

    def hub(offline: bool, error: Exception | None) -> ModuleType:
        def head(url: str, timeout: float) -> None:
            assert (url, timeout > 0) == ("https://hub.example", True)
            if error:
                raise error

        module = ModuleType("huggingface_hub")
        attributes: dict[str, Any] = vars(module)
        attributes["constants"] = SimpleNamespace(HF_HUB_OFFLINE=offline, ENDPOINT="https://hub.example")
        attributes["get_session"] = lambda: SimpleNamespace(head=head)
        return module

    states = {"offline": hub(True, None), "up": hub(False, None), "down": hub(False, ConnectionError("no route"))}
    errors = {}
    for name, module in states.items():
        monkeypatch.setitem(sys.modules, "huggingface_hub", module)
        errors[name] = hub_state()["hub_error"]
    assert errors == {"offline": "HF_HUB_OFFLINE is set", "up": "", "down": "ConnectionError: no route"}
