"""A compiled grammar, and how far one answer has come in it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import llguidance
from llguidance import LLMatcher, LLParserLimits
from llguidance.numpy import fill_next_token_bitmask

from tasks.engine.constraint.successors import LONGEST, Successors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import numpy.typing as npt

#: Other versions may mask otherwise, so a request is resumed by the same one only.
ENGINE = f"llguidance-{llguidance.__version__}"
#: What compiling and one step may cost. llguidance's own bounds let an ambiguous grammar take 150 ms for a step.
LIMITS = LLParserLimits(
    max_items_in_row=1_500,
    step_max_items=5_000,
    step_lexer_fuel=350_000,  # an ARN by its pattern takes 300,000 with the largest vocabularies
    max_lexer_states=50_000,
    max_grammar_size=500_000,
    verbose_errors=False,  # they would have the answer's words in them
)


#: How llguidance names a place in a grammar: line and column.
_PLACE = re.compile(r"^(?:at )?(\d+)\((\d+)\): ")
#: Its own name for a grammar of which no text can be shown to be complete.
_ENDLESS = "NoExtensionBias"
#: How it says that it goes too far where it has no choice.
_FORCED = "; ff_tokens)"
#: How it says that an expression has an anchor or a word boundary in its middle.
_LOOKS_AROUND = re.compile(r"lookarounds not supported yet; (\w+) in regex")
#: How it says that one mask needs more than ``step_lexer_fuel``.
_TOO_COSTLY = "too many expressions constructed"
MOST_CHARACTERS = 300


def looks_around(error: str) -> str:
    """Name the part of an expression that llguidance does not know, by its error; empty where the error is another."""
    found = _LOOKS_AROUND.search(error)
    if found is None:
        return ""
    return "has a word boundary" if found[1].startswith("Word") else "has ^ or $ in its middle"


def fault_of(state: LLMatcher, *, places: bool = True) -> str:
    """Explain an llguidance matcher's error: its first line, since others show its inside, or what ails an expression.

    Args:
        state: the matcher.
        places: whether its places are those of a text that the request has.
    """
    first, *others = str(state.get_error()).strip().splitlines() or [""]
    place = _PLACE.match(first)
    where = f"line {place[1]}, column {place[2]}: " if place and places else ""
    reason = next((line.removeprefix("error: ") for line in others if line.startswith("error: ")), "")
    if reason and "regex parse error" in first:
        return f"{where}an expression cannot be read ({reason})" if where else f"cannot be read ({reason})"
    if found := looks_around(first):
        return f"{where}an expression {found}" if where else found
    if first == _ENDLESS:
        return "no text is ever complete: a rule needs itself before all else"
    if _FORCED in first:
        return "too ambiguous, or without a choice for thousands of characters or for ever"
    return f"{where}{first[place.end() if place else 0 :]:.{MOST_CHARACTERS}}"


class Grammar:
    """A grammar that compiled, shared by all requests that have it.

    llguidance gives all copies of a matcher one lexer, which remembers the states that it has been in. A mask that costs too
    much, or one state too many, ends that lexer, for every copy. Then the same text is compiled once more.

    ``engine`` is the program and version that reads it. Any thread may call it.

    Args:
        make: compiles it. It was tried before, so there is no error.
        warnings: what of the constraint is not enforced.
        sound_calls: whether each call of a function in such an answer is one of the request's, by its schema.
    """

    engine = ENGINE

    def __init__(
        self, make: Callable[[], LLMatcher], warnings: tuple[str, ...] = (), *, sound_calls: bool = False
    ) -> None:
        self._make = make
        #: A matcher that has taken no token, and whether its lexer has come to its end.
        self.root, self.spent = make(), False
        self.warnings = warnings
        self.sound_calls = sound_calls
        self.successors = Successors()

    def renew(self) -> None:
        """Compile it again, if its lexer has come to its end."""
        if self.spent:
            self.root, self.spent = self._make(), False

    @property
    def is_sound(self) -> bool:
        """Whether its lexer still works."""
        tried = self.root.deep_copy()
        tried.compute_bitmask()
        return not tried.is_error()

    def matcher(self, ids: Sequence[int] = ()) -> Matcher:
        """The state after these tokens of the answer, which earlier attempts may have generated."""
        matcher = Matcher(self, self.root, self.root.deep_copy(), [])
        for token_id in ids:
            matcher.take(token_id)
        return matcher


class Matcher:
    """One answer's state: llguidance's, and what it follows from."""

    __slots__ = ("_grammar", "_root", "_taken", "state")

    def __init__(self, grammar: Grammar, root: LLMatcher, state: LLMatcher, taken: list[int]) -> None:
        self._grammar = grammar
        self._root = root
        self._taken = taken
        self.state = state

    def take(self, token_id: int) -> None:
        """Go on by a token that was drawn. What the grammar does not allow is an error from then on."""
        self._taken.append(token_id)
        self.state.consume_token(token_id)
        if self.state.is_error():
            self._restore()

    def fill(self, masks: npt.NDArray[np.int32], row: int) -> None:
        """Write what may follow into a row of ``masks``: one bit for each token."""
        fill_next_token_bitmask(self.state, masks, row)
        if self.state.is_error() and self._restore():
            fill_next_token_bitmask(self.state, masks, row)
            self._grammar.spent = self.state.is_error()

    def after(self, token_id: int) -> Matcher:
        """Another one, gone on by this token."""
        matcher = Matcher(self._grammar, self._root, self.state.deep_copy(), list(self._taken))
        matcher.take(token_id)
        return matcher

    def note(self) -> None:
        """The last token was drawn, and is what may be expected of other answers."""
        self._grammar.successors.note(self._taken)

    def expected(self, most: int) -> list[int]:
        """The next tokens, at most so many: what followed in other answers, and text about which the grammar leaves no choice.

        Other tokens may say the same text; a model may prefer those. What it preferred before is known.
        """
        if self.error:
            return []
        found: list[int] = []
        state, latest = self.state, self._taken[-LONGEST:]
        while len(found) < most:
            usual = self._grammar.successors.expected([*latest, *found])
            tokens = state.compute_ff_tokens() if usual is None else [usual]
            tokens = tokens[: state.validate_tokens(tokens)][: most - len(found)]
            if not tokens:
                break
            found += tokens
            state = state.deep_copy()
            state.consume_tokens(tokens)
        return found

    def allowed(self, token_ids: list[int]) -> list[int]:
        """As many of these tokens, from the first on, as may follow."""
        return token_ids[: self.state.validate_tokens(token_ids)] if token_ids else []

    @property
    def error(self) -> str:
        """Why it cannot go on; empty while it can. Where it is not, all else here means nothing."""
        return fault_of(self.state) if self.state.is_error() else ""

    @property
    def complete(self) -> bool:
        """Whether nothing but an end token can follow."""
        return bool(self.state.is_stopped()) and not self.state.is_error()

    def _restore(self) -> bool:
        """Go on in another lexer, if it is the shared one that failed; whether that was possible.

        Nobody goes on whose own mask costs too much: it would in any lexer.
        """
        grammar = self._grammar
        if self._root is grammar.root:
            if not grammar.spent:
                if grammar.is_sound:
                    return False
                grammar.spent = True
                if _TOO_COSTLY in str(self.state.get_error()):
                    return False
            grammar.renew()
        self._root, self.state = grammar.root, grammar.root.deep_copy()
        return bool(self.state.consume_tokens(self._taken))
