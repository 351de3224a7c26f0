"""Compiles a request's constraint to a grammar, on a thread of the intake."""

from __future__ import annotations

import json
from functools import cached_property, lru_cache, partial
from itertools import islice
from typing import TYPE_CHECKING

from llguidance import LLMatcher

from tasks.engine.constraint.depth import DEEP_RULES, excess, has_deep_rules
from tasks.engine.constraint.endless import ENDLESS, endless
from tasks.engine.constraint.grammar import LIMITS, Grammar, fault_of
from tasks.engine.constraint.lead import Lead
from tasks.engine.constraint.schema import as_object, faults
from tasks.engine.constraint.source import source
from tasks.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llguidance import LLParserLimits

    from tasks.engine.constraint.tokens import Tokens
    from tasks.messages.constraint import Constraint, ConstraintKind

#: The field of a request that a constraint comes from.
FIELDS: dict[ConstraintKind, str] = {
    "json_object": "response_format",
    "json_schema": "response_format",
    "regex": "regex",
    "choice": "choice",
    "lark": "grammar",
    "calls": "tools",
}
#: What to do about one that does not compile.
REMEDIES: dict[ConstraintKind, str] = {
    "json_object": "ask for another format",
    "json_schema": "make the schema smaller, or ask for its parts one by one",
    "regex": "write it as Rust's crate regex reads it, without look-around, word boundaries and back-references; the whole "
    "answer has to match, so it needs no anchors",
    "choice": "give fewer or shorter texts",
    "calls": "send fewer functions or smaller schemas, or leave strict out",
    "lark": "write it in llguidance's variant of Lark, with a rule start",
}
NO_LEAD = Lead()
#: The grammars that are kept, the last used ones: a task's requests have one schema, a fleet's users a few.
MOST_GRAMMARS = 64


class Compiler:
    """Compiles the constraints of one model's requests. Any thread may call it.

    Args:
        make_tokens: makes the vocabulary, at the first constraint: it takes half a second, which others need not wait for.
        limits: what compiling and one step may cost.
    """

    def __init__(self, make_tokens: Callable[[], Tokens], *, limits: LLParserLimits = LIMITS) -> None:
        self._make_tokens = make_tokens
        self._limits = limits
        self._compiled = lru_cache(MOST_GRAMMARS)(self._compile)

    @cached_property
    def tokens(self) -> Tokens:
        """The model's vocabulary.

        Raises:
            InvalidRequest: it is of a kind that no grammar can be kept to.
        """
        return self._make_tokens()

    def compile(
        self, constraint: Constraint | None, lead: Lead = NO_LEAD, otherwise: Constraint | None = None
    ) -> Grammar:
        """The grammar of an answer; one that is known is the same object.

        Args:
            constraint: what the answer has to be; ``None`` for any text.
            lead: what may stand before it.
            otherwise: what it may be instead of calls of functions, where ``constraint`` are these.

        Raises:
            InvalidRequest: it cannot be enforced, or no answer satisfies it.
        """
        grammar = self._compiled(constraint, lead, otherwise)
        grammar.renew()
        return grammar

    def _compile(self, constraint: Constraint | None, lead: Lead, otherwise: Constraint | None) -> Grammar:
        found = [*_left_out(constraint), *_left_out(otherwise)]
        text = source(constraint, lead=lead, trims=self.tokens.trims, otherwise=otherwise)
        calls = constraint is not None and constraint.kind == "calls" and constraint.strict
        sound = lead.calls.sound if lead.calls is not None else calls
        grammar = Grammar(partial(self._matcher, text), tuple(found), sound_calls=sound)
        # The first mask is the slowest. What it brings into the lexer's memory is there for the step, and what it costs is known.
        tried = grammar.root.deep_copy()
        tried.compute_bitmask()
        _go_on(tried)
        if tried.is_error():
            raise InvalidRequest(_refusal(constraint, tried, calls=lead.calls is not None))
        if constraint is not None and constraint.kind in ("regex", "lark"):
            self._require_text(constraint, grammar.root.deep_copy(), text)
        return grammar

    def _require_text(self, constraint: Constraint, state: LLMatcher, text: str) -> None:
        """Refuse what only the empty text matches: at its beginning, nothing but the end may follow.

        Args:
            constraint: what the request asks for.
            state: the beginning of its grammar.
            text: the source of that, which may lead to the constraint by other ways too.
        """
        alone = source(constraint, lead=NO_LEAD)
        state = state if alone == text else self._matcher(alone)
        end = 1 << self.tokens.llguidance.eos_token
        if int.from_bytes(state.compute_bitmask(), "little") == end:
            raise InvalidRequest(
                f"{FIELDS[constraint.kind]}={constraint.value!r:.100}: only the empty text matches it; give one that matches "
                "an answer, or leave it out"
            )

    def _matcher(self, text: str) -> LLMatcher:
        return LLMatcher(self.tokens.llguidance, text, log_level=0, limits=self._limits)


def _go_on(state: LLMatcher) -> None:
    """Take the text without a choice that a grammar begins with: where that never ends, the next one is an error."""
    if forced := state.compute_ff_tokens():
        state.consume_tokens(forced)
        state.compute_ff_tokens()


def _refusal(constraint: Constraint | None, tried: LLMatcher, *, calls: bool) -> str:
    """Say what is wrong with a constraint that does not compile: its field, its value, and what to do."""
    if calls:
        return f"{FIELDS['calls']}: {fault_of(tried, places=False)}; {REMEDIES['calls']}"
    if constraint is None:
        return f"thinking_budget: {fault_of(tried)}; leave it out"
    # A schema is long, and its faults have places.
    value = f"={constraint.value!r:.100}" if constraint.kind in ("regex", "lark") else ""
    about = fault_of(tried, places=constraint.kind == "lark")
    return f"{FIELDS[constraint.kind]}{value}: {about}; {REMEDIES[constraint.kind]}"


def _left_out(constraint: Constraint | None) -> list[str]:
    """List the parts of a constraint that are not enforced.

    Raises:
        InvalidRequest: there is something, and it is strict.
    """
    strict = constraint is None or constraint.strict
    found = list(islice(_faults(constraint), 1 if strict else None))
    if strict and found:
        raise InvalidRequest(f"response_format: {found[0]}")
    return found


def _faults(constraint: Constraint | None) -> Iterator[str]:
    if constraint is not None and constraint.kind == "lark" and has_deep_rules(constraint.value):
        raise InvalidRequest(f"grammar: {DEEP_RULES}")
    if constraint is None or constraint.kind != "json_schema":
        return
    schema = as_object(json.loads(constraint.value))
    if found := excess(schema):
        raise InvalidRequest(f"response_format: {found}")
    yield from faults(schema, strict=constraint.strict)
    if pointer := endless(schema):
        raise InvalidRequest(f"response_format: {pointer}: {ENDLESS}")
