"""``propertyNames``, which llguidance does not know, as properties and patterns of properties, which it does."""

from __future__ import annotations

from typing import Any

from tasks.engine.constraint.parts import SHARED
from tasks.engine.constraint.text_formats import OF_NAMES

#: Keywords that ask for nothing of a name.
_SILENT = {"type", "title", "description"}


def without_names(part: dict[str, Any], root: dict[str, Any]) -> None:
    """Have a schema say by other keywords, in place, what it says of names, where that is the same.

    Args:
        part: the schema.
        root: the whole, which references lead into.
    """
    if "propertyNames" not in part:
        return
    asked = _resolved(part["propertyNames"], root)
    others = part.get("additionalProperties", True)
    if asked is True or (isinstance(asked, dict) and asked.keys() <= _SILENT and _may_be_text(asked)):
        del part["propertyNames"]
    elif part.get("properties") or "patternProperties" in part:
        return  # what is said of these names, too, would have to hold for both
    elif (names := _listed(asked)) is not None:
        part["properties"] = dict.fromkeys(names, others)
    elif (pattern := _pattern(asked)) is not None:
        part["patternProperties"] = {pattern: others}
    else:
        return
    if part.pop("propertyNames", None) is not None:
        part["additionalProperties"] = False


def _resolved(asked: Any, root: dict[str, Any]) -> Any:
    """What is asked of names; pydantic refers to an enumeration."""
    if not isinstance(asked, dict) or asked.keys() != {"$ref"} or not isinstance(asked["$ref"], str):
        return asked
    kind, _, name = asked["$ref"].removeprefix("#/").partition("/")
    shared = root.get(kind) if kind in SHARED else None
    return shared.get(name) if isinstance(shared, dict) else None


def _may_be_text(asked: dict[str, Any]) -> bool:
    kinds = asked.get("type", "string")
    return "string" in (kinds if isinstance(kinds, list) else [kinds])


def _listed(asked: Any) -> list[str] | None:
    """The names that there may be, where these are a list."""
    if not isinstance(asked, dict) or not asked.keys() <= {"enum", "const", *_SILENT}:
        return None
    names = asked.get("enum", [asked.get("const")])
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _pattern(asked: Any) -> str | None:
    """The expression that says the same of names, where one does."""
    if not isinstance(asked, dict) or not _may_be_text(asked):
        return None
    said = {name: value for name, value in asked.items() if name not in _SILENT}
    if said.keys() == {"pattern"}:
        return str(said["pattern"])
    if said.keys() == {"format"}:
        return OF_NAMES.get(str(said["format"]))
    if said.keys() <= {"minLength", "maxLength"} and all(type(value) is int for value in said.values()):
        return rf"^(.|\n){{{said.get('minLength', 0)},{said.get('maxLength', '')}}}$"
    return None
