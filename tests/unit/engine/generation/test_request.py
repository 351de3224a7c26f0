"""One request's tokens and text, from the first attempt to the last."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tasks.engine.fake import FakeAssembler, fake_text, fake_token
from tasks.engine.generation.sequence import Request, prompt_hash
from tasks.engine.text.piece import Piece
from tasks.messages.engine import Finished, Resume, Submit, Tokens

if TYPE_CHECKING:
    from tasks.messages.answer import Kind
    from tasks.messages.engine import Event

END = 9999
IDS = [fake_token("p", None, k) for k in range(16)]


def _request(*, limit: int = 16, stop: tuple[str, ...] = (), ids: list[int] | None = None, text: str = "") -> Request:
    characters: dict[Kind, int] = {"content": len(text)}
    resume = None if ids is None else Resume(ids=ids, characters=characters, revision="", prompt_hash="")
    request = Request(
        uid=1,
        submit=Submit(task_id="t", messages=None, prompt="p", max_tokens=limit, stop=stop, resume=resume),
        prompt=[1, 2],
        prompt_hash="",
        limit=limit,
        end_ids=frozenset({END}),
        assembler=FakeAssembler(stop),
    )
    if resume is not None:
        request.resume()
    return request


def _text(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Tokens))


def test_an_end_token_says_nothing_and_does_not_count() -> None:
    """Finished with reason stop, and the tokens before it."""
    request = _request()
    request.take(IDS[0])
    assert request.take(END) == [Finished("t", "stop", 2, 0, 1)]
    assert request.reason == "stop"


def test_held_back_text_comes_with_the_end_token() -> None:
    """A half-matched stop string is said before the end, in a message without ids."""
    request = _request(stop=(fake_text("p", None, 1) + "x",))
    (first,) = request.take(IDS[0])
    assert isinstance(first, Tokens)
    assert first.text == ""
    tail, finished = request.take(END)
    assert tail == Tokens("t", 1, [], fake_text("p", None, 1))
    assert isinstance(finished, Finished)


def test_a_half_character_at_an_abort_is_not_lost_silently() -> None:
    """What cannot become text any more is one replacement character, as in the tokenizer's own decode."""
    request = _request()
    for token_id in IDS[:6]:
        request.take(token_id)
    events = request.finish("cancelled")
    assert _text(events) == "\ufffd"
    assert events[-1] == Finished("t", "cancelled", 2, 0, 6)


@pytest.mark.parametrize("cut", range(12))
def test_text_that_an_attempt_did_not_get_to_say_is_said_by_the_next(cut: int) -> None:
    """Wherever the emitted text stands against the emitted ids, behind or ahead, the reader's text is whole."""
    whole = fake_text("p", None, 16)
    request = _request(ids=IDS[:8], text=whole[: 6 * cut])
    events = [event for token_id in IDS[8:] for event in request.take(token_id)]
    assert whole[: 6 * cut] + _text(events) == whole
    assert [event.index for event in events if isinstance(event, Tokens)] == list(range(8, 16))


def test_a_resume_that_holds_an_end_token_is_complete() -> None:
    """Nothing is generated after it."""
    request = _request(ids=[*IDS[:3], END], text=fake_text("p", None, 2))
    assert request.reason == "stop"
    events = request.finish(request.reason)
    assert fake_text("p", None, 2) + _text(events) == fake_text("p", None, 3)
    assert events[-1] == Finished("t", "stop", 2, 0, 3)


class Script:
    """An assembler that says what it is told to for each token, and the rest at the end."""

    stopped = False
    warnings = ()

    def __init__(self, said: list[list[Piece]], end: list[Piece] | None = None) -> None:
        self._said, self._end = iter(said), end or []
        self.kind: Kind = "reasoning"

        self.calls = 0

    def push(self, _token_id: int) -> list[Piece]:
        pieces = next(self._said)
        self.calls = max([self.calls, *(piece.call + 1 for piece in pieces if piece.call is not None)])
        self.kind = pieces[-1].kind if pieces else self.kind
        return pieces

    def finish(self) -> list[Piece]:
        return self._end


THOUGHT_AND_ANSWER = [
    [Piece("reasoning", "hm ")],
    [],
    [Piece("reasoning", "so"), Piece("content", "Y")],
    [Piece("content", "ES ")],
    [Piece("reasoning", "oh")],
    [],
]


def test_an_event_has_text_of_one_kind() -> None:
    """A token that completes text of two kinds says one; the other comes with the next token, or without ids at the end."""
    request = _request(limit=3)
    request.assembler = Script(THOUGHT_AND_ANSWER[:3])
    events = [event for token_id in (11, 12, 13) for event in request.take(token_id)]
    assert events == [
        Tokens("t", 0, [11], "hm ", kind="reasoning"),
        Tokens("t", 1, [12], "", kind="reasoning"),
        Tokens("t", 2, [13], "so", kind="reasoning"),
        Tokens("t", 3, [], "Y"),
        Finished("t", "length", 2, 0, 3),
    ]
    request = _request()
    request.assembler = Script(THOUGHT_AND_ANSWER)
    events = [event for token_id in (11, 12, 13, 14) for event in request.take(token_id)]
    assert events[-2:] == [Tokens("t", 2, [13], "so", kind="reasoning"), Tokens("t", 3, [14], "YES ")]


def test_at_the_end_there_is_one_event_of_each_kind() -> None:
    """Readers tell text without ids from its copy by index and kind."""
    request = _request()
    request.assembler = Script([[Piece("reasoning", "a"), Piece("content", "b"), Piece("reasoning", "c")]], [])
    request.take(11)
    assert request.finish("cancelled")[:-1] == [Tokens("t", 1, [], "c", kind="reasoning"), Tokens("t", 1, [], "b")]


@pytest.mark.parametrize("cut", range(7))
def test_a_resume_says_of_each_kind_what_was_not_said(cut: int) -> None:
    """Whatever the earlier attempt emitted, both texts are whole, in mid-thought and between two kinds."""
    whole = {"reasoning": "hm sooh", "content": "YES "}
    first = _request()
    first.assembler = Script(THOUGHT_AND_ANSWER)
    emitted = [event for token_id in range(cut) for event in first.take(token_id)] if cut <= 6 else []
    said: dict[Kind, str] = {"reasoning": "", "content": ""}
    for event in emitted:
        assert isinstance(event, Tokens)
        said[event.kind] += event.text
    characters = {kind: len(text) for kind, text in said.items()}
    request = _request()
    request.submit = replace(
        request.submit, resume=Resume(ids=list(range(cut)), characters=characters, revision="", prompt_hash="")
    )
    request.assembler = Script([*THOUGHT_AND_ANSWER, []])
    request.resume()
    events = [event for token_id in range(cut, 7) for event in request.take(token_id)] + request.finish("cancelled")
    for event in events:
        if isinstance(event, Tokens):
            said[event.kind] += event.text
    assert said == whole


def test_prompt_hashes_tell_prompts_apart() -> None:
    """The same ids give the same digest, other ids another; ids may be as large as 32 bits allow."""
    assert prompt_hash([1, 2]) == prompt_hash([1, 2])
    assert len({prompt_hash(ids) for ids in ([], [1], [1, 2], [2, 1], [258], [2**32 - 1])}) == 6
