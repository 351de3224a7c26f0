"""The text before an answer: the model's thought, as a part of the grammar, and the headers of its messages.

Where calls of functions have headers of their own, these are alternatives to that of the answer.

A detector beside the grammar would see the end of a thought one token too late where the next step is launched already, and
would take JSON in a thought for the answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.engine.text.headers import HeaderMarks
from tasks.engine.text.thoughts import Delimiters
from tasks.errors import InvalidRequest
from tasks.messages.encoding import to_json

if TYPE_CHECKING:
    from tasks.engine.text.formats import Format

#: White space behind a thought, which belongs to its marker.
SPACE = r"/[ \n]{0,4}/"
_ANYTHING = "/(?s:.*)/"


@dataclass(slots=True, frozen=True)
class HeaderCalls:
    """Calls of functions as messages with headers: each one's name, and its arguments as the right side of a Lark rule.

    ``required`` says that the answer has to be one of them, and ``sound`` that what the rules allow needs no other check.
    """

    arguments: tuple[tuple[str, str], ...]
    required: bool
    sound: bool


@dataclass(slots=True, frozen=True)
class Lead:
    """The rule ``lead`` of a Lark grammar and those that it needs; empty where nothing may stand before the answer.

    ``required`` says that the answer cannot begin without it. ``calls`` says that there is a rule ``call``, which is an answer
    with all that stands before it, and ``required`` of these that there is no other.
    """

    rules: str = ""
    required: bool = False
    calls: HeaderCalls | None = None


def lead_of(form: Format, tail: str, budget_tokens: int | None, calls: HeaderCalls | None = None) -> Lead:
    """Return the text and tokens that may stand before an answer of this model.

    Args:
        form: how the model marks its thoughts.
        tail: how the prompt ends: a chat template may have opened the thought, or closed it.
        budget_tokens: the most tokens of the thought; ``None`` for as many as it takes.
        calls: what may be called, where calls have headers.

    Raises:
        InvalidRequest: there is a budget, and the model marks no thoughts.
    """
    for name, mark in form.names.items():
        tail = tail.replace(name, mark)
    markers = form.markers
    if isinstance(markers, Delimiters):
        return _Lead(form, budget_tokens).delimited(markers, tail)
    if isinstance(markers, HeaderMarks):
        return _Lead(form, budget_tokens).headed(markers, tail, calls)
    if budget_tokens is not None:
        raise InvalidRequest("thinking_budget: this model marks no thoughts, so none can be bounded; leave it out")
    return Lead()


class _Lead:
    def __init__(self, form: Format, budget_tokens: int | None) -> None:
        self._ids = {mark: token_id for token_id, mark in form.marks.items()}
        self._budget_tokens = budget_tokens
        self._bound = "" if budget_tokens is None else f"[max_tokens={budget_tokens}]"

    def delimited(self, markers: Delimiters, tail: str) -> Lead:
        """A thought between an opening and a closing marker."""
        behind = f"{SPACE} ({self._any(markers.silent)})?" if markers.silent else SPACE
        closing = f"{self._any(markers.closes)} {behind}"
        if markers.opened(tail):
            if self._budget_tokens == 0:
                return Lead(f"lead: {closing}", required=True)
            return Lead(f"lead: thought {behind}\n{self._thought(markers)}", required=True)
        if tail.rstrip().endswith(markers.closes) or self._budget_tokens == 0:
            return Lead()
        return Lead(f"lead: /[ \\n]{{0,2}}/ {self._any(markers.opens)} thought {behind}\n{self._thought(markers)}")

    def headed(self, marks: HeaderMarks, tail: str, calls: HeaderCalls | None = None) -> Lead:
        """A message to the model itself, and the header of the answer or of a call."""
        if marks.message in tail[tail.rfind(marks.start) :]:
            return Lead()
        start, message, end = (self._term(mark) for mark in (marks.start, marks.message, marks.ends[0]))
        form = f'(" "? {self._term(marks.others)} " "? "json")?' if marks.others else ""
        channel = self._term(marks.channel) if marks.channel else ""
        opening = f'{channel} "analysis" {message}' if channel else f'" to=self" {message}'
        answer = f'{channel} "final" {form} {message}' if channel else message
        rules = [f"lead: {answer}"]
        if self._budget_tokens != 0:
            thought = f'{opening} thought {end} {start} "assistant"'
            rules = [f"lead: ({thought})? {answer}", f"thought{self._bound}: {_ANYTHING}"]
        if not channel or calls is None:
            return Lead("\n".join(rules), required=True)
        preamble = f'{channel} "commentary" {message} words {end} {start} "assistant"'
        before = f"({preamble})?" if self._budget_tokens == 0 else f"({thought})? ({preamble})?"
        rules += [
            f"words: {_ANYTHING}",
            f"call: {before} ({' | '.join(f'call_{n}' for n in range(len(calls.arguments)))})",
        ]
        for number, (name, arguments) in enumerate(calls.arguments):
            to = to_json(f" to=functions.{name}")
            header = f'({channel} "commentary" {to} | {to} {channel} "commentary") {form} {message}'
            rules += [f"call_{number}: {header} arguments_{number}", f"arguments_{number}: {arguments}"]
        return Lead("\n".join(rules), required=True, calls=calls)

    def _thought(self, markers: Delimiters) -> str:
        """The rule of what is thought, with the marker that closes it."""
        if markers.tokens:
            return f"thought: anything {self._any(markers.closes)}\nanything{self._bound}: {_ANYTHING}"
        if self._budget_tokens is not None:
            raise InvalidRequest(
                "thinking_budget: this model's markers are text, which is cut into any tokens, so a thought cannot be bounded "
                "by tokens; use 0 for no thought, or leave it out"
            )
        closes = "|".join(re.escape(marker).replace("/", "\\/") for marker in markers.closes)
        return f"thought[lazy]: /(?s:.*)({closes})/"

    def _any(self, markers: tuple[str, ...]) -> str:
        return f"({' | '.join(map(self._term, markers))})"

    def _term(self, marker: str) -> str:
        """A marker, of tokens and of text, as terms of a Lark grammar."""
        terms: list[str] = []
        text = ""
        for character in marker:
            if character in self._ids:
                terms += [*([to_json(text)] if text else []), f"<[{self._ids[character]}]>"]
                text = ""
            else:
                text += character
        return " ".join([*terms, *([to_json(text)] if text else [])])
