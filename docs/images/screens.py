"""Record pictures of ``fleet``, ``doctor`` and ``models`` at 80 and 120 columns, and of the gateway's page:
python -m docs.images.screens

It needs tmux and Chromium. The fleet is two workers of this machine with made-up chips. Most requests ask a model that computes
nothing.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from functools import partial
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from tasks.demo.embedded import EmbeddedServer
from tests.acceptance.browser import Browser, find_chromium
from tests.gateway import GatewayProcess
from tests.hub_server import HubServer
from tests.processes import running
from tests.support import wait_until
from worker_config.settings import change_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.processes import Program

HERE = Path(__file__).parent
CELERY = (sys.executable, "-m", "celery", "-A", "tasks")
#: One that computes nothing, and one of which doctor can say how it is computed.
MODEL, REAL = "fake:60", "smollm2-135m"
MACHINES = {
    "studio@lab": {"CELERY_MLX_CHIP": "Apple M3 Max", "CELERY_MLX_GPU_CORES": "40", "CELERY_MLX_MEMORY_GB": "64"},
    "mini@lab": {"CELERY_MLX_CHIP": "Apple M4", "CELERY_MLX_GPU_CORES": "10", "CELERY_MLX_MEMORY_GB": "16"},
}
WIDTHS = {80: 38, 120: 34}


def main() -> None:
    """Start a fleet, and draw what a person sees of it."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        change_environment(REDIS_URL=stack.enter_context(EmbeddedServer()).url, CELERY_MLX_ALLOW_FAKE="1")
        for node, machine in MACHINES.items():
            command = [*CELERY, "worker", "-n", node, "--models", f"{MODEL},{REAL}"]
            worker = stack.enter_context(running(command, folder / f"{node}.log", machine))
            wait_until(partial(is_ready, worker), timeout_s=60, about=node)
        beat = [*CELERY, "beat", "--schedule", str(folder / "schedule"), "--pidfile="]
        stack.enter_context(running(beat, folder / "beat.log"))
        hub = stack.enter_context(HubServer({}))
        os.environ["HF_ENDPOINT"] = hub.url  # which doctor shows
        load_the_model()
        photograph_the_page(folder)
        stack.enter_context(requests())
        for columns, rows in WIDTHS.items():
            draw("fleet", columns, rows, lambda screen: "failures" in screen and "starting" not in screen)
            draw("fleet requests --limit 20", columns, rows, lambda screen: "$ done" in screen)
            draw("models", columns, rows, lambda screen: "$ done" in screen)
            draw("doctor", columns, 80, lambda screen: "$ done" in screen)


def load_the_model() -> None:
    """Have the real model loaded, so that the page shows the time to a first token without a load."""
    from tasks import generate

    generate.delay(prompt="warm", model=REAL, max_tokens=1).get(timeout=120)


def photograph_the_page(folder: Path) -> None:
    """Ask the real model something on the gateway's page, in a browser."""
    program = find_chromium()
    assert program is not None, "Chromium is not here: apt install chromium"
    with GatewayProcess(folder / "gateway.log") as gateway, Browser(program) as browser:
        browser.open(gateway.root)
        browser.wait("at('model').options.length > 1 && at('workers').rows.length > 2")
        browser.evaluate(
            f"at('model').value = {REAL!r}; at('tokens').value = 90; at('temperature').value = 0; "
            "at('question').value = 'What is photosynthesis?'; at('form').requestSubmit()"
        )
        browser.wait("at('stop').hidden && messages.length === 2", timeout_s=120)
        browser.screenshot(HERE / "gateway.png")
        browser.resize(360, 640)
        browser.screenshot(HERE / "gateway-phone.png")


def is_ready(worker: Program) -> bool:
    """Whether a worker serves."""
    return worker.alive() and "is ready" in worker.log()


def requests() -> ExitStack:
    """More requests than the fleet runs at once, and some that fail; they are cancelled at the end."""
    from tasks import generate

    for _ in range(2):
        generate.delay(prompt="one two three", model=MODEL, max_tokens=9_000)
    results = [generate.delay(prompt=f"number {n}", model=MODEL, max_tokens=2_000) for n in range(60)]
    for result in results[:8]:
        next(iter(result.stream(timeout=60)))
    stack = ExitStack()
    for result in results:
        stack.callback(result.revoke, terminate=True)
    return stack


def draw(typed: str, columns: int, rows: int, is_complete: Callable[[str], bool]) -> None:
    """Type a command into a terminal of this size, and keep what it shows."""
    name = f"{typed.partition(' --')[0].replace(' ', '-')}-{columns}"
    command = shlex.join([*CELERY, *typed.split()])
    tmux = partial(ask_tmux, f"celery-mlx-{name}")  # a server of its own: one that ends takes no more sessions
    tmux("new-session", "-d", "-x", str(columns), "-y", str(rows), f"{command}; echo '$ done'; sleep 60")
    try:
        wait_until(lambda: is_complete(tmux("capture-pane", "-p")), timeout_s=90, about=typed)
        screen = tmux("capture-pane", "-p", "-e")
    finally:
        tmux("kill-server")
    shown = list(lines(screen))
    console = Console(file=StringIO(), record=True, force_terminal=True, width=columns, height=len(shown))
    for line in shown:
        console.print(Text.from_ansi(line), no_wrap=True, crop=True)
    # Fonts that a page would have to fetch from elsewhere: without them it takes the reader's own.
    drawing = re.sub(
        r"@font-face \{.*?\}\s*", "", console.export_svg(title=f"celery -A tasks {typed}"), flags=re.DOTALL
    )
    (HERE / f"{name}.svg").write_text(drawing, encoding="utf-8")


def lines(screen: str) -> Iterator[str]:
    """The lines of a screen without those that say where this machine keeps things, or that come of the recording."""
    for line in screen.rstrip("\n ").split("\n"):
        if "$ done" not in line:
            yield line.replace(str(Path.home()), "~").rstrip()


def ask_tmux(server: str, *arguments: str) -> str:
    """An answer of tmux."""
    done = subprocess.run(
        ["tmux", "-L", server, "-f", os.devnull, *arguments], capture_output=True, text=True, check=True, timeout=30
    )
    return done.stdout


if __name__ == "__main__":
    main()
