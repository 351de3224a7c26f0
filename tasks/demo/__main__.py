"""``make demo``: several people ask a real model at once, through Celery and Redis, on this machine alone."""

from __future__ import annotations

import argparse
import signal
import sys
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING

from tasks.demo.bundled import MODEL, ensure_model
from tasks.demo.comparison import comparison, one_after_another
from tasks.demo.conversation import ask
from tasks.demo.embedded import EmbeddedServer
from tasks.demo.errors import SetupError
from tasks.demo.next_steps import next_steps
from tasks.demo.progress import progress
from tasks.demo.worker import DemoWorker
from tasks.errors import GenerationError
from tasks.names import PACKAGE
from worker_config.environment import SettingError
from worker_config.settings import change_environment, current_settings, redis_was_given

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from redis import Redis
    from rich.console import Console

    from tasks.generate import GenerateTask

#: Those with long answers first, so that panels beside each other are about as high.
QUESTIONS = (
    "What is photosynthesis?",
    "What is gravity?",
    "Name three colors.",
    "What is the capital of France?",
)
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit status."""
    parser = argparse.ArgumentParser(prog=f"python -m {PACKAGE}.demo", description=__doc__)
    parser.add_argument("question", nargs="*", help="ask this instead of the demo's own questions")
    parser.add_argument("--max-tokens", type=int, help="the longest answer (96; 256 for your own question)")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        longest = (256 if options.question else 96) if options.max_tokens is None else options.max_tokens
        return run(options.question or QUESTIONS, longest)
    except (SetupError, SettingError, GenerationError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except ModuleNotFoundError as error:
        sys.stderr.write(f"error: {error.name} is not installed: pip install 'celery-mlx[demo]'\n")
        return 1
    except KeyboardInterrupt:
        # All of it has stopped: one more must not change the status while the interpreter ends.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.stderr.write("stopped\n")
        return INTERRUPTED


def run(questions: Sequence[str], max_tokens: int) -> int:
    """Start everything, ask, show the answers, and stop everything: the worker first, Redis last."""
    from rich.console import Console

    from tasks.demo.view import summarise, watch

    with progress() as report:
        ensure_model(report)
    console = Console()
    with private_redis() as client, DemoWorker(current_settings().redis_url, MODEL) as worker:
        with waiting(console, f"starting a worker and loading {MODEL}"):
            worker.wait_until_ready(client)
        with producer() as generate:
            parameters = {"model": MODEL, "max_tokens": max_tokens, "temperature": 0}
            conversations = ask(generate, questions, **parameters)
            try:
                watch(console, conversations, worker.check)
                for conversation in conversations:
                    conversation.collect()
            finally:
                for conversation in conversations:
                    conversation.release()
            alone = []
            if len(questions) > 1:
                with waiting(console, "the same questions one after another, to compare"):
                    alone = one_after_another(generate, questions, worker.check, **parameters)
    summarise(console, conversations)
    for line in comparison(conversations, alone) if alone else ():
        console.print(line, style="bold", highlight=False)
    console.print()
    for line in next_steps():
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return 1 if any(conversation.error for conversation in conversations) else 0


@contextmanager
def private_redis() -> Iterator[Redis]:
    """A client of a server of our own, or of the one that ``REDIS_URL`` names; the settings name it from then on."""
    import redis

    from tasks.server.connection import connect
    from tasks.server.trouble import trouble

    with ExitStack() as stack:
        if not redis_was_given():
            change_environment(REDIS_URL=stack.enter_context(EmbeddedServer()).url)
        client = stack.enter_context(closing(connect(current_settings().redis_url)))
        try:
            client.ping()
        except redis.RedisError as error:
            found = trouble(error)
            raise SetupError(
                f"the Redis that REDIS_URL names does not answer ({found.says}): {found.remedy}, or unset REDIS_URL"
            ) from None
        yield client


@contextmanager
def producer() -> Iterator[GenerateTask]:
    """The task, as every program that uses it has it."""
    from tasks import app, generate

    try:
        yield generate
    finally:
        app.backend.result_consumer.stop()
        app.close()


@contextmanager
def waiting(console: Console, about: str) -> Iterator[None]:
    """Says that something takes a while: a spinner on a terminal, a line without one."""
    if console.is_terminal:
        with console.status(about):
            yield
    else:
        console.print(f"{about} ...")
        yield


if __name__ == "__main__":
    sys.exit(main())
