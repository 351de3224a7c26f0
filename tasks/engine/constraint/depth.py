"""Bounds the depth of grammars: llguidance follows schemas and rules by recursion, without a bound.

An engine whose stack is exhausted dies, with all requests that it runs; a grammar that compiles for hours keeps others waiting.
"""

from __future__ import annotations

import json
import re
from typing import Any

from tasks.engine.constraint.parts import parts
from tasks.engine.constraint.references import References

#: Objects and lists in each other, across references. llguidance takes three times as many on a thread's stack.
MOST_LEVELS = 1_000
#: Rules of a Lark grammar, and groups in each other in each of them, all together: it takes twice as many.
MOST_RULES = 1_200
#: Expressions that one text has to match, all of them: what llguidance does with these doubles with each.
MOST_PATTERNS = 8
DEEP_SCHEMA = f"its references lead more than {MOST_LEVELS} levels deep; use fewer definitions that need each other"
MANY_PATTERNS = f"pattern: a text has to match more than {MOST_PATTERNS} expressions; put them into one"
DEEP_RULES = f"it has more than {MOST_RULES} rules and groups in each other; write it with fewer"
_JSON = "%json"
_DEFINITION = re.compile(r"^\s*[\w.]+\s*(?:\[[^\n]*\])?\s*:", re.MULTILINE)
#: What has no rules in it: texts, expressions and comments.
_LITERAL = re.compile(r'"(?:[^"\\\n]|\\.)*"|/(?:[^/\\\n]|\\.)+/|//[^\n]*')


def excess(schema: Any) -> str:
    """Say which bound a JSON Schema exceeds, with its JSON pointer; empty where it exceeds none."""
    references = References(schema)
    if is_deep(references):
        return f"#: {DEEP_SCHEMA}"
    found = (pointer for pointer, part in parts(schema, "") if _has_many_patterns(part, references))
    pointer = next(found, None)
    return "" if pointer is None else f"{pointer or '#'}: {MANY_PATTERNS}"


def _has_many_patterns(part: dict[str, Any], references: References) -> bool:
    """Whether a text that is valid by this schema has to match too many expressions."""
    count, seen, stack = 0, set[int](), [part]
    while stack and count <= MOST_PATTERNS:
        here = stack.pop()
        if not isinstance(here, dict) or id(here) in seen:
            continue
        seen.add(id(here))
        count += "pattern" in here
        stack += here["allOf"] if isinstance(here.get("allOf"), list) else []
        stack += references.targets(here)
    return count > MOST_PATTERNS


def is_deep(references: References, *, most: int = MOST_LEVELS) -> bool:
    """Whether the JSON Schema of these references leads deeper than that. What is referred to again is not followed again."""
    seen: set[int] = set()
    stack = [(references.root, 0)]
    while stack:
        value, level = stack.pop()
        if id(value) in seen:
            continue
        if level > most:
            return True
        seen.add(id(value))
        inner = [*value.values(), *references.targets(value)] if isinstance(value, dict) else value
        stack += [(part, level + 1) for part in reversed(inner) if isinstance(part, dict | list)]
    return False


def has_deep_rules(text: str, *, most: int = MOST_RULES) -> bool:
    """Whether a Lark grammar has more rules and groups than that, or a JSON Schema in it has too much."""
    rules, *behind = text.split(_JSON)
    for part in behind:
        try:
            schema, end = json.JSONDecoder().raw_decode(part.lstrip())
        except (ValueError, RecursionError):  # it is refused for that
            continue
        if isinstance(schema, dict) and excess(schema):
            return True
        rules += part.lstrip()[end:]
    bare = _LITERAL.sub("", rules)
    count = 0
    for body in _DEFINITION.split(bare)[1:]:
        level = deepest = 0
        for character in body:
            level += (character in "([") - (character in ")]")
            deepest = max(deepest, level)
        count += 1 + deepest
    return count > most
