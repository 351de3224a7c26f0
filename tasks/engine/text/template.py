"""A model's chat template: from the messages of a request to the text that the model reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
        self._absent = absent

    def render(self, messages: list[dict[str, Any]], options: Mapping[str, Any]) -> str:
        """The conversation as one text, up to where the answer begins.

        Raises:
            InvalidRequest: the model has no template, or its template does not take these messages or options.
        """
        if not self._tokenizer.has_chat_template:
            raise InvalidRequest(f"messages: {self._absent}")
        reserved = sorted(RESERVED & options.keys())
        if reserved:
            raise InvalidRequest(f"chat_template_kwargs.{reserved[0]}: cannot be set by a request; leave it out")
        try:
            text = self._roles.render(lambda told: self._rendered(told, options), messages)
        except InvalidRequest:
            raise
        except Exception as error:  # a template is a program that came with the model and fails in ways of its own
            raise InvalidRequest(f"messages: the model's chat template failed: {first_line(error)}") from error
        _require_calls(messages, text)
        return text

    def _rendered(self, messages: list[dict[str, Any]], options: Mapping[str, Any]) -> str:
        tokenizer = self._tokenizer
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **options))


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
