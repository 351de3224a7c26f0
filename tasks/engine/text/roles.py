"""Instructions that reach the model: ``system`` and ``developer`` messages, whatever roles its chat template knows.

Templates know different roles. Some raise an error at one that they do not know, some leave the message out without a
word, and some write any role down although the model has never seen it. So a conversation with instructions is tried in
the ways below, with short words in the place of its texts, and the first way in which every instruction comes out is
taken. How a conversation is written down depends on its roles, so what was found out is kept by roles.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

import jinja2

from tasks.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Message: TypeAlias = dict[str, Any]
Conversation: TypeAlias = list[Message]

SYSTEM, DEVELOPER, USER = "system", "developer", "user"
INSTRUCTIONS = (SYSTEM, DEVELOPER)
#: As a role, and not as a word of the template's own text.
_NAMES_DEVELOPER = re.compile(rf"""["']{DEVELOPER}["']""").search
#: How many shapes of conversations are remembered.
MOST_SHAPES = 1024


def _as_it_is(messages: Conversation) -> Conversation:
    return messages


def _all_system(messages: Conversation) -> Conversation:
    return [{**message, "role": SYSTEM} if message["role"] in INSTRUCTIONS else message for message in messages]


def _system_first(messages: Conversation) -> Conversation:
    """All instructions as one system message at the beginning."""
    text = _instructions(messages)
    return [
        {"role": SYSTEM, "content": text},
        *(message for message in messages if message["role"] not in INSTRUCTIONS),
    ]


def _in_first_user(messages: Conversation) -> Conversation:
    """All instructions at the beginning of the first message of the user."""
    text, rest = _instructions(messages), [message for message in messages if message["role"] not in INSTRUCTIONS]
    for at, message in enumerate(rest):
        if message["role"] == USER and isinstance(message.get("content"), str):
            return [*rest[:at], {**message, "content": f"{text}\n\n{message['content']}"}, *rest[at + 1 :]]
    return messages


def _instructions(messages: Conversation) -> str:
    return "\n\n".join(str(message.get("content") or "") for message in messages if message["role"] in INSTRUCTIONS)


WAYS = (_as_it_is, _all_system, _system_first, _in_first_user)


@dataclass(slots=True)
class Roles:
    """Knows how a model's template has to be given instructions.

    Args:
        source: the template's text; empty where the model's template is a program.
    """

    source: str
    _ways: dict[tuple[str, ...], int] = field(default_factory=dict)

    def render(self, template: Callable[[Conversation], str], messages: Conversation) -> str:
        """The conversation as text.

        Args:
            template: renders a conversation.
            messages: the conversation.

        Raises:
            InvalidRequest: the template refuses it, or leaves an instruction out.
        """
        if not any(message["role"] in INSTRUCTIONS for message in messages):
            return _rendered(template, messages)
        shape = tuple(message["role"] for message in messages)
        if shape not in self._ways:
            if len(self._ways) >= MOST_SHAPES:
                self._ways.clear()
            self._ways[shape] = self._way(template, messages)
        return _rendered(template, WAYS[self._ways[shape]](messages))

    def _way(self, template: Callable[[Conversation], str], messages: Conversation) -> int:
        """The first way in which no instruction is lost."""
        words, marked = _marked(messages)
        refusal: Exception | None = None
        for number in self._candidates(messages):
            try:
                text = template(WAYS[number](marked))
            except Exception as error:  # noqa: BLE001 - templates fail in ways of their own; another way may not
                # The last refusal says what is wrong beside the instructions, which each way puts elsewhere.
                if isinstance(error, jinja2.TemplateError) or not isinstance(refusal, jinja2.TemplateError):
                    refusal = error
                continue
            if all(word in text.casefold() for word in words):
                return number
        if isinstance(refusal, jinja2.TemplateError):
            raise _refused(refusal, messages) from refusal
        if refusal is not None:
            raise refusal
        lost = next(message["role"] for message in messages if message["role"] in INSTRUCTIONS)
        raise InvalidRequest(
            f"messages: the model's chat template leaves out messages of the role {lost!r}; say it in a message of the user"
        )

    def _candidates(self, messages: Conversation) -> Iterator[int]:
        """The ways to try. A template that does not name ``developer`` would write it down for a model that never saw it."""
        foreign = self.source and not _NAMES_DEVELOPER(self.source)
        told = any(message["role"] == DEVELOPER for message in messages)
        yield from range(1 if foreign and told else 0, len(WAYS))


def _marked(messages: Conversation) -> tuple[list[str], Conversation]:
    """The conversation with a word of its own for each text, and the words of its instructions."""
    marked = [
        {**message, "content": f"text{at}of{len(messages)}"} if isinstance(message.get("content"), str) else message
        for at, message in enumerate(messages)
    ]
    told = (message.get("content") for message in marked if message["role"] in INSTRUCTIONS)
    return [content for content in told if isinstance(content, str)], marked


def _rendered(template: Callable[[Conversation], str], messages: Conversation) -> str:
    try:
        return template(messages)
    except jinja2.TemplateError as error:
        raise _refused(error, messages) from error


def _refused(error: jinja2.TemplateError, messages: Conversation) -> InvalidRequest:
    """Explain the template's error, and which part of the conversation it may mean."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return InvalidRequest(f"messages: the model's chat template refuses them: {lines[0][:300]}{_hint(messages)}")


def _hint(messages: Conversation) -> str:
    """The first place where the roles of user and assistant do not alternate, which many templates insist on."""
    told: Sequence[tuple[int, str]] = [
        (at, message["role"]) for at, message in enumerate(messages) if message["role"] not in INSTRUCTIONS
    ]
    if told and told[0][1] != USER:
        return f" (messages[{told[0][0]}] is the first, and from {told[0][1]!r}: begin with one from 'user')"
    for (first, role), (second, following) in pairwise(told):
        if role == following:
            return f" (messages[{first}] and messages[{second}] are both from {role!r}: join them into one)"
    return ""
