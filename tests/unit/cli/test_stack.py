"""The parts of ``up`` as processes: what they print, and what follows when one of them ends."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import psutil
import pytest

from tasks.cli.stack.part import Part, Ports, parts_for
from tasks.cli.stack.stack import Stack, only_one
from tasks.cli.stack.tail import Tail
from tasks.demo.errors import SetupError
from tests.support import wait_until

if TYPE_CHECKING:
    from pathlib import Path

PORTS = Ports(gateway=8000, flower=5555)


def part(name: str, program: str, *, vital: bool = True) -> Part:
    return Part(name, (sys.executable, "-c", program), vital=vital)


def test_lines_have_their_part_in_front_and_all_end_together(tmp_path: Path) -> None:
    """What is printed comes as whole lines; with the context all processes are gone."""
    said: list[tuple[str, str]] = []
    stay = "import time; print('here', flush=True); time.sleep(600)"
    parts = [part("worker", stay), part("flower", "print('oops')", vital=False)]
    with Stack(parts, "redis://unused", tmp_path, lambda *line: said.append(line)) as stack:
        wait_until(lambda: {("worker", "here"), ("flower", "oops")} <= set(said))
        assert wait_until(stack.check) == [("flower", "has ended; the others continue")]
        assert stack.check() == [], "is said once"
        pids = list(stack.pids.values())
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_part_that_asks_for_a_new_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ends with 75 is started again, at a bounded pace, and this is said once for each start."""
    starts = tmp_path / "starts"
    program = f"open({str(starts)!r}, 'a').write('x'); raise SystemExit(75)"
    with Stack([part("worker", program)], "redis://unused", tmp_path, lambda *_: None) as stack:
        monkeypatch.setattr("tasks.cli.stack.stack.AGAIN_S", 3600.0)
        wait_until(lambda: starts.exists() and not stack._processes["worker"].running)
        assert stack.check() == []
        monkeypatch.setattr("tasks.cli.stack.stack.AGAIN_S", 0.0)
        for count in (2, 3):
            assert wait_until(stack.check) == [("worker", "has ended with status 75, and is started again")]
            wait_until(lambda count=count: len(starts.read_text()) == count)  # type: ignore[misc]


def test_a_vital_part_that_ends(tmp_path: Path) -> None:
    """Its last words are the error, and the others end with it."""
    parts = [part("beat", "import time; time.sleep(600)"), part("worker", "raise SystemExit('no model')")]
    with Stack(parts, "redis://unused", tmp_path, lambda *_: None) as stack:
        pids = list(stack.pids.values())
        with pytest.raises(SetupError, match=r"^worker has ended: no model$"):
            wait_until(stack.check)
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    """The parts that were started before it are ended."""
    parts = [part("beat", "import time; time.sleep(600)"), Part("worker", ("/nowhere/python",))]
    with pytest.raises(SetupError, match="/nowhere/python cannot be started"):
        Stack(parts, "redis://unused", tmp_path, lambda *_: None).__enter__()


def test_which_parts(tmp_path: Path) -> None:
    """Those that are wanted and installed, the worker with what was typed for it."""
    found = {part.name: part for part in parts_for(tmp_path, PORTS, ["beat"], ["--models", "a"])}
    assert next(iter(found)) == "worker"
    assert "beat" not in found
    assert found["worker"].command[-3:] == ("worker", "--models", "a")
    assert found["flower"].about == ("http://localhost:5555",)
    assert not found["flower"].vital


def test_one_for_each_folder(tmp_path: Path) -> None:
    """A second one is refused while the first holds the folder."""
    with (
        only_one(tmp_path / "up"),
        pytest.raises(SetupError, match=r"another one runs on .*--data"),
        only_one(tmp_path / "up"),
    ):
        pytest.fail("two have it")
    with only_one(tmp_path / "up"):
        pass


def test_a_log_of_an_earlier_run_is_not_repeated(tmp_path: Path) -> None:
    """Lines are followed from the end of what is there; half a line waits for its end."""
    log = tmp_path / "beat.log"
    log.write_text("old\n")
    said: list[str] = []
    tail = Tail(lambda _, line: said.append(line))
    tail.follow("beat", log)
    tail.start()
    with log.open("a") as file:
        file.write("one\ntw")
        file.flush()
        wait_until(lambda: said == ["one"])
        file.write("o\n")
    tail.stop()
    assert said == ["one", "two"]
