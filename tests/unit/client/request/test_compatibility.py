"""Fields of other clients: what changes nothing is dropped, everything else says what to do."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.client.request.compatibility import INSTEAD, NEUTRAL, without_neutral
from tasks.client.request.parameters import Parameters, normalise, parse
from tasks.errors import InvalidRequest

WORDS = ("leave", "send", "use ", "give", "not supported", "as a group")


@pytest.mark.parametrize(
    "values",
    [
        {"n": 1, "stream": False, "response_format": {"type": "text"}, "logit_bias": None},
        {"stream_options": {"include_usage": True}, "store": False, "service_tier": "auto"},
        {"stream_options": {}, "parallel_tool_calls": True, "tool_choice": "auto", "tools": []},
        {"prompt_cache_retention": "24h", "safety_identifier": "s"},
        {"best_of": 1, "ignore_eos": False, "skip_special_tokens": True, "min_tokens": 0, "length_penalty": 1.0},
        {"temperature": None, "user": None, "extra_body": {}},
        {"add_generation_prompt": True, "continue_final_message": False, "include_reasoning": True, "documents": []},
        {"cache_prompt": True, "top_a": 0, "n_probs": 0, "transforms": [], "usage": {"include": True}},
        {"logit_bias": [], "metadata": [], "chat_template_kwargs": []},
    ],
)
def test_neutral_values_are_dropped(values: dict[str, Any]) -> None:
    """What asks for what happens anyway is not sent."""
    assert normalise({"prompt": "x", **values}) == {"prompt": "x"}


@pytest.mark.parametrize("name", sorted(NEUTRAL))
def test_a_neutral_value_has_a_remedy_for_others(name: str) -> None:
    """Each field that is dropped for one value says what to do for the others, and the value alone decides."""
    for value in NEUTRAL[name]:
        assert without_neutral({name: value}) == {}
    with pytest.raises(InvalidRequest) as caught:
        parse({"prompt": "x", name: 5.5})
    if name not in Parameters.model_fields:
        assert str(caught.value) == f"{name}=5.5: not a field of generate: {INSTEAD[name]}"


@pytest.mark.parametrize("values", [{"n": True}, {"stream": 0}, {"min_tokens": False}, {"store": 0}])
def test_truth_and_numbers_are_told_apart(values: dict[str, Any]) -> None:
    """``True`` is not the number 1 here, nor is 0 ``False``."""
    assert without_neutral(values) == values


@pytest.mark.parametrize("name", sorted(INSTEAD))
def test_every_remedy_says_what_to_do(name: str) -> None:
    """A field of another interface is named with what to do, and none of them is a field of ours."""
    assert any(word in INSTEAD[name] for word in WORDS)
    assert name not in Parameters.model_fields


@pytest.mark.parametrize("name", ["top_n", "maxOutputTokens", "typ_p", "prompt_id", "prompt_cache_options"])
def test_a_name_that_only_looks_like_ours(name: str) -> None:
    """A field of another client that resembles one of ours need not mean it: what else to do is said, too."""
    with pytest.raises(InvalidRequest, match=rf"^{name}=1: unknown field; did you mean \w+\? If not, leave it out$"):
        parse({"prompt": "x", name: 1})


def test_an_sdk_s_own_nothing() -> None:
    """OpenAI's SDK passes objects of these classes where a field is left out."""
    sentinels = [type(name, (), {})() for name in ("NotGiven", "Omit")]
    assert normalise({"prompt": "x", "temperature": sentinels[0], "stop": sentinels[1]}) == {"prompt": "x"}


class TestOtherNames:
    def test_max_completion_tokens(self) -> None:
        """OpenAI's newer name is the same limit; two that differ are an error."""
        assert normalise({"prompt": "x", "max_completion_tokens": 5}) == {"prompt": "x", "max_tokens": 5}
        assert parse({"prompt": "x", "max_completion_tokens": 5, "max_tokens": 5}).max_tokens == 5
        with pytest.raises(InvalidRequest, match=r"max_completion_tokens=5 and max_tokens=6: use only max_tokens"):
            parse({"prompt": "x", "max_completion_tokens": 5, "max_tokens": 6})
        with pytest.raises(InvalidRequest, match=r"max_tokens=0"):
            parse({"prompt": "x", "max_completion_tokens": 0})

    def test_enable_thinking(self) -> None:
        """It goes to the chat template; where that is told otherwise, neither is chosen."""
        thinks = {"enable_thinking": False}
        for told in ({}, thinks, {"enable_thinking": None}):
            assert normalise({"prompt": "x", **thinks, "chat_template_kwargs": told})["chat_template_kwargs"] == thinks
        with pytest.raises(InvalidRequest, match=r"^enable_thinking=False and .*=True: use only enable_thinking$"):
            normalise({"prompt": "x", **thinks, "chat_template_kwargs": {"enable_thinking": True}})

    def test_user(self) -> None:
        """OpenAI's ``user`` goes into the metadata, unless that has its own."""
        assert parse({"prompt": "x", "user": "u1"}).metadata == {"user": "u1"}
        assert parse({"prompt": "x", "user": "u1", "metadata": {"a": 1}}).metadata == {"user": "u1", "a": 1}
        assert parse({"prompt": "x", "user": "u1", "metadata": {"user": "u2"}}).metadata == {"user": "u2"}
