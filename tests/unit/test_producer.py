"""What a producer's process pays for ``from tasks import generate``, each time in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support import ROOT

HEAVY = ("mlx", "mlx_lm", "transformers", "tokenizers", "numpy", "rich", "flower", "psutil", "prometheus_client")


def run(program: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


@pytest.mark.parametrize(
    "statement", ["import tasks", "from tasks import generate", "from tasks import app; app.tasks"]
)
def test_nothing_heavy_is_loaded(statement: str) -> None:
    """Neither the model's libraries, nor what draws screens and reads hardware, is in a producer's process."""
    assert run(f"import sys\n{statement}\nprint(sorted({{*sys.modules}} & {{*{HEAVY}}}))") == "[]"


def test_nothing_of_the_worker_is_loaded() -> None:
    """The worker's side and the engine stay out too, and so does validation before the first request."""
    loaded = run("import sys\nfrom tasks import generate\nprint(*sys.modules)").split()
    unwanted = ("tasks.worker", "tasks.engine", "tasks.hardware", "tasks.cli", "tasks.demo", "tasks.sweep", "pydantic")
    assert [name for name in loaded if ".".join(name.split(".")[:2]) in unwanted or name == "pydantic"] == []


def test_it_is_quick() -> None:
    """Importing loads few modules beyond those of Celery's tasks and results. A count, since times depend on the machine."""
    count = "\nprint(len(sys.modules))"
    libraries = int(run(f"import sys, celery.app.task, celery.result{count}"))
    assert int(run(f"import sys\nfrom tasks import generate{count}")) - libraries <= 60


@pytest.mark.parametrize(
    "before",
    ["", "import tasks.generate", "import tasks.celery", "from tasks import app; app.loader.import_default_modules()"],
)
def test_generate_is_the_task(before: str) -> None:
    """``tasks.generate`` is the task and not the module of that name, whatever was imported first."""
    program = f"""
{before}
import tasks
from tasks import generate
assert generate is tasks.generate is tasks.app.tasks["tasks.generate"], generate
import tasks.generate
from tasks import generate as again
assert again.name == generate.name == "tasks.generate" and again.delay, again
print(again.app.main)
"""
    assert run(program) == "tasks"


def test_the_submodule_is_still_a_module() -> None:
    """Who wants the module itself, such as Celery's ``include``, gets it by its name."""
    program = """
import importlib
import tasks
module = importlib.import_module("tasks.generate")
print(type(module).__name__, module.GenerateTask.__name__, tasks.generate.__class__.__mro__[1].__name__)
"""
    assert run(program) == "module GenerateTask GenerateTask"


def test_a_bad_request_needs_no_redis() -> None:
    """What is wrong with a request is said before anything is sent."""
    program = """
from tasks import generate
try:
    generate.delay(prompt="a", top_k=-1)
except ValueError as error:
    print(error)
"""
    assert run(program) == "top_k=-1: input should be greater than or equal to 0; use a whole number; 0 switches it off"


def test_help_shows_the_parameters() -> None:
    """``help`` and ``inspect.signature`` name every parameter with its default, for both ways to the task."""
    program = """
import inspect, pydoc
from tasks import generate
from tasks.generate import generate as shared
for task in (generate, shared):
    signature = inspect.signature(task)
    assert signature.parameters["max_tokens"].default == 512, signature
    assert repr(signature.parameters["tool_choice"].default) == "'auto'", signature
    assert inspect.signature(task.delay) == signature == inspect.signature(task.adelay)
    assert signature.parameters["messages"].annotation == "list[dict[str, Any]]", signature
shown = pydoc.plain(pydoc.render_doc(generate))
assert "generate(previous=None, /, *, messages:" in shown, shown
assert shown.index("generate.delay(") < shown.index("Method resolution order"), shown
from tasks import embed
assert inspect.signature(embed.delay).parameters["input"].default is inspect.Parameter.empty
print("all there")
"""
    assert run(program) == "all there"
