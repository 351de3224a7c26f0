"""The beginnings of prompts: what begins alike has a digest in common, and nothing else does."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.broker.message.prefix import LEAST_CHARACTERS, prefixes_of

LONG = "All prompts begin with this. " * 60


def message(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def digests(model: str = "m", **values: Any) -> set[str]:
    return {prefix.digest for prefix in prefixes_of({"model": model, **values}, "default")}


def test_the_next_turn_begins_with_the_last_one() -> None:
    """A turn has the whole turn before it as a beginning, however many turns went before."""
    messages = [message("system", LONG), message("user", "One?")]
    for turn in range(30):
        before = prefixes_of({"messages": messages, "model": "m"}, "")[0]
        messages = [*messages, message("assistant", f"{turn}."), message("user", f"And {turn}?")]
        after = prefixes_of({"messages": messages, "model": "m"}, "")
        assert before in after
        assert [prefix.characters for prefix in after] == sorted((prefix.characters for prefix in after), reverse=True)
        assert len(after) <= 8


@pytest.mark.parametrize("size", [1_100, 5_000, 20_000, 100_000])
def test_a_beginning_within_a_text(size: int) -> None:
    """Two prompts that part within one long text still have a beginning in common, of a fourth of that at least, up to 16,384."""
    shared = ("x y z. " * size)[:size]
    first, second = (prefixes_of({"prompt": f"{shared}{end}", "model": "m"}, "") for end in ("a" * 50, "b" * 50))
    common = max(prefix.characters for prefix in first if prefix in second)
    assert min(size / 4, 16_384) <= common <= size


def test_what_makes_another_prompt() -> None:
    """Another model, role, tool or first word leaves nothing in common; what comes after the prompt changes nothing."""
    conversation: dict[str, Any] = {"messages": [message("user", LONG)]}
    own = digests(**conversation)
    assert own
    assert own == digests(**conversation, max_tokens=3, temperature=0)
    assert prefixes_of(conversation, "m") == prefixes_of({**conversation, "model": "m"}, "")
    for other in (
        digests(model="other", **conversation),
        digests(messages=[message("system", LONG)]),
        digests(messages=[message("user", f"But {LONG}")]),
        digests(**conversation, tools=[{"type": "function"}]),
        digests(**conversation, chat_template_kwargs={"date": "today"}),
        digests(prompt=LONG),
    ):
        assert other
        assert not own & other


def test_what_a_producer_names() -> None:
    """``prompt_cache_key`` comes first, whatever the prompt is: for one model."""
    named = [prefixes_of({"prompt": text, "model": "m", "prompt_cache_key": "k"}, "")[0] for text in (LONG, "short")]
    assert named[0].digest == named[1].digest
    assert [prefix.characters for prefix in named] == [len(LONG), 5]
    assert named[0].digest not in digests(model="other", prompt=LONG, prompt_cache_key="k")


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"prompt": "x" * (LEAST_CHARACTERS - 1)},
        {"prompt": 7},
        {"messages": "text"},
        {"messages": []},
        {"input": [LONG]},
    ],
)
def test_nothing_to_gain(values: dict[str, Any]) -> None:
    """A short prompt, or none, has no beginning that is worth looking for."""
    assert prefixes_of({"model": "m", "prompt_cache_key": 3, **values}, "") == []


def test_half_a_character() -> None:
    """What is no text has a digest all the same: that it is refused is said elsewhere."""
    assert digests(prompt=LONG + "\ud800")
