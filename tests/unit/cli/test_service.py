"""Service files: what they say, that their platforms' own readers understand them, and where they are put."""

from __future__ import annotations

import plistlib
import resource
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from tasks.cli import service as command
from tasks.cli.services import launchd, systemd
from tasks.cli.services.program import ROLES, Program, environment_lines
from worker_config.settings import Settings

if TYPE_CHECKING:
    from click.testing import Result

    from tasks.cli.services.program import Role


def program(role: Role = "worker", *options: str, user: str = "", home: Path = Path("/home/me")) -> Program:
    return Program(role, options, home / "environment", 300.0, user, home)


def unit(program: Program) -> dict[str, list[str]]:
    """A unit's settings, each with all its values."""
    found: dict[str, list[str]] = {}
    for line in systemd.text(program).splitlines():
        if "=" in line:
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def run(*args: str) -> Result:
    return CliRunner().invoke(command.service, args)


def test_a_worker_has_time_to_drain_and_only_it_is_told_to_stop() -> None:
    """On both platforms longer than the drain; its engines work on until they have nothing left."""
    said = unit(program())
    assert said["TimeoutStopSec"] == ["330"]
    assert said["KillMode"] == ["mixed"]
    assert plistlib.loads(launchd.text(program()).encode())["ExitTimeOut"] == 330
    assert unit(program("beat"))["TimeoutStopSec"] == ["30"]


def test_it_is_started_again_when_it_fails_and_not_when_it_was_told_to_end() -> None:
    """Nor, under systemd, when its configuration is wrong, which a new start does not fix."""
    said = unit(program())
    assert (said["Restart"], said["RestartPreventExitStatus"]) == (["on-failure"], ["78"])
    assert plistlib.loads(launchd.text(program()).encode())["KeepAlive"] == {"SuccessfulExit": False}


def test_a_worker_outlives_an_engine_that_the_kernel_kills_for_its_memory() -> None:
    """systemd's default would stop the worker, and all its engines, with the engine that was killed."""
    assert unit(program())["OOMPolicy"] == ["continue"]


@pytest.mark.parametrize("most", [1_000, None])
def test_a_service_of_a_mac_has_more_open_files_than_launchd_gives(most: int | None, tmp_path: Path) -> None:
    """The shell raises the 256 of launchd to 10,240, or as far as the system lets it."""
    (tmp_path / "environment").touch()
    values = plistlib.loads(launchd.text(program(home=tmp_path)).encode())["ProgramArguments"]
    start = values[2].partition("exec ")[0]
    as_launchd = f"ulimit -S -n 256; {f'ulimit -H -n {most};' if most else ''}"
    done = subprocess.run(
        [*values[:2], f"{as_launchd} {start} exec /bin/sh -c 'ulimit -n'", values[3]],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    allowed = hard if hard != resource.RLIM_INFINITY else launchd.OPEN_FILES
    assert done.stdout.split() == [str(min(most or allowed, launchd.OPEN_FILES))]
    assert unit(program())["LimitNOFILE"] == ["65536"]


def test_the_log_is_where_people_look() -> None:
    """Console.app shows ~/Library/Logs; systemd's journal has what a unit writes that names no file."""
    assert plistlib.loads(launchd.text(program()).encode())["StandardErrorPath"].startswith("/home/me/Library/Logs/")
    assert "StandardError" not in unit(program())


@pytest.mark.parametrize("role", ROLES)
def test_the_command_is_celerys(role: Role) -> None:
    """This Python, our application, and what was given beyond it, on both platforms."""
    words = ["-n", "a b$c%d\"e'f\\g"]
    expected = [sys.executable, "-m", "celery", "-A", "tasks", role]
    start = unit(program(role, *words))["ExecStart"][0]
    assert shlex.split(start.replace("%%", "%").replace("$$", "$"))[: len(expected)] == expected
    values = plistlib.loads(launchd.text(program(role, *words)).encode())["ProgramArguments"]
    shell_command = values[2].partition("exec ")[2]
    assert shlex.split(shell_command)[: len(expected)] == expected
    assert shlex.split(shell_command)[-2:] == words
    assert values[3] == "/home/me/environment"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here: apt install systemd")
@pytest.mark.parametrize("user", ["", "root"])
@pytest.mark.parametrize("role", ROLES)
def test_systemd_understands_the_unit(role: Role, user: str, tmp_path: Path) -> None:
    """systemd's own check has nothing to say, whatever the options are."""
    path = tmp_path / f"{role}.service"
    path.write_text(systemd.text(program(role, "-n", "a b$c%d\"e'f\\g", user=user)), encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(path)], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_service_of_the_machine_has_its_user() -> None:
    """And lies where the machine's services lie; one of a person lies in that person's home."""
    assert unit(program(user="mlx"))["User"] == ["mlx"]
    assert plistlib.loads(launchd.text(program(user="mlx")).encode())["UserName"] == "mlx"
    assert systemd.path(program(user="mlx")) == Path("/etc/systemd/system/celery-mlx-worker.service")
    assert launchd.path(program(user="mlx")) == Path("/Library/LaunchDaemons/org.celery-mlx.worker.plist")
    assert systemd.path(program()) == Path("/home/me/.config/systemd/user/celery-mlx-worker.service")
    assert launchd.path(program()) == Path("/home/me/Library/LaunchAgents/org.celery-mlx.worker.plist")
    assert systemd.next_steps(program(user="mlx"))[0].startswith("sudo systemctl daemon-reload")
    assert launchd.next_steps(program(user="mlx"))[0].startswith("sudo launchctl bootstrap system ")


def test_the_environment_file_is_what_was_set(tmp_path: Path) -> None:
    """A shell reads every value as it was, whatever characters it has; defaults are left out."""
    url = "redis://:p'a\"ss$w`or\\d#%@box:6379/0"
    settings = Settings(redis_url=url, log_json=True, models=("a", "b"), keep_alive_s=5.0)
    path = tmp_path / "environment"
    path.write_text("\n".join(environment_lines(settings)), encoding="utf-8")
    said = subprocess.run(
        ["/bin/sh", "-c", f'set -a; . "{path}"; env'], capture_output=True, text=True, timeout=10, check=True
    ).stdout.splitlines()
    assert f"REDIS_URL={url}" in said
    assert "CELERY_MLX_LOG_JSON=1" in said
    assert "CELERY_MLX_MODELS=a,b" in said
    assert "CELERY_MLX_KEEP_ALIVE_S=5.0" in said
    assert len(environment_lines(settings)) == 5
    with pytest.raises(ValueError, match="line break"):
        environment_lines(Settings(chip="a\nb"))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of the test's own."""
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    return tmp_path


@pytest.mark.parametrize(("kind", "maker"), [("systemd", systemd), ("launchd", launchd)])
def test_install_writes_two_files_and_says_what_to_do(kind: str, maker: Any, home: Path) -> None:
    """The environment file is its owner's alone and is never written over; a service file only when told to."""
    first = run("install", "--kind", kind, "worker", "--", "-c", "4")
    assert first.exit_code == 0, first.output
    environment = home / command.ENVIRONMENT
    assert environment.stat().st_mode & 0o777 == 0o600
    assert "REDIS_URL=" in environment.read_text(encoding="utf-8")
    target = maker.path(program(home=home))
    assert "-c 4" in target.read_text(encoding="utf-8")
    assert all(step in first.output for step in maker.next_steps(program(home=home)))
    assert all(folder.is_dir() for folder in maker.folders(program(home=home)))

    environment.write_text("MINE=1\n", encoding="utf-8")
    again = run("install", "--kind", kind)
    assert again.exit_code == 1
    assert f"Error: {target} is there already" in again.output
    forced = run("install", "--kind", kind, "--force")
    assert forced.exit_code == 0, forced.output
    assert "-c 4" not in target.read_text(encoding="utf-8")
    assert environment.read_text(encoding="utf-8") == "MINE=1\n"


def test_print_writes_nothing(home: Path) -> None:
    """It only prints what install would write."""
    done = run("print", "beat", "--kind", "systemd")
    assert done.exit_code == 0
    assert done.output.startswith("[Unit]\n")
    assert list(home.iterdir()) == []


def test_what_goes_wrong_is_one_line(home: Path) -> None:
    """A user who is not there, an unknown role, a folder that cannot be made."""
    assert "there is no such user" in run("print", "--system", "nobody-of-this-name").output
    assert "'wrong' is not one of" in run("print", "wrong").output
    (home / ".config").write_text("in the way", encoding="utf-8")
    done = run("install", "--kind", "systemd")
    assert done.exit_code == 1
    assert done.output.startswith(f"Error: {home}/.config")
    assert len(done.output.splitlines()) == 1
