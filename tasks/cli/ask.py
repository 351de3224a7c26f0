"""``celery -A tasks ask``: one question to the fleet, its answer as it comes."""

from __future__ import annotations

import io
import sys
from contextlib import suppress
from importlib import import_module
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import click

from tasks.cli.flow import Flow
from tasks.cli.overview.terminal import terminal_width
from tasks.cli.remote import refusal
from tasks.errors import BrokerUnavailable, GenerationError
from tasks.names import GENERATE

if TYPE_CHECKING:
    from tasks.client.reader.chunks import Chunk
    from tasks.client.result import GenerateResult

#: The interval of looks at a request that has no token yet.
LOOK_EVERY_S = 1.5


@click.command()
@click.argument("question", required=False)
@click.option("--model", "-m", show_default="the setting default_model", help="Model to ask.")
@click.option("--system", help="Instructions for the model, as a system message.")
@click.option("--max-tokens", type=int, default=512, show_default=True, help="Most tokens in the answer.")
@click.option(
    "--temperature",
    type=float,
    show_default="the model's own",
    help="0 or more; 0 takes the likeliest token each time.",
)
@click.option("--timeout", type=float, metavar="SECONDS", show_default="no limit", help="Longest wait for the answer.")
@click.pass_context
def ask(
    ctx: click.Context,
    /,
    question: str | None,
    model: str | None,
    system: str | None,
    max_tokens: int,
    temperature: float | None,
    timeout: float | None,
    **_: Any,
) -> None:
    """Ask a model, and print its answer as it comes.

    Without a QUESTION it reads standard input. Ctrl-C cancels the request.
    """
    words = question or ("" if sys.stdin.isatty() else sys.stdin.read())
    if not words.strip():
        raise click.UsageError("give a question, or pipe one into this command")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A model may say what the terminal's encoding does not have.
        sys.stdout.reconfigure(errors="replace")
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": words})
    import_module("..generate", __package__)  # an application may have no other reason to load it
    generate = ctx.obj.app.tasks[GENERATE]
    try:
        result = generate.delay(messages=messages, model=model, max_tokens=max_tokens, temperature=temperature)
        last = _print_answer(result, timeout)
    except BrokerUnavailable as error:
        raise refusal(error) from error
    except GenerationError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        click.echo("\ncancelled", err=True)
        ctx.exit(130)
    click.echo(f"\n{_summary(last)}", err=True)


def _print_answer(result: GenerateResult, timeout: float | None) -> Chunk:
    """Print the chunks' text, the model's thoughts to standard error, and return the last chunk."""
    kind, begun, flow = "", Event(), Flow(terminal_width())
    if sys.stderr.isatty():
        Thread(target=_say_where, args=(result, begun), daemon=True).start()
    for chunk in result.stream(timeout=timeout, cancel_on_close=True):
        begun.set()
        if chunk.text:
            if kind and chunk.kind != kind:
                _print(flow.end() + "\n\n", kind)
                flow = Flow(terminal_width())
            kind = chunk.kind
            _print(flow.add(chunk.text), kind)
    _print(flow.end(), kind)
    click.echo()
    return chunk


def _print(text: str, kind: str) -> None:
    thinks = kind not in ("", "content")
    click.secho(text, nl=False, err=thinks, dim=thinks)


def _say_where(result: GenerateResult, done: Event) -> None:
    """Say on a terminal what a request without tokens waits for, whenever that changes."""
    shown = ""
    while not done.wait(LOOK_EVERY_S):
        with suppress(GenerationError):
            status = result.status()
            if status.state in ("queued", "loading") and (now := str(status)) != shown:
                shown = now
                click.secho(f"({shown})", err=True, dim=True)


def _summary(last: Chunk) -> str:
    """Describe the end: ``stop: 74 tokens, first one after 0.7 s, 12 tokens/s``."""
    tokens = last.usage["completion_tokens"] if last.usage else last.index
    parts = [f"{last.finish_reason}: {tokens} tokens"]
    first, total = (last.timing or {}).get("first_token_ms"), (last.timing or {}).get("total_ms")
    if first is not None and total is not None:
        parts.append(f"the first after {first / 1000:.1f} s")
        if tokens > 1 and total > first:
            parts.append(f"{(tokens - 1) * 1000 / (total - first):.1f} tokens/s")
    return ", ".join(parts)
