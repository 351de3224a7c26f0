"""What the demo shows, at several widths and without a terminal."""

from __future__ import annotations

import io
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from rich.console import Console

from tasks.demo import conversation, view
from tasks.demo.comparison import comparison, one_after_another
from tasks.demo.conversation import Conversation, ask, finished, total_tokens_per_s
from tasks.demo.errors import SetupError
from tasks.demo.next_steps import next_steps
from tasks.errors import EngineFailed
from tests.support import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

QUESTIONS = ("What is one?", "What is two?", "What is three?", "What is four, and why is it not five?")
LONG = "word " * 120 + "END"


class FakeResult:
    """A result whose stream is known in advance."""

    def __init__(self, words: list[str], error: Exception | None = None, wait_s: float = 0.0) -> None:
        self.words = words
        self.error = error
        self.wait_s = wait_s
        self.backend = SimpleNamespace(remove_pending_result=lambda _: None)
        self.stored: Any = {"finish_reason": "stop", "worker": "demo@here"}

    def stream(self) -> Iterator[Any]:
        threading.Event().wait(self.wait_s)
        for word in self.words:
            yield SimpleNamespace(text=f"{word} ", ids=[1], kind="content")
        if self.error:
            raise self.error

    def get(self, timeout: float, propagate: bool) -> Any:
        assert timeout == conversation.RESULT_TIMEOUT_S
        assert not propagate
        return self.stored


def make(question: str, words: str, error: Exception | None = None, *, follow: bool = True) -> Conversation:
    result = cast("Any", FakeResult(words.split(), error))
    conversation = Conversation(question, time.monotonic(), result)
    if follow:
        conversation.follow()
        conversation.collect()
        conversation.ended_at = (
            conversation.first_at or conversation.sent_at
        ) + 2  # a fake is faster than any panel is wide
    return conversation


def console(width: int, height: int = 24, *, terminal: bool = True) -> Console:
    return Console(file=io.StringIO(), width=width, height=height, force_terminal=terminal, color_system=None)


def printed(target: Console) -> str:
    return cast("io.StringIO", target.file).getvalue()


def test_a_conversation_goes_through_its_states() -> None:
    """It waits, runs from its first token, and is answered at its end, with its times and its text."""
    conversation = make("q", "one two three", follow=False)
    assert (conversation.state, conversation.first_token_s, conversation.tokens_per_s) == ("waiting", None, None)
    conversation.first_at, conversation.tokens = time.monotonic() - 100, 201
    assert conversation.state == "running"
    assert conversation.tokens_per_s == pytest.approx(2, rel=0.2)
    conversation = make("q", "one two three")
    assert (conversation.state, conversation.text, conversation.tokens) == ("answered", "one two three ", 3)
    assert conversation.first_token_s is not None
    assert conversation.answer["worker"] == "demo@here"


def test_a_failed_answer_keeps_its_text_and_says_why() -> None:
    """An error ends the conversation, is shown in its place, and its result is not asked for."""
    conversation = make("q", "half an", EngineFailed("the engine died"))
    assert (conversation.state, conversation.error, conversation.answer) == ("failed", "the engine died", {})
    target = console(80)
    view.watch(target, [conversation], lambda: None)
    assert "error: the engine died" in printed(target)


def test_a_failure_that_only_the_result_knows_is_shown() -> None:
    """Where the stream ended well and the stored result is an error, the error is shown."""
    conversation = make("q", "one", follow=False)
    conversation.follow()
    cast("FakeResult", conversation.result).stored = TypeError("broken")
    conversation.collect()
    assert (conversation.state, conversation.error) == ("failed", "TypeError: broken")


def test_questions_are_asked_as_chats_at_once() -> None:
    """Each question becomes one request with the parameters of all, and is followed to its end."""
    sent = []

    def delay(**parameters: Any) -> Any:
        sent.append(parameters)
        return FakeResult(["yes"])

    conversations = ask(cast("Any", SimpleNamespace(delay=delay)), ["a?", "b?"], max_tokens=4)
    wait_until(lambda: finished(conversations), about="both answers")
    assert sent == [{"messages": [{"role": "user", "content": question}], "max_tokens": 4} for question in ("a?", "b?")]
    assert total_tokens_per_s(conversations) > 0


@pytest.mark.parametrize(("width", "columns"), [(200, 4), (120, 2), (80, 2), (76, 2), (75, 1), (30, 1)])
def test_panels_fit_the_terminals_width(width: int, columns: int) -> None:
    """As many panels stand side by side as can be read, and no line is wider than the terminal."""
    target = console(width)
    target.print(view.grid(target, [make(question, LONG) for question in QUESTIONS], whole=True))
    lines = printed(target).splitlines()
    assert lines[0].count("╭") == columns
    assert max(map(len, lines)) <= width
    assert "END" in printed(target)


@pytest.mark.parametrize(("width", "height"), [(200, 20), (80, 24), (60, 30), (36, 20)])
def test_growing_answers_fit_the_terminals_height(width: int, height: int) -> None:
    """While answers grow, the last lines of each are shown and all panels fit the screen."""
    target = console(width, height)
    target.print(view.grid(target, [make(question, LONG) for question in QUESTIONS], whole=False))
    lines = printed(target).splitlines()
    assert len(lines) < height
    assert printed(target).count("END") == len(QUESTIONS)


def test_panels_grow_with_their_answers() -> None:
    """A row of panels is as high as the longest answer in it so far, so no panel is empty for long."""
    target = console(80)
    conversations = [make(QUESTIONS[0], LONG), make(QUESTIONS[1], "yes"), make(QUESTIONS[2], "no"), make("q", "so")]
    target.print(view.grid(target, conversations, whole=False))
    lines = printed(target).splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("╭")]
    assert len(lines) - starts[1] == view.LEAST_LINES + view.FRAME_LINES
    assert starts[1] > view.LEAST_LINES + view.FRAME_LINES


def test_what_batching_is_worth() -> None:
    """The tokens and seconds of both ways, and the ratio of their speeds."""
    together, alone = [[make(question, "w " * 10) for question in "ab"] for _ in range(2)]
    for number in range(2):
        together[number].sent_at, together[number].ended_at = 0.0, 1.0 + number
        alone[number].sent_at, alone[number].ended_at = 3.0 * number, 3.0 * number + 3.0
    assert comparison(together, alone) == [
        "all at once        20 tokens in 2.0 s: 10 tokens/s, 3.0 times as fast",
        "one after another  20 tokens in 6.0 s: 3 tokens/s",
    ]
    assert "as fast" not in comparison(together, [make("a", "", follow=False)])[0]
    busy = comparison(alone, together)
    assert "as fast" not in busy[0]
    assert busy[2].startswith("Other programs use this machine (load ")


def test_questions_one_after_another() -> None:
    """Each is sent when the one before has ended; a worker that ends ends it, too."""
    task = cast("Any", SimpleNamespace(delay=lambda **_: FakeResult(["yes"])))
    found = one_after_another(task, ["a?", "b?"], lambda: None, max_tokens=4)
    assert [conversation.question for conversation in found] == ["a?", "b?"]
    assert found[0].ended_at is not None
    assert found[1].sent_at >= found[0].ended_at

    def check() -> None:
        raise SetupError("the worker ended")

    stays = cast("Any", SimpleNamespace(delay=lambda **_: FakeResult([], wait_s=60.0)))
    with pytest.raises(SetupError, match="the worker ended"):
        one_after_another(stays, ["a?"], check)


def test_what_to_type_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of a fleet that stays; how to activate the environment where that was not done."""
    monkeypatch.setenv("PATH", "/nowhere")
    lines = list(next_steps())
    assert lines[1].strip().startswith(". ")
    assert "/bin/activate " in lines[1]
    text = "\n".join(lines)
    assert "celery -A tasks up " in text
    assert 'celery -A tasks ask "Why is the sky blue?"' in text
    assert max(map(len, lines)) <= 80
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    assert "activate" not in "\n".join(next_steps())


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 3), (6, 3), (9, 3)])
def test_rows_are_about_equally_long(count: int, columns: int) -> None:
    """On a wide terminal panels are spread evenly over the rows."""
    assert view.columns_for(160, count) == columns


def test_markup_in_an_answer_is_text() -> None:
    """What the model writes is never taken for the terminal library's markup."""
    conversation = make("[bold]q?", "[red]not red[/red] [/nonsense]")
    for target in (console(80), console(80, terminal=False)):
        view.watch(target, [conversation], lambda: None)
        assert "[red]not red[/red] [/nonsense]" in printed(target)
        assert "[bold]q?" in printed(target)


def test_lines_without_a_terminal() -> None:
    """Without a terminal each answer is one paragraph under its number and question, however long."""
    target = console(20, terminal=False)
    view.watch(target, [make("What is one?", LONG)], lambda: None)
    assert printed(target) == f"[1] What is one?\n{LONG}\n\n"


@pytest.mark.parametrize("terminal", [True, False])
def test_watching_ends_when_the_worker_does(terminal: bool) -> None:
    """A worker that ends while answers are awaited ends the waiting with its error."""

    def check() -> None:
        raise SetupError("the worker ended")

    with pytest.raises(SetupError, match="the worker ended"):
        view.watch(console(80, terminal=terminal), [make("q", "w", follow=False)], check)


@pytest.mark.parametrize(("width", "complete"), [(100, True), (60, True), (59, False), (36, False)])
def test_the_summary_fits_the_width(width: int, complete: bool) -> None:
    """The summary has times at every width, counts and endings where there is room, and says who answered."""
    target = console(width)
    view.summarise(target, [make(QUESTIONS[3], "a b c"), make("b?", "a", EngineFailed("no"))])
    lines = printed(target).splitlines()
    assert max(map(len, lines)) <= width
    text = " ".join(printed(target).split())
    assert "first token" in text
    assert ("ended" in text) is complete
    assert ("error" in text) is complete
    assert "4 tokens in all, " in text
    assert "demo@here answered 1 of 2" in text
