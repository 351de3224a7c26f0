"""``celery_mlx`` and ``tasks`` in a checkout: one code under two names, and a project's own ``tasks`` stays its own."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from typing import TYPE_CHECKING, Any

import click
import pytest

import celery_mlx_commands
from tests.refusals import EX_CONFIG, explained
from tests.support import ROOT

if TYPE_CHECKING:
    from pathlib import Path

#: People's projects, by what they have of their own.
PROJECTS = {
    "tasks.py": {"tasks.py": "OWN = 1\n"},
    "tasks/": {
        "tasks/__init__.py": "OWN = 1\n",
        "tasks/errors.py": "InvalidRequest = 5\n",
        "tasks/generate.py": "generate = 7\n",
    },
    "worker_config.py": {"worker_config.py": "OWN = 1\n"},
    "all": {
        "tasks/__init__.py": "OWN = 1\n",
        "worker_config/__init__.py": "OWN = 1\n",
        "worker_config/settings.py": "",
    },
}


def run(*command: str, cwd: Path = ROOT) -> str:
    """What a fresh interpreter prints; the checkout is behind the current folder on its path, as an installation is."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *command], cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def make_project(kind: str, folder: Path) -> Path:
    """The folder of a project that has a module of one of our names, or several."""
    for name, text in PROJECTS[kind].items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


SAME = """
import pickle, sys
{first}
import celery_mlx, tasks, celery_mlx.generate, tasks.generate
from celery_mlx import app, generate
from celery_mlx.client.request.parameters import Parameters
from celery_mlx.errors import InvalidRequest
from celery_mlx.worker_config.settings import Settings
import tasks.client.request.parameters, tasks.errors, worker_config.settings
assert celery_mlx is tasks and generate is tasks.generate and app is tasks.app
assert Parameters is tasks.client.request.parameters.Parameters and Settings is worker_config.settings.Settings
assert InvalidRequest is tasks.errors.InvalidRequest
assert isinstance(pickle.loads(pickle.dumps(tasks.errors.InvalidRequest("x"))), InvalidRequest)
files = {{}}
for name, module in sys.modules.items():
    if name.startswith(("tasks", "celery_mlx", "worker_config")):
        assert files.setdefault(module.__file__, module) is module, name
        assert module.__spec__.name == module.__name__, (name, module.__spec__)
print(generate.name, app.main)
"""


@pytest.mark.parametrize(
    "first",
    [
        "import tasks",
        "import tasks.errors",
        "import celery_mlx",
        "import celery_mlx.engine",
        "import worker_config.settings",
    ],
)
def test_both_names_reach_the_same(first: str) -> None:
    """Whichever name is imported first, each module exists once, under both; so do the task and the application."""
    assert run("-c", SAME.format(first=first)) == "tasks.generate tasks"


BESIDE = """
import sys
import celery_mlx.errors
from celery_mlx import generate
from celery_mlx.worker_config.celeryconfig import worker_options
from celery_mlx.worker_config.settings import current_settings
worker_options(current_settings())
try:
    generate.delay(prompt="x", temprature=1)
except celery_mlx.errors.InvalidRequest as error:
    print(error)
for name in ("tasks", "worker_config"):
    module = __import__(name)
    if hasattr(module, "OWN"):
        assert module.__file__.startswith({folder!r}), module
    else:
        assert module.__file__.startswith({root!r}), module
"""


@pytest.mark.parametrize("kind", sorted(PROJECTS))
def test_a_project_s_own_modules_stay(kind: str, tmp_path: Path) -> None:
    """Beside a project's own modules ours work by the distribution's name, and the project's are the project's."""
    program = BESIDE.format(folder=str(tmp_path), root=str(ROOT))
    said = run("-c", program, cwd=make_project(kind, tmp_path))
    assert said == "temprature=1: unknown field; did you mean temperature? If not, leave it out"


def test_a_project_s_own_submodules_stay(tmp_path: Path) -> None:
    """``tasks.errors`` and ``tasks.generate`` of a project are that project's, also once ours are loaded."""
    program = f"{BESIDE.format(folder=str(tmp_path), root=str(ROOT))}\nimport tasks.errors, tasks.generate\n"
    program += "print(tasks.errors.InvalidRequest, tasks.generate.generate)"
    assert run("-c", program, cwd=make_project("tasks/", tmp_path)).splitlines()[-1] == "5 7"


TAKEN = """
import warnings
warnings.simplefilter("ignore")  # Celery's own, which says it once
from celery_mlx.errors import BrokerMisconfigured
{imports}
for task in (generate, generate, rerank, embed):
    try:
        print(task.name)
    except BrokerMisconfigured as error:
        print(error)
"""
OURS_FIRST = (
    "from celery_mlx.generate import generate; from celery_mlx.rerank import rerank; from celery_mlx.embed import embed"
)
SHOP = "from celery import Celery\napp = Celery('shop', broker='redis://127.0.0.1:1/0', include=['celery_mlx.embed', 'tasks'])\n"
FUNCTIONS = "".join(f"@app.task\ndef {name}(): ...\n" for name in ("add", "generate", "embed"))


def make_shop(folder: Path) -> Path:
    """The folder of a shop whose ``tasks.py`` has functions of our tasks' names."""
    (folder / "shop.py").write_text(SHOP)
    (folder / "tasks.py").write_text(f"from shop import app\n{FUNCTIONS}")
    return folder


@pytest.mark.parametrize(
    "imports", [f"{OURS_FIRST}; import tasks; tasks.app.finalize()", f"import tasks; {OURS_FIRST}"]
)
def test_a_project_s_own_task_of_our_name(imports: str, tmp_path: Path) -> None:
    """Celery calls ``generate`` of a ``tasks.py`` as it calls ours, and knows one of them: each use of ours says so."""
    said = run("-c", TAKEN.format(imports=imports), cwd=make_shop(tmp_path)).splitlines()
    about = "tasks.{0} is the name of a task of celery-mlx, and of one of your application 'shop', "
    assert [line.startswith(about.format("generate")) for line in said] == [True, True, False, False]
    assert said[0].endswith("give yours another, as in @app.task(name='shop.generate')")
    assert said[2] == "tasks.rerank"
    assert said[3].startswith(about.format("embed"))


def test_a_worker_with_a_task_of_our_name(tmp_path: Path) -> None:
    """It would answer the fleet's requests with the project's function: it refuses to start."""
    command = [sys.executable, "-m", "celery", "-A", "shop", "worker", "-n", "shop@here"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=make_shop(tmp_path), env=env, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == EX_CONFIG
    assert done.stderr.splitlines()[-1].startswith("celery-mlx: tasks.embed is the name of a task of celery-mlx, and")
    says = "give yours another, as in @app.task(name='shop.embed')"
    assert says in done.stderr
    assert explained("another-tasks", says)


def test_the_engine_starts_beside_a_project_s_own_modules(tmp_path: Path) -> None:
    """The engine, which is a process in the worker's folder, takes ours."""
    project = make_project("all", tmp_path)
    assert run("-m", "celery_mlx.engine", "fake:0", "--raw", "--max-tokens", "5", "--prompt", "hi", cwd=project)
    assert '"mlx"' in run("-m", "celery_mlx.engine.probe", cwd=project)


@pytest.mark.parametrize(
    "name", [name for name, found in vars(celery_mlx_commands).items() if isinstance(found, click.Command)]
)
def test_a_command_is_loaded_when_it_is_typed(name: str) -> None:
    """Celery's list of commands describes each as it describes itself, and its options are its own."""
    lazy: click.Command = getattr(celery_mlx_commands, name)
    command: click.Command = getattr(import_module(f"tasks.cli.{name}"), name)
    assert lazy.get_short_help_str(200) == command.get_short_help_str(200)
    context = lazy.make_context(name, ["--help"], resilient_parsing=True)
    assert context.command is command


def test_another_project_s_celery_loads_nothing_of_ours(tmp_path: Path) -> None:
    """Celery loads our commands for everybody who types ``celery``: that costs others next to nothing."""
    (tmp_path / "shop.py").write_text("from celery import Celery\napp = Celery('shop')\n")
    program = (
        "import sys; sys.argv = ['celery', '-A', 'shop', 'report']\n"
        "import celery.bin.celery\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('tasks', 'celery_mlx', 'worker_config')])"
    )
    assert run("-c", program, cwd=tmp_path).endswith("[]")


def renamed(source: str) -> str:
    """What a wheel has of this source."""
    spec = spec_from_file_location("setup_of_the_distribution", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module: Any = module_from_spec(spec)
    spec.loader.exec_module(module)
    return str(module.renamed(source))


def test_imports_are_renamed() -> None:
    """In a wheel imports have the new names, wherever they stand; strings, comments and other modules stay."""
    source = '''"""See tasks.errors."""
from tasks import app
from tasks.errors import (
    InvalidRequest,
)
import tasks.messages.engine as engine
from worker_config.settings import Settings
from tasksets import tasks
TASK = "tasks.generate"


def late():
    from tasks.names import GENERATE  # from tasks.names
'''
    assert (
        renamed(source)
        == '''"""See tasks.errors."""
from celery_mlx import app
from celery_mlx.errors import (
    InvalidRequest,
)
import celery_mlx.messages.engine as engine
from celery_mlx.worker_config.settings import Settings
from tasksets import tasks
TASK = "tasks.generate"


def late():
    from celery_mlx.names import GENERATE  # from tasks.names
'''
    )
    with pytest.raises(ValueError, match="binds 'tasks'"):
        renamed("import tasks.errors\n")


#: Names that are no modules to be imported: the task, its application, loggers, the module of errors in older results, and an
#: argument of Celery's groups.
NO_MODULES = {
    ("tasks/names.py", "tasks.generate"),
    ("tasks/names.py", "tasks.embed"),
    ("tasks/names.py", "tasks.rerank"),
    ("tasks/celery.py", "tasks"),
    ("tasks/client/sending/followers.py", "tasks"),
    ("tasks/client/sending/groups.py", "tasks.generate"),
    ("tasks/bulk/job.py", "tasks.generate"),
    ("tasks/client/sending/fleet_view.py", "tasks.generate"),
    ("tasks/engine/__main__.py", "tasks.engine"),
    ("tasks/broker/results.py", "tasks.errors"),
}


def test_no_text_names_a_module_by_a_checkout_s_name() -> None:
    """What is imported, or started, by a text goes by ``tasks.names.PACKAGE``: in a wheel there is no ``tasks``."""
    found = set()
    for path in [*(ROOT / "tasks").rglob("*.py"), *(ROOT / "worker_config").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                place = ROOT.joinpath(*node.value.partition(":")[0].split("."))
                is_module = place.is_dir() or place.with_suffix(".py").is_file()
                if node.value.split(".")[0] in ("tasks", "worker_config") and "\n" not in node.value and is_module:
                    found.add((str(path.relative_to(ROOT)), node.value))
    assert found <= NO_MODULES
