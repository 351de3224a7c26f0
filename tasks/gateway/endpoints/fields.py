"""The treatment of each field of a request: answered, ignored or refused. docs/openai.md is made of this."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tasks.client.request.compatibility import IGNORED, INSTEAD, NEUTRAL
from tasks.client.request.parameters import Parameters
from tasks.client.request.structure import FORMAT_HINT
from tasks.client.request.tools import CHOICE_HINT, TOOLS_HINT
from tasks.errors import InvalidRequest
from tasks.messages.encoding import to_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasks.gateway.endpoints.order import Kind

#: The fields that the gateway itself reads. All others go to ``generate``, which refuses those that it does not know.
CHAT: Mapping[str, str] = MappingProxyType(
    {
        "n": "so many requests, as a group; a `seed` counts up from choice to choice",
        "stream": "server-sent events, one for each piece of text",
        "stream_options": "`include_usage`; `include_obfuscation` changes nothing",
        "service_tier": "`priority` is the queue's priority 0 and `flex` 9, within what the key allows; others say nothing",
        "max_completion_tokens": "another name of `max_tokens`",
        "user": "goes into `metadata`",
    }
)
COMPLETIONS: Mapping[str, str] = MappingProxyType(
    {
        **{name: CHAT[name] for name in ("n", "stream", "stream_options", "user")},
        "prompt": "a text, or a list of texts; token ids are refused",
        "logprobs": "0 to 5, or more up to 20",
    }
)
RESPONSES: Mapping[str, str] = MappingProxyType(
    {
        "background": "the answer is made whether or not anybody reads it; `GET` it later",
        "conversation": "refused: send the whole conversation as `input`",
        "include": "`message.output_text.logprobs`; `reasoning.encrypted_content` changes nothing",
        "input": "a text, or items: messages, function calls and their outputs, reasoning",
        "instructions": "the first system message",
        "max_output_tokens": "`max_tokens`",
        "previous_response_id": "refused: send the whole conversation as `input`",
        "reasoning": "`effort`; `context`, `generate_summary`, `mode` and `summary` change nothing",
        "service_tier": CHAT["service_tier"],
        "stream": "server-sent events; `starting_after` continues them",
        "stream_options": "`include_obfuscation` changes nothing",
        "text": "`format`; `verbosity` changes nothing",
        "tool_choice": "as in chat",
        "tools": "functions",
        "top_logprobs": "0 to 20",
        "truncation": "`disabled`",
        "user": CHAT["user"],
    }
)
#: How the entry of a field begins that only has its empty value.
_REFUSED = "refused: "
#: Fields of ``generate``, and their names in ``/v1/responses``.
_IN_RESPONSES: Mapping[str, str] = MappingProxyType(
    {
        "max_tokens": "max_output_tokens",
        "messages": "input",
        "reasoning_effort": "reasoning.effort",
        "response_format": "text.format",
    }
)
#: What is one level further in there than in ``/v1/responses``, and what ``generate`` says of the whole field.
_FURTHER_IN = re.compile(r"(text\.format(?=\['json_schema'\]\[)|tools\[\d+\](?=\['function'\]\[))\['\w+'\]")
_HINTS_IN_RESPONSES: Mapping[str, str] = MappingProxyType(
    {
        FORMAT_HINT: 'use {"type": "json_object"}, or {"type": "json_schema", "name": …, "schema": …}',
        TOOLS_HINT: 'give a list of {"type": "function", "name": …, "parameters": {a JSON Schema}}',
        CHOICE_HINT: 'use "auto", "none", "required" or {"type": "function", "name": …}',
    }
)
#: Fields of ``generate`` that an endpoint takes under another name, or not at all, and what to do instead.
NOT_CHAT: Mapping[str, str] = MappingProxyType({"prompt": "use messages"})
NOT_COMPLETIONS: Mapping[str, str] = MappingProxyType(
    {
        "messages": "use prompt, or /v1/chat/completions",
        **dict.fromkeys(
            ("tools", "tool_choice", "parallel_tool_calls", "reasoning_effort"),
            "leave it out, or use /v1/chat/completions",
        ),
    }
)
NOT_RESPONSES: Mapping[str, str] = MappingProxyType(
    {
        **{name: f"use {own}" for name, own in _IN_RESPONSES.items()},
        "logprobs": "use top_logprobs, or leave it out",
        "prompt": "use input",
    }
)
#: Among the fields above, those that ``generate`` knows under this name.
_THROUGH = frozenset({"max_completion_tokens", "user"})


def passed(body: Mapping[str, Any], shaped: Mapping[str, str], others: Mapping[str, str]) -> dict[str, Any]:
    """The fields of a body that go to ``generate`` as they are.

    Args:
        body: all fields.
        shaped: those that the gateway itself reads.
        others: those of other endpoints, and what to do instead.

    Raises:
        InvalidRequest: the body has a field of another endpoint.
    """
    for name, instead in others.items():
        if body.get(name) is not None:
            raise InvalidRequest(f"{name}: not a field of this endpoint: {instead}")
    kept = (name for name in body if name in _THROUGH or not (name in shaped or name in IGNORED))
    return {name: body[name] for name in kept}


def as_called(error: InvalidRequest, kind: Kind) -> InvalidRequest:
    """The same error, with an endpoint's own names and shapes where it says those of ``generate``."""
    if kind != "response":
        return error
    message = given = str(error)
    name = next((name for name in _IN_RESPONSES if message.startswith((f"{name}=", f"{name}[", f"{name}:"))), None)
    if name is not None:
        rest = f": {message}" if name == "messages" else message.removeprefix(name)  # items are not messages one by one
        message = f"{_IN_RESPONSES[name]}{rest}"
    if inner := _FURTHER_IN.match(message):
        message = inner[1] + message.removeprefix(inner[0])
    for hint, own in _HINTS_IN_RESPONSES.items():
        if message.endswith(hint):
            message = message.removesuffix(hint) + own
    return error if message == given else type(error)(message)


def treatment(name: str, shaped: Mapping[str, str]) -> tuple[str, str]:
    """Return the treatment of a field (``answered``, ``ignored`` or ``refused``), and a sentence about it."""
    if name in shaped:
        about = shaped[name]
        return ("refused", about.removeprefix(_REFUSED)) if about.startswith(_REFUSED) else ("answered", about)
    if name in IGNORED:
        return "ignored", IGNORED[name]
    if name in Parameters.model_fields:
        return "answered", ""
    about = INSTEAD.get(name, "")
    values = ", ".join(f"`{to_json(value)}`" for value in NEUTRAL.get(name, ()))
    return "refused", f"{about}; taken is {values}" if values else about
