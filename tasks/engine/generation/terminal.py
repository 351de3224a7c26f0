"""One answer on the terminal, from the engine's own loop, to look at a model or to debug the engine."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tasks.engine.generation.intake import Intake, preparer
from tasks.engine.generation.loop import GenerationLoop
from tasks.messages.engine import EngineConfig, Failed, Finished, Started, StepOutput, Tokens

if TYPE_CHECKING:
    from tasks.engine.generation.runner import ModelRunner
    from tasks.engine.generation.sequence import Request
    from tasks.messages.engine import Resized, Submit


class Terminal:
    """Writes an answer's text to stdout as it comes, and remarks about it to stderr."""

    def __init__(self) -> None:
        self.exitcode: int | None = None

    def __call__(self, output: StepOutput | Resized) -> None:
        """Show the events of a step; ``exitcode`` is set at the end of the request."""
        assert isinstance(output, StepOutput)
        for event in output.events:
            if isinstance(event, Started):
                print(f"[{event.prompt_tokens} prompt tokens]", file=sys.stderr)  # noqa: T201
            elif isinstance(event, Tokens):
                out = sys.stdout if event.kind == "content" else sys.stderr
                out.write(event.text)
                out.flush()
            elif isinstance(event, Finished):
                print(f"\n[{event.completion_tokens} tokens, {event.finish_reason}]", file=sys.stderr)  # noqa: T201
                self.exitcode = 0
            elif isinstance(event, Failed):
                print(f"{event.code}: {event.message}", file=sys.stderr)  # noqa: T201
                self.exitcode = 1


def answer(runner: ModelRunner, submit: Submit) -> int:
    """Let the model answer; returns the exit code."""
    terminal = Terminal()
    intake: Intake[Request] = Intake()
    intake.start(preparer(runner))
    intake.receive(submit)
    engine = GenerationLoop(runner, intake, terminal, EngineConfig(model="", max_batch=1))
    while terminal.exitcode is None:
        engine.turn()
        # What ends without a step is sent when the engine would wait, and here nothing more comes.
        engine.send()
    return terminal.exitcode
