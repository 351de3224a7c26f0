"""Messages: an SDK's objects, tool calls and their results, and what a chat template gets."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.client.request.conversation import INSTEAD, ChatMessage
from tasks.client.request.parameters import normalise, parse
from tasks.errors import InvalidRequest
from tasks.messages.depth import MAX_DEPTH

USER: dict[str, Any] = {"role": "user", "content": "What is 2 + 2?"}
CALL: dict[str, Any] = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2, "b": 2}'}}
HISTORY: list[dict[str, Any]] = [
    USER,
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "4"},
]


def refused(message: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        parse({"messages": [USER, message]})
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestHarmless:
    @pytest.mark.parametrize(
        "extra",
        [
            {"refusal": None, "annotations": [], "audio": None, "function_call": None, "tool_calls": None},
            {"tool_calls": []},
            {"reasoning_content": ""},
            {"provider_specific_fields": {}, "thinking_blocks": None},
            {"annotations": [{"type": "url_citation"}], "id": "msg_1", "status": "completed", "type": "message"},
            {"parsed": {"a": 1}},
            {"name": None},
            {"prefix": False, "partial": False, "tool_calls": None},  # Mistral's SDK
            # Anthropic's answer.
            {
                "id": "m",
                "type": "message",
                "model": "c",
                "stop_reason": "end_turn",
                "stop_sequence": None,
                "usage": {"a": 1},
            },
            {"created": 1, "finish_reason": "stop"},
        ],
    )
    def test_what_says_nothing_is_dropped(self, extra: dict[str, Any]) -> None:
        """Null, empty, and what only describes an answer changes nothing."""
        message = {"role": "assistant", "content": "4"}
        assert normalise({"messages": [{**message, **extra}]}) == {"messages": [message]}

    @pytest.mark.parametrize("name", ["reasoning", "thinking"])
    def test_a_thought_under_two_names(self, name: str) -> None:
        """vLLM says it under its old and its new name; two different ones are refused."""
        message = {"role": "assistant", "content": "4", "reasoning_content": "2 + 2"}
        assert normalise({"messages": [{**message, name: "2 + 2"}]}) == {"messages": [message]}
        assert refused({**message, name: "3 + 1"}).startswith(f"messages[1]['{name}']=<str>: unknown field; ")

    def test_nulls_in_calls_and_tools(self) -> None:
        """Whatever an SDK left empty in a call or a tool says nothing."""
        function = {"name": "add", "description": None, "parameters": None, "cache_control": None}
        call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": None}, "extra_content": None}
        sent = normalise(
            {
                "messages": [USER, {"role": "assistant", "content": None, "tool_calls": [call]}],
                "tools": [{"type": "function", "function": function, "cache_control": None, "defer_loading": False}],
            }
        )
        assert sent["messages"][1]["tool_calls"] == [{"id": "c1", "type": "function", "function": {"name": "add"}}]
        assert sent["tools"] == [{"type": "function", "function": {"name": "add"}}]
        parse(sent)

    def test_a_turn_that_was_cut_off_in_its_thought(self) -> None:
        """Its content is null where other servers made it; what was thought is the turn."""
        told = parse({"messages": [USER, {"role": "assistant", "content": None, "reasoning_content": "2 + 2"}, USER]})
        assert told.conversation() == [USER, {"role": "assistant", "content": "", "reasoning_content": "2 + 2"}, USER]

    def test_parts(self) -> None:
        """Parts of OpenAI's two interfaces are text, and one's empty fields change nothing."""
        parts = [
            {"type": "text", "text": "a", "cache_control": None},
            {"type": "input_text", "text": "b"},
            {"type": "output_text", "text": "c", "annotations": [], "logprobs": []},
        ]
        parsed = parse({"messages": [{"role": "user", "content": parts}]})
        assert parsed.conversation() == [{"role": "user", "content": "abc"}]


class TestRefused:
    @pytest.mark.parametrize("name", sorted(INSTEAD))
    def test_what_means_something_has_its_remedy(self, name: str) -> None:
        """A field that means something elsewhere is refused with what to do, and its value is not shown."""
        said = refused({"role": "assistant", "content": "4", name: "geheimnis"})
        assert said == f"messages[1]['{name}']=<str>: unknown field; {INSTEAD[name]}"

    @pytest.mark.parametrize(
        ("message", "remedy"),
        [
            ("hello", 'send {"role": "user", "content": …}'),
            (["user", "hello"], 'send {"role": "user", "content": …}'),
            ({"role": "function", "name": "f", "content": "4"}, "use the role tool, with tool_call_id"),
            ({"role": "human", "content": "4"}, "use system, developer, user, assistant or tool"),
            ({"role": "user", "content": 4}, "send text, or a list of"),
            ({"role": "user", "content": ["a"]}, "send text, or a list of"),
            (
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
                "images are not supported; send text, or a list of",
            ),
            ({"role": "user", "content": [{"type": "text"}]}, "send text"),
            ({"role": "user", "content": [{"type": "input_audio"}]}, "sound is not supported; send text"),
            ({"role": "user", "content": [{"type": "file"}]}, "files are not supported; send text"),
            ({"role": "user", "content": [{"type": "tool_result"}]}, "a message of the role tool, with tool_call_id"),
            ({"role": "assistant", "content": [{"type": "thinking"}]}, "reasoning_content of the message"),
            ({"role": "assistant", "content": [{"type": ["text"]}]}, "send text, or a list of"),
            ({"role": "user", "content": "a", "mood": "good"}, "leave it out"),
            ({"role": "assistant", "content": None}, "send text, or, for an assistant that called tools, tool_calls"),
            ({"role": "assistant"}, "send text, or, for an assistant that called tools, tool_calls"),
            ({"role": "user", "content": "a", "tool_calls": [CALL]}, "leave them out"),
            ({"role": "user", "content": "a", "tool_call_id": "c1"}, "leave it out"),
            ({"role": "assistant", "tool_calls": [{**CALL, "type": "custom"}]}, "leave it out"),
            (
                {"role": "assistant", "tool_calls": [{"name": "add", "args": {}, "id": "c1", "type": "tool_call"}]},
                "a call of LangChain; send a list of",
            ),
            (
                {"role": "assistant", "tool_calls": [{"function": {"name": "add", "arguments": {"a": float("inf")}}}]},
                "it has a number that is none; JSON has no NaN and no infinity",
            ),
            ({"role": "assistant", "tool_calls": [{"id": "c1"}]}, 'send {"name": …, "arguments": …}'),
            ({"role": "assistant", "tool_calls": "add"}, "send a list of"),
            ({"role": "assistant", "tool_calls": [{**CALL, "id": 5}]}, "send the call's id, as text"),
            ({"role": "tool", "tool_call_id": ["c1", "c2"], "content": "4"}, "several results are several messages"),
            ({"type": "human", "content": "a", "additional_kwargs": {}}, "convert_to_openai_messages"),
            ({"type": "human", "data": {"content": "a"}}, "convert_to_openai_messages"),
            ({"type": "function_call", "call_id": "c1", "name": "add"}, "send calls in the tool_calls of an assistant"),
            ({"type": "reasoning", "summary": []}, "what was thought as reasoning_content"),
            (
                {"role": "assistant", "content": [{"type": "tool_use", "id": "c1"}]},
                "calls are tool_calls of the message",
            ),
            ({"role": "user", "content": [{"type": "tool_result"}]}, "a result is a message of the role tool"),
            ({"role": "assistant", "content": [{"type": "thinking"}]}, "a thought is reasoning_content of the message"),
            ({"id": "x", "choices": [], "model": "m"}, "send its choices[0].message"),
            ({"text": "4", "finish_reason": "stop"}, 'send {"role": "assistant", "content": …}'),
            ({"index": 0, "message": {}, "finish_reason": "stop"}, "send the message in it"),
            ({"role": "assistant", "content": "4", "prefix": True}, "use prompt instead of messages"),
            ({"role": "tool", "content": "4", "is_error": True}, "say so in the content"),
        ],
    )
    def test_each_error_has_a_remedy(self, message: Any, remedy: str) -> None:
        """What cannot be a message is refused with what to send."""
        said = refused(message)
        assert said.startswith("messages[1]")
        assert remedy in said

    @pytest.mark.parametrize("arguments", ["{", "[1]", "5", '"x"', "[" * 5000, '{"a": NaN}', '{"a": -1e999}', 5, ["a"]])
    def test_arguments_that_are_no_object(self, arguments: Any) -> None:
        """A call's arguments are a JSON object; what is said shows none of them."""
        said = refused({"role": "assistant", "tool_calls": [{"function": {"name": "add", "arguments": arguments}}]})
        assert said.startswith("messages[1]['tool_calls'][0]['function']['arguments']=")
        assert "; send " in said

    def test_arguments_that_are_nested_deeply(self) -> None:
        """JSON inside a text is bounded like any other value."""
        deep = '{"a":' * (MAX_DEPTH + 1) + "1" + "}" * (MAX_DEPTH + 1)
        said = refused({"role": "assistant", "tool_calls": [{"function": {"name": "add", "arguments": deep}}]})
        assert f"nested more than {MAX_DEPTH} levels deep" in said


class TestTemplate:
    def test_a_tool_history(self) -> None:
        """A call's arguments are an object, its message says nothing beside it, and the result names the call."""
        assert parse({"messages": HISTORY}).conversation() == [
            USER,
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": 2}}}
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "4"},
        ]

    @pytest.mark.parametrize("arguments", ["", " ", "{}", {}, None])
    def test_a_call_without_arguments(self, arguments: Any) -> None:
        """A function without parameters is called with an empty object, whatever a model wrote for it."""
        message = {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"function": {"name": "now", "arguments": arguments}}],
        }
        (told,) = parse({"messages": [message, USER]}).conversation()[:1]  # type: ignore[index]
        assert told["tool_calls"] == [{"type": "function", "function": {"name": "now", "arguments": {}}}]
        assert told["content"] is None

    def test_what_providers_note_beside_a_call_is_dropped(self) -> None:
        """Signatures of other providers say nothing to the model."""
        noted = {**CALL, "index": 0, "provider_specific_fields": {"signature": "x"}, "extra_content": {"google": {}}}
        history = [USER, {**HISTORY[1], "tool_calls": [noted]}, HISTORY[2]]
        assert parse({"messages": history}).conversation() == parse({"messages": HISTORY}).conversation()

    @pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
    def test_a_thought_is_told_once(self, name: str) -> None:
        """Providers send a thought twice: as text, and in blocks of their own."""
        message = {"role": "assistant", "content": "4", name: "Two and two.", "thinking_blocks": [{"type": "thinking"}]}
        told = parse({"messages": [USER, {**message, "reasoning": "Two and two."}]}).conversation()
        assert told == [USER, {"role": "assistant", "content": "4", "reasoning_content": "Two and two."}]

    def test_words_beside_a_call_stay(self) -> None:
        """What an assistant says before it calls a tool is content."""
        told = ChatMessage.model_validate({"role": "assistant", "content": "Let me see.", "tool_calls": [CALL]})
        assert told.for_template()["content"] == "Let me see."

    def test_a_plain_message_has_no_other_keys(self) -> None:
        """Templates ask whether ``tool_calls`` is there: it is not, where there are none."""
        assert parse({"messages": [USER]}).conversation() == [USER]

    def test_calls_count_towards_the_limit(self) -> None:
        """The prompt's length includes the arguments of calls."""
        parsed = parse({"messages": HISTORY})
        assert parsed.prompt_bytes > sum(len(str(message["content"] or "")) for message in HISTORY)
