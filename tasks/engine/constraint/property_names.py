"""``propertyNames``, which llguidance does not know, as properties and patterns of properties, which it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.engine.constraint.text_formats import OF_NAMES

if TYPE_CHECKING:
    from tasks.engine.constraint.references import References

#: Keywords that ask for nothing of a name.
_SILENT = {"type", "title", "description"}


def without_names(part: dict[str, Any], references: References) -> None:
    """Have a schema say by other keywords, in place, what it says of names, where that is the same.

    Args:
        part: the schema.
        references: of the whole.
    """
    if "propertyNames" not in part:
        return
    names_schema = part["propertyNames"]
    if isinstance(names_schema, dict) and names_schema.keys() == {"$ref"}:  # as pydantic refers to an enumeration
        names_schema = references.target(names_schema)
    others = part.get("additionalProperties", True)
    if names_schema is True or (
        isinstance(names_schema, dict) and names_schema.keys() <= _SILENT and _may_be_text(names_schema)
    ):
        del part["propertyNames"]
    elif part.get("properties") or "patternProperties" in part:
        return  # what the schema says of these names, too, would have to hold for both
    elif (names := _listed(names_schema)) is not None:
        part["properties"] = dict.fromkeys(names, others)
    elif (pattern := _pattern(names_schema)) is not None:
        part["patternProperties"] = {pattern: others}
    else:
        return
    if part.pop("propertyNames", None) is not None:
        part["additionalProperties"] = False


def _may_be_text(names_schema: dict[str, Any]) -> bool:
    kinds = names_schema.get("type", "string")
    return "string" in (kinds if isinstance(kinds, list) else [kinds])


def _listed(names_schema: Any) -> list[str] | None:
    """The names that there may be, where these are a list."""
    if not isinstance(names_schema, dict) or not names_schema.keys() <= {"enum", "const", *_SILENT}:
        return None
    names = names_schema.get("enum", [names_schema.get("const")])
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _pattern(names_schema: Any) -> str | None:
    """The expression that says the same of names, where one does."""
    if not isinstance(names_schema, dict) or not _may_be_text(names_schema):
        return None
    keywords = {name: value for name, value in names_schema.items() if name not in _SILENT}
    if keywords.keys() == {"pattern"}:
        return str(keywords["pattern"])
    if keywords.keys() == {"format"}:
        return OF_NAMES.get(str(keywords["format"]))
    if keywords.keys() <= {"minLength", "maxLength"} and all(type(value) is int for value in keywords.values()):
        return rf"^(.|\n){{{keywords.get('minLength', 0)},{keywords.get('maxLength', '')}}}$"
    return None
