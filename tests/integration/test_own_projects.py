"""People's projects that have a ``tasks`` and a ``worker_config`` of their own, with the distribution installed beside them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from benchmarks.parts.tiny_model import make_tiny_model
from tests.processes import running
from tests.support import ROOT, wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import redis

pytestmark = pytest.mark.xdist_group("own-projects")
WAIT_S = 90.0
SOURCES = ("pyproject.toml", "setup.py", "celery_mlx_commands.py", "README.md", "LICENSE", "tasks", "worker_config")

#: As Celery's first tutorial has it.
TASKS = """
from shop import app


@app.task
def add(x, y):
    return x + y
"""
SHOP = """
from celery import Celery
from celery_mlx.worker_config.celeryconfig import worker_options
from celery_mlx.worker_config.settings import current_settings

app = Celery("shop", include=["tasks", "celery_mlx.generate"])
app.config_from_object(worker_options(current_settings()))
app.conf.update(task_default_queue="shop", task_routes=("celery_mlx.models.routing.route_task",))
"""
#: The application as it was written before the distribution had a name of its own.
OLDER_SHOP = SHOP.replace('"celery_mlx.generate"', '"tasks.generate"')
CUSTOMER = """
import os
import sys
from shop import app
from tasks import add
from celery_mlx.errors import InvalidRequest
from celery_mlx.generate import generate

assert add.delay(2, 3).get(timeout=60) == 5
for model in (os.environ["MODEL"], "fake:1"):
    result = generate.delay(prompt="hello", model=model, max_tokens=3, temperature=0)
    assert "".join(chunk.text for chunk in result.stream(timeout=60)) == result.get(timeout=60)["text"]
    assert result.get()["usage"]["completion_tokens"] > 0
try:
    generate.delay(prompt="!fail", model="fake:1").get(timeout=60)
except InvalidRequest as error:
    print(error)
import tasks, worker_config
print(os.path.relpath(tasks.__file__), os.path.relpath(worker_config.__file__))
assert sys.modules["tasks"].__dict__["add"] is add
"""


@dataclass
class Installed:
    """An environment that has the distribution."""

    python: str
    env: dict[str, str]
    site: Path | None = None

    def run(self, *command: str, cwd: Path) -> str:
        """What a command prints."""
        done = subprocess.run(
            [self.python, *command], cwd=cwd, env=self.env, capture_output=True, text=True, check=False, timeout=WAIT_S
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The distribution, built from this checkout."""
    folder = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    # By pip, which brings the setuptools that pyproject.toml asks for; that of an environment may be older.
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", "dist", "."]
    done = subprocess.run(build, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = (folder / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, shared_redis: redis.Redis, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """A clean environment with the wheel in it, where another distribution has brought a ``tasks`` before."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    # The libraries alone: what lies in a folder that such a file names is no installation, this checkout's neither.
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    (site / "tasks").mkdir()
    (site / "tasks" / "__init__.py").write_text("OTHER = 1\n")
    python = folder / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    done = subprocess.run(
        [*install, "--disable-pip-version-check", str(wheel)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (site / "tasks" / "__init__.py").read_text() == "OTHER = 1\n"
    assert sorted(path.name for path in (site / "tasks").iterdir()) == ["__init__.py"]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return Installed(str(python), env, site)


@pytest.fixture(scope="module")
def checkout(shared_redis: redis.Redis) -> Installed:
    """This checkout, on the path behind a project's folder, as an editable installation is."""
    return Installed(sys.executable, {**os.environ, "PYTHONPATH": str(ROOT)})


def project(folder: Path, *, package: bool, shop: str = SHOP) -> Path:
    """A shop with its own ``tasks``, as a module or as a package, and its own ``worker_config``."""
    module = folder / ("tasks/__init__.py" if package else "tasks.py")
    module.parent.mkdir(exist_ok=True)
    module.write_text(TASKS)
    (folder / "worker_config.py").write_text("OWN = 1\n")
    (folder / "shop.py").write_text(shop)
    (folder / "catalogue.toml").write_text(f'allow_paths = ["{folder}"]\n')
    make_tiny_model(folder / "tiny-135m")
    return folder


def serve(installed: Installed, folder: Path, expected: Sequence[str]) -> None:
    """A real worker of the shop answers the shop's own task, and requests to a real model and to a fake one."""
    installed.env |= {"CELERY_MLX_CATALOGUE": str(folder / "catalogue.toml"), "MODEL": str(folder / "tiny-135m")}
    command = [
        "-m",
        "celery",
        "-A",
        "shop",
        "worker",
        "-Q",
        "shop,tier-under-3B",
        "-c",
        "2",
        "-n",
        "shop@here",
        "-l",
        "INFO",
    ]
    log = folder / "worker.log"
    with running([installed.python, *command], log, installed.env, folder) as worker:
        wait_until(lambda: worker.alive() and "shop@here is ready" in worker.log(), timeout_s=WAIT_S)
        # Celery's banner says which other tasks there are.
        assert {"tasks.add", "tasks.generate"} <= set(re.findall(r"^  \. (\S+)", worker.log(), re.MULTILINE))
        said, where = installed.run("-c", CUSTOMER, cwd=folder).splitlines()
        assert "asked the fake engine to fail" in said
        assert where.split() == expected
        fleet = installed.run("-m", "celery", "-A", "celery_mlx", "fleet", "--once", cwd=folder)
        assert "shop@here" in fleet
        listed = installed.run(
            "-m", "celery", "-A", "shop", "inspect", "registered", "-d", "shop@here", "-t", "20", cwd=folder
        )
        assert "tasks.add" in listed
        assert "tasks.generate" in listed
        told = installed.run(
            "-m", "celery", "-A", "shop", "control", "drain", "-d", "shop@here", "-t", "20", cwd=folder
        )
        assert "draining" in told


@pytest.mark.parametrize("package", [False, True], ids=["tasks.py", "tasks/"])
def test_a_wheel_beside_a_project_s_own_names(environment: Installed, tmp_path: Path, package: bool) -> None:
    """Installed into a clean environment, a shop with our names in its folder keeps its own and gets ours."""
    expected = ["tasks/__init__.py" if package else "tasks.py", "worker_config.py"]
    serve(environment, project(tmp_path, package=package), expected)


def test_a_wheel_holds_no_name_but_its_own(wheel: Path) -> None:
    """Nothing of a wheel can lie in the way of others', or be overwritten by theirs."""
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
        assert {name for name in tops if not name.endswith(".dist-info")} == {"celery_mlx", "celery_mlx_commands.py"}
        sources = [archive.read(name).decode() for name in archive.namelist() if name.endswith(".py")]
    imports = [
        line.split()[1] for source in sources for line in source.splitlines() if re.match(r" *(from|import) \w", line)
    ]
    assert not [name for name in imports if name.split(".")[0] in ("tasks", "worker_config")]


def test_a_checkout_beside_a_project_s_own_names(checkout: Installed, tmp_path: Path) -> None:
    """The same with a checkout on the path, also where the shop includes the task by the name of a checkout's module."""
    folder = project(tmp_path, package=False, shop=OLDER_SHOP)
    serve(checkout, folder, ["tasks.py", "worker_config.py"])


def test_the_command_line_takes_the_name_of_a_checkout(environment: Installed, tmp_path: Path) -> None:
    """``celery -A tasks`` is this application where nobody has a ``tasks``, and theirs where somebody has."""
    command = ("-m", "celery", "-A", "tasks", "models", "--json")
    assert environment.site is not None
    others = environment.site / "tasks"
    aside = others.rename(others.with_name("aside"))
    try:
        assert '"models"' in environment.run(*command, cwd=tmp_path)
    finally:
        aside.rename(others)
    with pytest.raises(AssertionError, match="has no attribute"):
        environment.run(*command, cwd=tmp_path)
