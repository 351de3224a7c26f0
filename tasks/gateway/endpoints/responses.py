"""``/v1/responses``: from its body to a request."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tasks.client.request.explain import shown_alone, shown_name
from tasks.client.request.suggestion import suggestion
from tasks.errors import InvalidRequest
from tasks.gateway.endpoints.fields import NOT_RESPONSES, RESPONSES, passed
from tasks.gateway.endpoints.items import messages_of
from tasks.gateway.endpoints.order import Order, flag, model_of, number, service_tier_of, wants_usage
from tasks.messages.encoding import to_compact_json

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "resp_"
#: The fields of a body that its answer repeats.
_ECHOED = (
    *("instructions", "max_output_tokens", "metadata", "parallel_tool_calls", "prompt_cache_key", "reasoning"),
    *(
        "safety_identifier",
        "service_tier",
        "temperature",
        "text",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "user",
    ),
)
MAX_ECHO_CHARACTERS = 8_192
#: The parts of two fields. Nothing follows from those after the first.
_PARTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "reasoning": ("effort", "context", "generate_summary", "mode", "summary"),
        "text": ("format", "verbosity"),
    }
)
#: Parts of an answer that may be asked for; of others there is nothing.
_INCLUDES = ("message.output_text.logprobs", "reasoning.encrypted_content")


def parse(body: Mapping[str, Any], default_model: str) -> Order:
    """Turn a body into an order.

    Raises:
        InvalidRequest: a field that the gateway reads itself is wrong; ``generate`` checks the others.
    """
    stream = flag(body, "stream")
    wants_usage(body, stream=stream)
    for name, value in (("truncation", "disabled"), ("previous_response_id", None), ("conversation", None)):
        if body.get(name) not in (value, None):
            raise InvalidRequest(
                f"{name}={body[name]!r:.60}: nothing is cut or kept here: send the whole conversation as input"
            )
    values = passed(body, RESPONSES, NOT_RESPONSES)
    values |= {
        "model": model_of(body, default_model),
        "messages": messages_of(body.get("input"), body.get("instructions")),
        "max_tokens": body.get("max_output_tokens"),
        "reasoning_effort": _object(body, "reasoning").get("effort"),
        "response_format": _format(_object(body, "text").get("format")),
        "tools": _tools(body.get("tools")),
        "tool_choice": _choice(body.get("tool_choice")),
        **_logprobs(body),
    }
    return Order(
        kind="response",
        model=values["model"],
        values=[{name: value for name, value in values.items() if value is not None}],
        stream=stream,
        background=flag(body, "background"),
        service_tier=service_tier_of(body),
        echo={name: body[name] for name in _ECHOED if _is_repeated(body.get(name))},
    )


def _is_repeated(value: Any) -> bool:
    """Return whether an answer repeats a field: it is kept as long as the answer, so long values are left out."""
    return value is not None and len(to_compact_json(value)) <= MAX_ECHO_CHARACTERS


def _object(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRequest(f"{name}={value!r:.60}: use an object")
    for part, inner in value.items():
        if inner is not None and part not in _PARTS[name]:
            hint = suggestion(part, _PARTS[name], f"leave it out; there is {_PARTS[name][0]}")
            raise InvalidRequest(f"{name}.{shown_name(part)}={shown_alone(part, inner)}: unknown field; {hint}")
    return value


def _format(given: Any) -> Any:
    """``text.format`` as ``response_format``, where a schema is one level further in."""
    if not isinstance(given, dict) or given.get("type") != "json_schema":
        return given
    if given.get("schema") is None:
        raise InvalidRequest('text.format: no schema; use {"type": "json_schema", "name": …, "schema": …}')
    return {"type": "json_schema", "json_schema": {name: value for name, value in given.items() if name != "type"}}


def _tools(given: Any) -> Any:
    """Functions as ``generate`` has them, where their parts are one level further in."""
    if not isinstance(given, list):
        return given
    for tool in given:
        if not isinstance(tool, dict) or tool.get("type") != "function":
            kind = tool.get("type") if isinstance(tool, dict) else tool
            raise InvalidRequest(f"tools: {kind!r:.60}: only functions are supported; leave it out")
        if "name" not in tool:
            raise InvalidRequest('tools: a function has no name: use {"type": "function", "name": …, "parameters": …}')
    return [
        {"type": "function", "function": {name: value for name, value in tool.items() if name != "type"}}
        for tool in given
    ] or None


def _choice(given: Any) -> Any:
    if isinstance(given, dict) and given.get("type") == "function" and "name" in given:
        return {"type": "function", "function": {"name": given["name"]}}
    return given


def _logprobs(body: Mapping[str, Any]) -> dict[str, Any]:
    includes = body.get("include") or []
    if not isinstance(includes, list) or not set(map(str, includes)) <= set(_INCLUDES):
        raise InvalidRequest(f"include={includes!r:.80}: there is {' and '.join(_INCLUDES)}")
    most = number(body, "top_logprobs", 0, 0, 20)
    return {"logprobs": True, "top_logprobs": most} if most or _INCLUDES[0] in includes else {}
