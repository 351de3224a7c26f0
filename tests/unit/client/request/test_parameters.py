"""A request's parameters: every bound, and what each error says."""

from __future__ import annotations

import contextlib
import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.client.request.fields import MAX_EXTRA_BYTES
from tasks.client.request.parameters import (
    MAX_LOGIT_BIAS,
    MAX_TOKENS_DEFAULT,
    Parameters,
    parse,
)
from tasks.client.request.prompt import MAX_PROMPT_BYTES
from tasks.errors import InvalidRequest
from tasks.messages.engine import Sampling

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def refused(**values: Any) -> str:
    """What is said against these parameters, beside a good prompt unless they have one."""
    given = values if {"prompt", "messages"} & set(values) else {"prompt": "hi", **values}
    with pytest.raises(InvalidRequest) as caught:
        parse(given)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    return str(caught.value)


def user(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


class TestBounds:
    @pytest.mark.parametrize(
        ("name", "value", "remedy"),
        [
            ("temperature", -0.1, "greater than or equal to 0"),
            ("temperature", "hot", "a valid number"),
            ("temperature", math.inf, "a finite number"),
            ("top_p", 0, "greater than 0"),
            ("top_p", 1.1, "less than or equal to 1"),
            ("top_p", math.nan, "less than or equal to 1"),
            ("top_k", -1, "greater than or equal to 0"),
            ("top_k", 1.5, "a valid integer"),
            ("min_p", -0.1, "greater than or equal to 0"),
            ("min_p", 1.1, "less than or equal to 1"),
            ("presence_penalty", -2.1, "greater than or equal to -2"),
            ("presence_penalty", 2.1, "less than or equal to 2"),
            ("frequency_penalty", -2.1, "greater than or equal to -2"),
            ("frequency_penalty", 2.1, "less than or equal to 2"),
            ("frequency_penalty", math.nan, "a finite number"),
            ("temperature", True, "a number"),
            ("top_k", 2**31, "less than or equal to 2147483647"),
            ("repetition_penalty", 0, "greater than 0"),
            ("repetition_penalty", math.nan, "a finite number"),
            ("repetition_penalty", math.inf, "a finite number"),
            ("repetition_context_size", 0, "greater than or equal to 1"),
            ("repetition_context_size", 4097, "less than or equal to 4096"),
            ("max_tokens", 0, "greater than or equal to 1"),
            ("max_tokens", 1.5, "a valid integer"),
            ("max_tokens", "many", "a valid integer"),
            ("max_tokens", 2**31, "less than or equal to 2147483647"),
            ("max_tokens", True, "a number"),
            ("max_tokens", math.inf, "a finite number"),
            ("stop", ["a"] * 17, "at most 16 stop strings, got 17"),
            ("stop", ["a" * 257], "each stop string has 1 to 256 characters"),
            ("stop", "", "each stop string has 1 to 256 characters"),
            ("stop", 5, "a valid tuple"),
            ("top_logprobs", 21, "less than or equal to 20"),
            ("top_logprobs", -1, "greater than or equal to 0"),
            ("top_logprobs", 5, "needs logprobs=True"),
            ("logprobs", "perhaps", "a valid boolean"),
            ("logprobs", 5, "use logprobs=True, with top_logprobs"),
            ("logprobs", 1, "use logprobs=True, with top_logprobs"),
            ("logit_bias", {"-1": 5}, "greater than or equal to 0"),
            ("logit_bias", {"1": True}, "a number"),
            ("logit_bias", {"1": math.nan}, "less than or equal to 100"),
            ("logit_bias", {str(number): 1 for number in range(MAX_LOGIT_BIAS + 1)}, f"at most {MAX_LOGIT_BIAS} items"),
            ("logit_bias", [1], "a valid dictionary"),
            ("seed", 2**64, "less than 18446744073709551616"),
            ("seed", -(2**63) - 1, "greater than or equal to -9223372036854775808"),
            ("model", "", "at least 1 character"),
            ("model", 5, "a valid string"),
            ("model", "x" * 257, "at most 256 characters"),
            ("deadline", 30, "time.time() + 30"),
            ("deadline", 1.7e12, "less than or equal to 10000000000"),
            ("deadline", math.nan, "time.time() + 30"),
            ("deadline", datetime.now(UTC), "time.time() + 30"),
            ("keep_alive_s", 0, "greater than 0"),
            ("keep_alive_s", math.inf, "less than or equal to"),
            ("require_worker", "perhaps", "a valid boolean"),
            ("metadata", {"a": math.nan}, "it has a number that is none; JSON has no NaN and no infinity"),
            ("metadata", {"a": "x" * MAX_EXTRA_BYTES}, f"the limit is {MAX_EXTRA_BYTES}"),
            ("metadata", 5, "a valid dictionary"),
            ("prompt", 5, "a valid string"),
            ("prompt", ["a", "b"], "as a group"),
        ],
    )
    def test_says_field_value_and_remedy(self, name: str, value: Any, remedy: str) -> None:
        """A value out of bounds is one line with the field's name, the value, and what it should be."""
        message = refused(**{name: value})
        assert message.startswith((f"{name}=", f"{name}[", f"{name}: datetime is not plain data"))
        assert remedy in message
        assert any(word in message for word in ("use ", "give ", "send "))

    @pytest.mark.parametrize(
        ("values", "where"),
        [
            ({"stop": ["a", 1]}, "stop[1]=1:"),
            ({"logit_bias": {"11": 101}}, "logit_bias['11']=101:"),
            ({"logit_bias": {"eleven": 1}}, "logit_bias['eleven']='eleven':"),
            ({"messages": [{"role": "boss", "content": "x"}]}, "messages[0]['role']='boss':"),
            ({"messages": [*user("x"), {"role": "user"}]}, "messages[1]: has no content; send text"),
            ({"messages": ["x"]}, "messages[0]=<str>:"),
            ({"messages": "x"}, "messages=<str>: input should be a valid list"),
            ({"prompt": ["x"]}, "prompt=<list>: input should be a valid string"),
            ({"messages": user(None)}, "messages[0]: has no content; send text"),
            ({"messages": user([{"type": "text"}])}, "messages[0]['content'][0]['text']: field required"),
            (
                {"messages": user([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": "b"}])},
                "messages[0]['content'][1]['type']='image_url': input should be 'text'",
            ),
            ({"messages": [{"role": "user", "content": "x", "mood": "good"}]}, "messages[0]['mood']=<str>:"),
        ],
    )
    def test_says_where_inside_a_field(self, values: dict[str, Any], where: str) -> None:
        """An error inside a list or an object has the path to it, as one would write it in Python."""
        assert refused(**values).startswith(where)

    def test_a_number_that_cannot_be_shown(self) -> None:
        """An integer of more digits than Python converts is refused like any other."""
        assert refused(temperature=10**400).startswith("temperature: an integer of 1329 bits: use a smaller one")
        assert refused(seed=10**5000).startswith("seed: an integer of 16610 bits: use a smaller one, or text; ")

    def test_edges_are_allowed(self) -> None:
        """The bounds themselves are good values."""
        parse(
            {
                "prompt": "x" * MAX_PROMPT_BYTES,
                "temperature": 0,
                "top_p": 1,
                "min_p": 1,
                "max_tokens": 1,
                "presence_penalty": -2,
                "frequency_penalty": 2,
                "repetition_context_size": 4096,
                "seed": 2**64 - 1,
                "stop": ["a" * 256] * 16,
                "logprobs": True,
                "top_logprobs": 20,
                "logit_bias": {"5": -100, "6": 100},
            }
        )


@pytest.mark.parametrize("name", sorted(Parameters.model_fields))
def test_every_field_has_a_remedy(name: str) -> None:
    """Whatever is wrong with a field, its error ends with what to do."""
    said = refused(**{name: [object]}) if name == "prompt" else refused(**{name: [[5]]})
    assert said.startswith(name)
    assert any(word in said for word in ("use ", "give ", "send "))
    assert Parameters.model_fields[name].description


class TestPrompt:
    def test_exactly_one(self) -> None:
        """Neither of messages and prompt, or both, is refused; so is one without text."""
        assert refused(prompt=None) == "neither messages nor prompt is set: give exactly one of them"
        assert refused(prompt="a", messages=user("b")) == "both messages and prompt are set: give exactly one of them"
        assert refused(prompt="") == "prompt='' is empty: give some text"
        for empty in ([], user(""), user([])):
            assert refused(messages=empty).startswith("messages=[…] has no text:")

    def test_too_long(self) -> None:
        """The limit is in bytes, of all messages together."""
        half = "é" * (MAX_PROMPT_BYTES // 4)
        assert parse({"messages": [*user(half), *user(half)]}).prompt_bytes == MAX_PROMPT_BYTES
        too_long = refused(messages=[*user(half), *user(half + "x")])
        assert (
            too_long == f"the prompt has {MAX_PROMPT_BYTES + 1} bytes; the limit is {MAX_PROMPT_BYTES}: send less text"
        )

    def test_half_a_character(self) -> None:
        """Text that no tokenizer could take is refused where it is made."""
        assert refused(prompt="ok \ud83d") == "the prompt has '\\ud83d', one half of a character, at 3: send whole text"

    def test_parts(self) -> None:
        """OpenAI's list of text parts counts as one text."""
        parsed = parse({"messages": user([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])})
        assert parsed.messages is not None
        assert parsed.messages[0].text == "ab"


class TestUnknown:
    def test_is_named(self) -> None:
        """An unknown field is an error that names it, and what was probably meant."""
        assert refused(temprature=1) == "temprature=1: unknown field; did you mean temperature? If not, leave it out"
        assert refused(**{"a\nb": 1}).startswith("'a\\nb'=1: unknown field")
        assert refused(zzz=1).startswith("zzz=1: unknown field; leave it out; the fields are messages, prompt, model,")

    @pytest.mark.parametrize(
        ("name", "value", "said"),
        [
            ("maxTokens", 5, "maxTokens=5: unknown field; did you mean max_tokens?"),
            ("topP", 0.5, "topP=0.5: unknown field; did you mean top_p?"),
            ("api_key", "geheimnis", "api_key=<str>: unknown field; "),
            ("zzz", ["geheimnis"], "zzz=<list>: unknown field; "),
            ("service_tier", "flex", "service_tier='flex': not a field of generate: "),
            ("system", "geheimnis", "system=<str>: not a field of generate: send it as the first message"),
        ],
    )
    def test_its_value_is_shown_where_it_is_nobody_s_words(self, name: str, value: Any, said: str) -> None:
        """Numbers and the names of a choice are; other text may be a key or a part of a conversation."""
        assert refused(**{name: value}).startswith(said)


class TestDefaults:
    def test_what_is_left_out(self) -> None:
        """``None`` counts as left out; the model's own defaults fill what the producer left out, and nothing else."""
        assert parse({"prompt": "a", "max_tokens": None}).max_tokens == MAX_TOKENS_DEFAULT
        parsed = parse({"prompt": "a", "top_p": 0.5, "seed": None}, {"top_p": 0.9, "temperature": 0.2})
        assert (parsed.top_p, parsed.temperature) == (0.5, 0.2)

    def test_sampling(self) -> None:
        """The engine's sampler gets each parameter under its own name."""
        chosen: dict[str, Any] = {
            "temperature": 0.5,
            "top_p": 0.6,
            "top_k": 7,
            "min_p": 0.1,
            "seed": 8,
            "presence_penalty": 0.1,
            "frequency_penalty": 0.2,
            "repetition_penalty": 1.1,
            "repetition_context_size": 9,
            "logit_bias": {11: 1.0},
            "logprobs": True,
            "top_logprobs": 2,
        }
        assert parse({"prompt": "a", **chosen}).sampling() == Sampling(**chosen)

    def test_json_keys(self) -> None:
        """JSON knows text keys alone; a bias that came through Redis is for the same token."""
        assert parse({"prompt": "a", "logit_bias": {"11": 1}}).logit_bias == {11: 1.0}

    def test_one_stop_string(self) -> None:
        """``stop`` may be a text, as in OpenAI's interface."""
        assert parse({"prompt": "a", "stop": "\n"}).stop == ("\n",)
        assert parse({"prompt": "a", "stop": None}).stop == ()


@given(values=st.dictionaries(st.sampled_from(sorted(Parameters.model_fields)) | st.text(max_size=5), JSON, max_size=5))
def test_nothing_else_is_ever_raised(values: dict[str, Any]) -> None:
    """Whatever JSON a producer of any language sends, it is parameters or an InvalidRequest."""
    with contextlib.suppress(InvalidRequest):
        parse(values)


@pytest.mark.parametrize("name", ["metadata", "messages", "stop", "prompt", "zzz"])
def test_deep_nesting_is_refused(name: str) -> None:
    """JSON that is nested too deeply to be looked at is an InvalidRequest too."""
    deep: Any = {}
    for _ in range(100_000):
        deep = {"a": deep}
    refused(**{name: deep})
    while deep:  # freed from the outside in, so that the interpreter does not recurse either
        deep = deep.pop("a")


def test_a_models_own_sampling_stands_behind_request_and_catalogue() -> None:
    """Request, then catalogue, then the model's generation_config.json, then ours; a request's neutral value counts."""
    model = {"temperature": 0.6, "top_k": 20, "top_p": 0.95}
    parameters = parse({"prompt": "hi", "top_p": 1.0, "min_p": None}, {"temperature": 0.3})
    sampling = parameters.sampling(model)
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0.3, 1.0, 20, 0.0)
    assert parameters.sampling().top_k == 0
