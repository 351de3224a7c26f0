"""Constraints as grammars in llguidance's notation: JSON with Lark grammars and JSON Schemas in it, which name each other."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from llguidance import regex_to_lark

from tasks.engine.constraint.equivalent import adjusted
from tasks.engine.constraint.schema import as_object
from tasks.engine.constraint.whole_numbers import without_rounded
from tasks.messages.encoding import to_json

if TYPE_CHECKING:
    from tasks.engine.constraint.lead import Lead
    from tasks.messages.constraint import Constraint

#: White space inside JSON: without a bound a model may go on with it for ever, and some do.
WHITESPACE = r"[ \n\t]{1,8}"
#: Without \\u: an object that is open would take a property's name in escapes for another name.
ESCAPES = '"\\bfnrt'
#: White space before JSON: templates leave a line end to the model, and SentencePiece's tokens begin with a space.
BEFORE_JSON = r"/[ \n]{0,2}/"
#: The rules that a constraint becomes, and what may be answered in the place of calls.
ANSWER, OTHERWISE = "answer", "otherwise"


def source(
    constraint: Constraint | None, *, lead: Lead, trims: bool = False, otherwise: Constraint | None = None
) -> str:
    """The grammar of an answer.

    Args:
        constraint: what the request asks for; ``None`` for any text.
        lead: what may stand before it.
        trims: whether the decoder drops a space before the text: then one may stand before an answer of any kind.
        otherwise: what the constraint calls by that name.
    """
    is_json = constraint is not None and constraint.kind in ("json_object", "json_schema")
    answer = f"""{BEFORE_JSON if is_json else '" "?' if trims else ""} @{ANSWER}"""
    if lead.rules:
        answer = f"lead @{ANSWER}" if lead.required else f"lead @{ANSWER} | {answer}"
    if lead.calls is not None:
        answer = "call" if lead.calls.required else f"{answer} | call"
    grammars = [{"lark_grammar": f"start: {answer}\n{lead.rules}"}, {"name": ANSWER, **_answer(constraint)}]
    if otherwise is not None:
        grammars.append({"name": OTHERWISE, **_answer(otherwise)})
    return to_json({"grammars": grammars})


def _answer(constraint: Constraint | None) -> dict[str, Any]:
    if constraint is None:
        return {"lark_grammar": "start: /(?s:.*)/"}
    value = constraint.value
    if constraint.kind in ("lark", "calls"):
        return {"lark_grammar": value}
    if constraint.kind == "regex":
        return {"lark_grammar": f"start: /{regex_to_lark(value, 'dw')}/"}
    if constraint.kind == "choice":
        # One terminal, so that thousands of texts are one item of a step.
        texts = " | ".join(to_json(choice) for choice in json.loads(value))
        return {"lark_grammar": f"start: CHOICE\nCHOICE: {texts}"}
    schema = json.loads(value) if constraint.kind == "json_schema" else {"type": "object"}
    options = {"whitespace_pattern": WHITESPACE, "json_allowed_escapes": ESCAPES, "lenient": not constraint.strict}
    schema = adjusted(schema) if constraint.strict else without_rounded(adjusted(schema))
    return {"json_schema": {**as_object(schema), "x-guidance": options}}
