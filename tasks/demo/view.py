"""The output of the demo: answers growing side by side on a terminal, plain lines without one, and a summary."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from tasks.demo.conversation import finished, total_tokens_per_s

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rich.console import Console, RenderableType

    from tasks.demo.conversation import Conversation

#: A panel that is narrower than this is hard to read.
NARROWEST = 38
#: In fewer columns the summary has room for its two times only.
NARROW_TABLE = 60
#: The lines of an answer before it has a word.
LEAST_LINES = 2
FRAME_LINES = 2
FRAME_COLUMNS = 4
#: Between two columns of the summary.
GAP_COLUMNS = 3
STYLES = {"waiting": "bright_black", "running": "cyan", "answered": "green", "failed": "red"}
FRAMES_PER_S = 12


def watch(console: Console, conversations: Sequence[Conversation], check: Callable[[], None]) -> None:
    """Show the answers until the last one is complete. ``check`` is called often and raises to stop it."""
    if console.is_terminal:
        _watch_live(console, conversations, check)
    else:
        _watch_lines(console, conversations, check)


def _watch_live(console: Console, conversations: Sequence[Conversation], check: Callable[[], None]) -> None:
    def frame() -> RenderableType:
        # A last line that is short: the ^C that a terminal echoes must not wrap, or the frame cannot be wiped.
        return Group(grid(console, conversations, whole=False), _speed(conversations))

    # Transient: what stays on the screen are the whole answers, not the last lines of each.
    with Live(get_renderable=frame, console=console, refresh_per_second=FRAMES_PER_S, transient=True):
        while not finished(conversations):
            check()
            time.sleep(1 / FRAMES_PER_S)
    console.print(grid(console, conversations, whole=True))


def _watch_lines(console: Console, conversations: Sequence[Conversation], check: Callable[[], None]) -> None:
    left = list(enumerate(conversations, start=1))
    while left:
        check()
        for number, conversation in [entry for entry in left if entry[1].ended_at is not None]:
            left.remove((number, conversation))
            console.print(f"[{number}] {conversation.question}", markup=False, highlight=False, soft_wrap=True)
            words = f"error: {conversation.error}" if conversation.error else conversation.text.strip()
            console.print(f"{words}\n", markup=False, highlight=False, soft_wrap=True)
        time.sleep(0.05)


def grid(console: Console, conversations: Sequence[Conversation], *, whole: bool) -> RenderableType:
    """All answers in panels; unless ``whole``, each as its last lines, so that all fit the terminal's height."""
    columns = columns_for(console.width, len(conversations))
    rows = [conversations[start : start + columns] for start in range(0, len(conversations), columns)]
    room = max(2, (console.height - 2) // len(rows) - FRAME_LINES)
    width = console.width // columns - FRAME_COLUMNS
    table = Table.grid(expand=True)
    for _ in range(columns):
        table.add_column(ratio=1)
    for row in rows:
        texts = [_words(conversation).wrap(console, width) for conversation in row]
        # As high as the longest answer so far: a panel that is mostly empty looks like one that waits.
        height = max(map(len, texts)) if whole else min(room, max(LEAST_LINES, *map(len, texts)))
        table.add_row(
            *(_panel(conversation, text[-height:], height) for conversation, text in zip(row, texts, strict=True))
        )
    return table


def columns_for(width: int, count: int) -> int:
    """Return how many panels stand side by side, so that no row but the last is much shorter than the others."""
    most = max(1, min(count, width // NARROWEST))
    rows = -(-count // most)
    return -(-count // rows)


def _words(conversation: Conversation) -> Text:
    return Text(f"error: {conversation.error}" if conversation.error else conversation.text.strip() or " ")


def _panel(conversation: Conversation, lines: Iterable[Text], height: int) -> Panel:
    rate = f" · {conversation.tokens_per_s:.1f}/s" if conversation.tokens_per_s else ""
    return Panel(
        Text("\n").join(lines),
        title=Text(conversation.question, style="bold", overflow="ellipsis", no_wrap=True),
        title_align="left",
        subtitle=Text(
            f"{conversation.tokens} tokens{rate}" if conversation.tokens else conversation.state, style="dim"
        ),
        subtitle_align="right",
        border_style=STYLES[conversation.state],
        box=box.ROUNDED,
        height=height + FRAME_LINES,
    )


def summarise(console: Console, conversations: Sequence[Conversation]) -> None:
    """Print a table of the answers, the speed of all together, and the workers that answered."""
    wide = console.width >= NARROW_TABLE
    numbers = ("first token", "tokens/s", *(("tokens", "ended") if wide else ()))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("question", no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    room = console.width - sum(len(name) + GAP_COLUMNS for name in numbers) - GAP_COLUMNS
    for conversation in conversations:
        question = Text(conversation.question)
        question.truncate(max(room, GAP_COLUMNS), overflow="ellipsis")
        cells = [
            "–" if conversation.first_token_s is None else f"{conversation.first_token_s:.2f} s",
            "–" if conversation.tokens_per_s is None else f"{conversation.tokens_per_s:.1f}",
            str(conversation.tokens),
            "error" if conversation.error else str(conversation.answer.get("finish_reason", "")),
        ]
        table.add_row(question, *cells[: len(numbers)])
    console.print(table)
    console.print(_speed(conversations))
    for worker in sorted(
        {str(conversation.answer["worker"]) for conversation in conversations if "worker" in conversation.answer}
    ):
        count = sum(conversation.answer.get("worker") == worker for conversation in conversations)
        console.print(f"{worker} answered {count} of {len(conversations)}", highlight=False)


def _speed(conversations: Sequence[Conversation]) -> Text:
    tokens = sum(conversation.tokens for conversation in conversations)
    return Text(f"{tokens} tokens in all, {total_tokens_per_s(conversations):.1f} tokens per second", style="bold")
