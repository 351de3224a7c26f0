"""Reads environment variables with types. The errors name the variable, the value and the expected values."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

TRUE = frozenset({"1", "true", "yes", "on"})
FALSE = frozenset({"0", "false", "no", "off"})


class SettingError(ValueError):
    """A setting has a value that cannot be used; the message names the setting, the value and the remedy."""


class Environment:
    """Reads typed values out of a mapping of strings, such as ``os.environ`` or a parsed file.

    Args:
        values: the variables; the reader never changes them.
        source: the name, in errors, of the place that a value came from.
    """

    def __init__(self, values: Mapping[str, str], source: str = "environment") -> None:
        self._values = values
        self.source = source

    def has(self, name: str) -> bool:
        """Whether the variable is set to something other than the empty string."""
        return bool(self._values.get(name))

    def text(self, name: str) -> str:
        """The value without surrounding white space."""
        return self._values[name].strip()

    def flag(self, name: str) -> bool:
        """A boolean written as 1/0, true/false, yes/no or on/off."""
        value = self.text(name).lower()
        if value in TRUE:
            return True
        if value in FALSE:
            return False
        raise self._error(name, "one of 1, true, yes, on, 0, false, no, off")

    def integer(self, name: str) -> int:
        """A whole number; underscores are allowed as in Python."""
        try:
            return int(self.text(name))
        except ValueError:
            raise self._error(name, "a whole number") from None

    def number(self, name: str) -> float:
        """A finite number."""
        try:
            value = float(self.text(name))
        except ValueError:
            raise self._error(name, "a number") from None
        if not isfinite(value):
            raise self._error(name, "a finite number")
        return value

    def words(self, name: str) -> tuple[str, ...]:
        """A list separated by commas; empty items are dropped."""
        return tuple(word.strip() for word in self.text(name).split(",") if word.strip())

    def _error(self, name: str, expected: str) -> SettingError:
        return SettingError(f"{name}={self._values[name]!r} ({self.source}): expected {expected}")
