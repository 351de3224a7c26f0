"""``format`` and ``pattern`` of texts as llguidance has to be told them."""

from __future__ import annotations

from typing import Any

from tasks.engine.constraint.parts import require

#: JSON Schema's own formats. Any other is a word of the schema's author.
# fmt: off
_DEFINED = (
    "date", "date-time", "duration", "email", "hostname", "idn-email", "idn-hostname", "ipv4", "ipv6", "iri", "iri-reference",
    "json-pointer", "regex", "relative-json-pointer", "time", "uri", "uri-reference", "uri-template", "uuid",
)
# fmt: on
#: How a date begins that is none of the 29th of February, or of a leap year. There is no year 0.
_YEAR = "([1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
_LEAP = "([0-9]{2}(0[48]|[2468][048]|[13579][26])|([2468][048]|0[48]|[13579][26])00)"
_DATE = f"^({_YEAR}-(0[13-9]|1[0-2])|{_YEAR}-02-([01]|2[0-8])|{_LEAP}-02-29)"
#: How a time ends: leap seconds are known in hindsight alone, and Python has microseconds.
_TIME = r":[0-5][0-9](\.[0-9]{1,6})?([zZ]|[+-][0-9:]{5})$"
#: Numbers of which Python's durations can be made.
_DURATION = "^P(T?[0-9]{1,6}[YMWDHS])+$"
_KEPT_TO = {"date": (_DATE,), "date-time": (_DATE, _TIME), "duration": (_DURATION,), "time": (_TIME,)}
_HEX = "[0-9a-fA-F]"
_BASE64 = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
#: Formats that pydantic and OpenAPI have, and llguidance not.
_PATTERNS = {
    f"uuid{number}": f"^{_HEX}{{8}}-{_HEX}{{4}}-{number}{_HEX}{{3}}-[89abAB]{_HEX}{{3}}-{_HEX}{{12}}$"
    for number in (1, 3, 4, 5, 6, 7, 8)
} | {
    "base64": _BASE64,
    "byte": _BASE64,
    "base64url": "^([A-Za-z0-9_-]{4})*([A-Za-z0-9_-]{2}==|[A-Za-z0-9_-]{3}=)?$",
}
#: Formats of the names of properties: maps by day and by id are what people have.
OF_NAMES = {
    "date": rf"^({_YEAR}-(0[13-9]|1[0-2])-(0[1-9]|[12][0-9])|{_YEAR}-(0[13-9]|1[0-2])-30|{_YEAR}-(0[13578]|1[02])-31"
    rf"|{_YEAR}-02-(0[1-9]|1[0-9]|2[0-8])|{_LEAP}-02-29)$",
    "uuid": f"^{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}$",
}
#: Formats of any text: OpenAPI and pydantic say by them what it is for.
_ANY_TEXT = ("binary", "password", "path", "file-path", "directory-path")
_EMAIL_NAME, _HOST = "[A-Za-z0-9_'+-]", "[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_TIME_OF_DURATION = r"T(\d+H(\d+M)?(\d+([.,]\d+)?S)?|\d+M(\d+([.,]\d+)?S)?|\d+([.,]\d+)?S)"
#: Zod's expressions that look around, and others for the same texts; for hosts, those of four labels at most.
_WITHOUT_LOOKING = {
    r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$": (
        rf"^({_EMAIL_NAME}+\.)*{_EMAIL_NAME}*[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9-]*\.)+[A-Za-z]{{2,}}$"
    ),
    r"^P(?:(\d+W)|(?!.*W)(?=\d|T\d)(\d+Y)?(\d+M)?(\d+D)?(T(?=\d)(\d+H)?(\d+M)?(\d+([.,]\d+)?S)?)?)$": (
        rf"^P(\d+W|(\d+Y(\d+M)?(\d+D)?|\d+M(\d+D)?|\d+D)({_TIME_OF_DURATION})?|{_TIME_OF_DURATION})$"
    ),
    (
        r"^(?=.{1,253}\.?$)[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
        r"(?:\.[a-zA-Z0-9](?:[-0-9a-zA-Z]{0,61}[0-9a-zA-Z])?)*\.?$"
    ): rf"^{_HOST}(\.{_HOST}){{0,3}}$",
}


def hold_to_format(part: dict[str, Any]) -> None:
    """Change a schema, in place, so that its format and its expression can be enforced.

    A format that JSON Schema does not define says nothing beside an expression, as Zod writes it: the expression says what the
    text is.
    """
    pattern, form = part.get("pattern"), part.get("format")
    if isinstance(pattern, str):
        part["pattern"] = _WITHOUT_LOOKING.get(pattern, pattern)
    if not isinstance(form, str):
        return
    if form in _PATTERNS:
        require(part, {"pattern": _PATTERNS[form]})
    for kept_to in _KEPT_TO.get(form, ()):
        require(part, {"pattern": kept_to})
    if form in _PATTERNS or form in _ANY_TEXT or (isinstance(pattern, str) and form not in _DEFINED):
        del part["format"]
