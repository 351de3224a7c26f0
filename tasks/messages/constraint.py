"""The constraint on an answer, as a request carries it to the engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

ConstraintKind: TypeAlias = Literal["json_object", "json_schema", "regex", "choice", "lark", "calls"]


@dataclass(slots=True, frozen=True, kw_only=True)
class Constraint:
    """A language that every answer is in; the engine masks all tokens that lead out of it.

    ``value`` is text, so that equal constraints are equal keys: a JSON Schema or a list of texts as JSON (``json_schema``,
    ``choice``), a regular expression (``regex``), a grammar with the rule ``start`` (``lark``, and ``calls``, which the engine
    writes for a request's tools), and nothing (``json_object``).
    ``strict`` refuses a constraint that cannot be enforced; without it such parts are left out, and the answer has a warning.
    """

    kind: ConstraintKind
    value: str = ""
    strict: bool = True
