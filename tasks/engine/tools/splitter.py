"""An answer's text and the calls in it, as the model writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.engine.text.piece import Piece, joined
from tasks.engine.tools.region import BrokenCall

if TYPE_CHECKING:
    from tasks.engine.tools.form import ToolForm
    from tasks.engine.tools.functions import Functions
    from tasks.engine.tools.region import Call, Region


class Splitter:
    """Takes the content of one answer, and gives text and calls.

    A call comes out when it is whole and was checked. What is none stays text, and has a warning. Where a grammar makes sure that
    every call is sound, its arguments come out as the model writes them. White space around a call belongs to it.

    Args:
        form: how the model writes calls.
        functions: the functions that it may call.
        sound: whether a grammar makes sure of the calls.
        either: whether the answer is calls or something else: then what begins without a marker has no call in it.
    """

    def __init__(self, form: ToolForm, functions: Functions, *, sound: bool = False, either: bool = False) -> None:
        self.form = form
        self._functions = functions
        self._sound = sound
        self._either = either
        self._is_something_else = False
        self._region: Region | None = None
        #: Calls of the current region that came out, and characters of the next one's arguments.
        self._taken = 0
        self._said: int | None = None
        #: Text that has to wait: white space, and what may become a marker.
        self._held = ""
        self._behind_call = False
        self.calls = 0
        self.warnings: list[str] = []

    @property
    def stopped(self) -> bool:
        """Whether the one call came that was asked for."""
        return self.calls > 0 and not self._functions.tools.parallel

    @property
    def _must_call(self) -> bool:
        """Whether there has to be a call. Where a grammar makes sure of it, what is no call is the beginning of a marker."""
        tools = self._functions.tools
        return tools.choice == "required" or tools.only is not None

    def push(self, text: str) -> list[Piece]:
        """Take content, and return the pieces that are certain by now."""
        pieces: list[Piece] = []
        left: str | None = text
        while left and not self.stopped:
            left = self._push_text(pieces, left) if self._region is None else self._push_call(pieces, left)
        return joined(pieces)

    def finish(self) -> list[Piece]:
        """Return the pieces that were held back."""
        pieces: list[Piece] = []
        if self.stopped:
            return pieces
        if self._region is not None:
            try:
                self._region.finish()
                self._take(pieces)
                self._say(pieces, self.form.shown(self._region.rest))
                self._region = None
            except BrokenCall as error:
                self._take(pieces)
                self._give_up(pieces, str(error))
        elif not (self._sound and self._must_call) and (not self._behind_call or self._held.strip()):
            self._say(pieces, self._held)
        self._held = ""
        if not self.calls and self._must_call:
            choice = self._functions.tools.only or self._functions.tools.choice
            self.warnings.append(f"tool_choice={choice!r}: the model called no function")
        return joined(pieces)

    def _push_text(self, pieces: list[Piece], text: str) -> str | None:
        """Take text outside of calls, and return the text behind a start marker."""
        text, self._held = self._held + text, ""
        if self._is_something_else:
            self._say(pieces, text)
            return None
        before, marker, after = self.form.parted(text)
        if self._either and not self.calls and not self.form.start.startswith(before.lstrip()):
            self._is_something_else = True
            return text
        if marker:
            words = before.rstrip()
            self._say(pieces, words)
            self._held = before[len(words) :]
            self._region, self._taken, self._said = self.form.region(self._functions), 0, None
            return after or None
        sure = text[: len(text) - self.form.pending_characters(text)].rstrip()
        self._held = text[len(sure) :]
        self._say(pieces, sure)
        return None

    def _push_call(self, pieces: list[Piece], text: str) -> str | None:
        """Take text of a region, and return the text behind the region."""
        region = self._region
        assert region is not None
        try:
            rest = region.push(text)
        except BrokenCall as error:
            self._take(pieces)
            self._give_up(pieces, str(error))
            return region.rest or None
        self._take(pieces)
        if self._sound and region.begun is not None and not self.stopped:
            self._go_on(pieces, region.begun)
        if rest is None:
            return None
        self._region = None
        return rest or None

    def _take(self, pieces: list[Piece]) -> None:
        """Give the calls of the region that are whole now."""
        assert self._region is not None
        for call in self._region.calls[self._taken :]:
            self._taken += 1
            if self.stopped:
                return
            problem = "" if self._said is not None else self._functions.problem(call)
            if problem:
                self.warnings.append(f"a call was left in the text: {problem}")
                self._say(pieces, self._held + self.form.shown(call.as_text()))
                self._held = ""
                continue
            self._go_on(pieces, call)
            self.calls, self._said, self._held, self._behind_call = self.calls + 1, None, "", True

    def _go_on(self, pieces: list[Piece], call: Call) -> None:
        """Emit the new part of a call's arguments, and its name if that is new."""
        name = call.name if self._said is None else ""
        arguments = self.form.unmarked(call.arguments[self._said or 0 :])
        pieces.append(Piece("tool_call", arguments, self.calls, name))
        self._said = len(call.arguments)

    def _give_up(self, pieces: list[Piece], why: str) -> None:
        """Make the rest of a region text."""
        assert self._region is not None
        self.warnings.append(f"a call was left in the text: {why}")
        if self._said is not None:  # a part of it has come out as a call, which the answer has as far as it goes
            self.calls += 1
        else:
            self._say(pieces, self._held + self.form.shown(self._region.unread))
        self._held, self._region, self._said = "", None, None

    def _say(self, pieces: list[Piece], text: str) -> None:
        """Give text, without white space right behind a call."""
        if self._behind_call:
            text = text.lstrip()
        if text:
            self._behind_call = False
            pieces.append(Piece("content", text.translate(self.form.silent)))
