"""A model's chat template: from the messages of a request to the text that the model reads."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tasks.engine.failure import first_line
from tasks.engine.text.history import render_calls
from tasks.engine.text.roles import Roles
from tasks.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlx_lm.tokenizer_utils import TokenizerWrapper

#: Arguments of ``apply_chat_template``, and of what it calls, that are ours, or that would replace the model's own template.
RESERVED = frozenset(
    {"add_generation_prompt", "chat_template", "continue_final_message", "conversation", "documents", "max_length"}
    | {"conversations", "messages", "self"}
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
#: MiniMax M3's, whose values are words.
_MODE, _MODES = "thinking_mode", {True: "enabled", False: "disabled"}
#: No template has it in its own text.
_WORD = "wordofnobody"
_NO_WORDS = (
    "the model's chat template leaves out all that they say: it is not a template of conversations; name another as "
    "chat_template in the model's catalogue entry, or send the text as prompt"
)
_NO_TOOLS = (
    "the model's chat template leaves them out: take a model that was trained to call functions, or describe them in a message "
    "and read the answer's text"
)


@dataclass(slots=True, frozen=True)
class Options:
    """The arguments of a template beside the messages: the request's own, ``reasoning_effort``, and tools."""

    given: Mapping[str, Any] = field(default_factory=dict)
    effort: str | None = None
    tools: list[dict[str, Any]] = field(default_factory=list)


class ChatTemplate:
    """The template of one model.

    Args:
        tokenizer: renders it.
        source: its text; empty where it is a program, or where there is none.
        absent: what to say where the model has none.
        tool_source: the text of the one for conversations with tools; empty where it is the same.
    """

    def __init__(self, tokenizer: TokenizerWrapper, source: str, absent: str, tool_source: str = "") -> None:
        self._tokenizer = tokenizer
        self._for_tools = _Other(tokenizer, tool_source, absent) if tool_source else None
        self._roles = Roles(source)
        self._source = source
        self._variables = _variables(source)
        self._absent = absent
        self._wanting_parts = frozenset(self._roles_wanting_parts()) if source else frozenset()

    def render(self, messages: list[dict[str, Any]], options: Options) -> str:
        """The conversation as one text, up to where the answer begins.

        Raises:
            InvalidRequest: the model has no template, or its template does not take these messages or options.
        """
        if options.tools and self._for_tools is not None:
            return self._for_tools.render(messages, options)
        if not self._exists:
            raise InvalidRequest(f"messages: {self._absent}")
        reserved = sorted(RESERVED & options.given.keys())
        if reserved:
            raise InvalidRequest(f"chat_template_kwargs.{reserved[0]}: cannot be set by a request; leave it out")
        named = self._named(options.given, options.effort)
        if options.tools:
            if self._source and "tools" not in self._variables:
                raise InvalidRequest(f"tools: {_NO_TOOLS}")
            named["tools"] = options.tools
        try:
            text = render_calls(
                lambda told: self._roles.render(lambda to: self._rendered(to, named), told), messages, self._source
            )
        except InvalidRequest:
            raise
        except Exception as error:  # a template is a program that came with the model and fails in ways of its own
            raise InvalidRequest(f"messages: the model's chat template failed: {first_line(error)}") from error
        if not all(tool["function"]["name"] in text for tool in options.tools):
            raise InvalidRequest(f"tools: {_NO_TOOLS}")
        if self._source and "messages" not in self._variables:
            raise InvalidRequest(f"messages: {_NO_WORDS}")
        return text

    @property
    def _exists(self) -> bool:
        return bool(self._tokenizer.has_chat_template)

    def _named(self, given: Mapping[str, Any], effort: str | None) -> dict[str, Any]:
        """Return the template's arguments, under the names that it has for them."""
        options = dict(given)
        if effort is not None:
            if not self._variables & {"reasoning_effort", *_THINKING, *self._mode}:
                raise InvalidRequest(
                    f"reasoning_effort={effort!r}: the model's chat template knows no such thing; leave it out"
                )
            if "reasoning_effort" in self._variables:
                options.setdefault("reasoning_effort", effort)
            if effort == "none" or "reasoning_effort" not in self._variables:
                options.setdefault(_THINKING[0], effort != "none")
        if _THINKING[0] in options and _THINKING[0] not in self._variables and _THINKING[1] in self._variables:
            options.setdefault(_THINKING[1], options[_THINKING[0]])  # DeepSeek's name for it
        if _THINKING[0] in options:
            options |= {name: _MODES[bool(options[_THINKING[0]])] for name in self._mode if name not in options}
        return options

    @property
    def _mode(self) -> tuple[str, ...]:
        """The name of the variable for whether to think, where its values are these words."""
        known = _MODE in self._variables and all(word in self._source for word in _MODES.values())
        return (_MODE,) if known else ()

    def _roles_wanting_parts(self) -> Iterator[str]:
        """Templates of models that also see may look for parts alone, and leave out a text without a word."""
        if self._shows([_said("user", _WORD)]) or not self._shows([_said("user", _part(_WORD))]):
            return
        yield "user"
        user = _said("user", _part("x"))
        # A role that this finds nothing out about is the user's like.
        for role, before in (("system", []), ("assistant", [user]), ("tool", [user])):
            if not self._shows([*before, _said(role, _WORD), user]):
                yield role

    def _shows(self, messages: list[dict[str, Any]]) -> bool:
        """Whether the word in one of these messages comes out: as text, and not as a list written down."""
        try:
            text = self._applied(messages, {}).casefold()
        except Exception:  # noqa: BLE001 - templates fail in ways of their own; with real messages it may not
            return False
        return _WORD in text and not re.search(f"[\"']{_WORD}", text)

    def _rendered(self, messages: list[dict[str, Any]], options: Mapping[str, Any]) -> str:
        if self._wanting_parts:
            messages = [
                {**message, "content": _part(message["content"])}
                if message["role"] in self._wanting_parts and isinstance(message.get("content"), str)
                else message
                for message in messages
            ]
        return self._applied(messages, options)

    def _applied(self, messages: list[dict[str, Any]], options: Mapping[str, Any]) -> str:
        tokenizer: Any = self._tokenizer
        # mlx-lm's wrapper has each template told whether to think: yes where it knows the model's markers, and no elsewhere.
        # A template's own default is its authors'; those that are programs of mlx-lm's have none.
        renderer = tokenizer if tokenizer._chat_template is not None else tokenizer._tokenizer
        return str(renderer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **options))


class _Other(ChatTemplate):
    """A template beside the tokenizer's own."""

    @property
    def _exists(self) -> bool:
        return True

    def _applied(self, messages: list[dict[str, Any]], options: Mapping[str, Any]) -> str:
        return super()._applied(messages, {**options, "chat_template": self._source})


def _said(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def _part(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]


def _variables(source: str) -> frozenset[str]:
    """The names that a template reads and does not set; none where it cannot be parsed, which its first use will say."""
    try:
        environment = ImmutableSandboxedEnvironment(extensions=[loopcontrols])
        # Not jinja's: transformers' own block around what an assistant said.
        parsed = environment.parse(re.sub(r"{%-?\s*(?:end)?generation\s*-?%}", "", source))
        return frozenset(find_undeclared_variables(parsed))
    except TemplateError:
        return frozenset()


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
