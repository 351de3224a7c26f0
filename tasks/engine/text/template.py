"""A model's chat template: from the messages of a request to the text that the model reads."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tasks.engine.failure import first_line
from tasks.engine.text.roles import Roles
from tasks.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlx_lm.tokenizer_utils import TokenizerWrapper

#: Arguments of ``apply_chat_template`` that are ours, or that would replace the model's own template.
RESERVED = frozenset(
    {"add_generation_prompt", "chat_template", "continue_final_message", "conversation", "documents", "max_length"}
    | {
        "padding",
        "return_assistant_tokens_mask",
        "return_dict",
        "return_tensors",
        "sanitize_control_tokens",
        "tokenize",
    }
    | {"tokenizer_kwargs", "tools", "truncation"}
)


#: The names of the variable that says whether the model is to think.
_THINKING = ("enable_thinking", "thinking")


class ChatTemplate:
    """The template of one model.

    Args:
        tokenizer: renders it.
        source: its text; empty where it is a program, or where there is none.
        absent: what to say where the model has none.
    """

    def __init__(self, tokenizer: TokenizerWrapper, source: str, absent: str) -> None:
        self._tokenizer = tokenizer
        self._roles = Roles(source)
        self._variables = _variables(source)
        self._absent = absent

    def render(self, messages: list[dict[str, Any]], given: Mapping[str, Any], effort: str | None = None) -> str:
        """The conversation as one text, up to where the answer begins.

        Raises:
            InvalidRequest: the model has no template, or its template does not take these messages or options.
        """
        if not self._tokenizer.has_chat_template:
            raise InvalidRequest(f"messages: {self._absent}")
        reserved = sorted(RESERVED & given.keys())
        if reserved:
            raise InvalidRequest(f"chat_template_kwargs.{reserved[0]}: cannot be set by a request; leave it out")
        options = self._options(given, effort)
        try:
            text = self._roles.render(lambda told: self._rendered(told, options), messages)
        except InvalidRequest:
            raise
        except Exception as error:  # a template is a program that came with the model and fails in ways of its own
            raise InvalidRequest(f"messages: the model's chat template failed: {first_line(error)}") from error
        _require_calls(messages, text)
        return text

    def _options(self, given: Mapping[str, Any], effort: str | None) -> dict[str, Any]:
        """What the template is given, under the names that it has for it."""
        options = dict(given)
        if effort is not None:
            if not self._variables & {"reasoning_effort", *_THINKING}:
                raise InvalidRequest(
                    f"reasoning_effort={effort!r}: the model's chat template knows no such thing; leave it out"
                )
            if "reasoning_effort" in self._variables:
                options.setdefault("reasoning_effort", effort)
            if effort == "none" or "reasoning_effort" not in self._variables:
                options.setdefault(_THINKING[0], effort != "none")
        if _THINKING[0] in options and _THINKING[0] not in self._variables and _THINKING[1] in self._variables:
            options.setdefault(_THINKING[1], options[_THINKING[0]])  # DeepSeek's name for it
        return options

    def _rendered(self, messages: list[dict[str, Any]], options: Mapping[str, Any]) -> str:
        tokenizer = self._tokenizer
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **options))


def _variables(source: str) -> frozenset[str]:
    """The names that a template reads and does not set; none where it cannot be parsed, which its first use will say."""
    try:
        environment = ImmutableSandboxedEnvironment(extensions=[loopcontrols])
        # Not jinja's: transformers' own block around what an assistant said.
        parsed = environment.parse(re.sub(r"{%-?\s*(?:end)?generation\s*-?%}", "", source))
        return frozenset(find_undeclared_variables(parsed))
    except TemplateError:
        return frozenset()


def _require_calls(messages: list[dict[str, Any]], text: str) -> None:
    """Refuse a conversation whose tool calls the template left out: many know none, and pass over them without a word."""
    for message in messages:
        for call in message.get("tool_calls") or ():
            if call["function"]["name"] not in text:
                raise InvalidRequest(
                    "messages: the model's chat template leaves out tool_calls; send what was called as content"
                )


def joined_parts(message: Mapping[str, Any]) -> dict[str, Any]:
    """The message with content parts joined to text, the only kind that these models take."""
    content = message.get("content")
    if not isinstance(content, list):
        return dict(message)
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text":
            kind = part.get("type") if isinstance(part, dict) else part
            raise InvalidRequest(f"messages: content of type {kind!r} is not supported; send text")
    return {**message, "content": "".join(str(part.get("text", "")) for part in content)}
