"""One request's tokens and text, from the first attempt to the last."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tasks.engine.fake import FakeAssembler, fake_text, fake_token
from tasks.engine.sequence import Request, prompt_hash
from tasks.messages.engine import Finished, Resume, Submit, Tokens

if TYPE_CHECKING:
    from tasks.messages.engine import Event

END = 9999
IDS = [fake_token("p", None, k) for k in range(16)]


def _request(*, limit: int = 16, stop: tuple[str, ...] = (), ids: list[int] | None = None, text: str = "") -> Request:
    resume = None if ids is None else Resume(ids=ids, text=text, revision="", prompt_hash="")
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


def test_prompt_hashes_tell_prompts_apart() -> None:
    """The same ids give the same digest, other ids another; ids may be as large as 32 bits allow."""
    assert prompt_hash([1, 2]) == prompt_hash([1, 2])
    assert len({prompt_hash(ids) for ids in ([], [1], [1, 2], [2, 1], [258], [2**32 - 1])}) == 6
