"""Record ``demo.svg``, the picture in the README, from a real run of the demo: python -m docs.images.demo"""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path

from rich.console import Console

from tasks.demo import view
from tasks.demo.__main__ import QUESTIONS, private_redis, producer
from tasks.demo.bundled import MODEL, ensure_model
from tasks.demo.comparison import comparison, one_after_another
from tasks.demo.conversation import ask, finished
from tasks.demo.worker import DemoWorker
from tests.support import wait_until
from worker_config.settings import current_settings


def main() -> None:
    """Ask the demo's questions and draw what the demo leaves on a terminal of 100 columns."""
    ensure_model(lambda _about, _fraction: None)
    console = Console(file=StringIO(), record=True, force_terminal=True, width=100, height=40)
    with private_redis() as client, DemoWorker(current_settings().redis_url, MODEL) as worker, producer() as generate:
        worker.wait_until_ready(client)
        parameters = {"model": MODEL, "max_tokens": 96, "temperature": 0}
        conversations = ask(generate, QUESTIONS, **parameters)
        wait_until(lambda: finished(conversations), timeout_s=120, about="the last answer")
        for conversation in conversations:
            conversation.collect()
            conversation.release()
            # The picture shows no name of the machine that drew it.
            conversation.answer["worker"] = "demo@localhost"
        alone = one_after_another(generate, QUESTIONS, worker.check, **parameters)
    console.print(view.grid(console, conversations, whole=True))
    view.summarise(console, conversations)
    for line in comparison(conversations, alone):
        console.print(line, style="bold", highlight=False)
    # Fonts that a page would have to fetch from elsewhere: without them it takes the reader's own.
    drawing = re.sub(r"@font-face \{.*?\}\s*", "", console.export_svg(title="make demo"), flags=re.DOTALL)
    Path(__file__).with_name("demo.svg").write_text(drawing, encoding="utf-8")


if __name__ == "__main__":
    main()
