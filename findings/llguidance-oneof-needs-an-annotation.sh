#!/usr/bin/env bash
# llguidance 1.9.1 (Linux, Python 3.11): a keyword that means nothing decides whether a oneOf of references compiles.
#
# Guess: two objects that a const tells apart are told apart wherever they stand, and an annotation beside oneOf changes nothing.
# Seen: as references they are refused, with an unknown keyword beside the oneOf they pass. Where one of them refers back to the
# oneOf (an expression in an expression, as pydantic's discriminated unions are), that keyword is what gets it refused.
#     in place: compiles
#     references: oneOf constraints are not supported. Enable 'coerce_one_of' option to approximate oneOf with anyOf
#     references, "note" beside them: compiles
#     an expression in an expression, "note" beside them: circular references with sibling keys are not supported
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q llguidance==1.9.1
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
import json

from llguidance import LLMatcher


def entry(kind, **more):
    return {"type": "object", "properties": {"kind": {"const": kind}, **more}, "required": ["kind"]}


def try_it(name, schema):
    error = LLMatcher.validate_grammar(json.dumps({"grammars": [{"json_schema": schema}]}))
    print(f"{name}: {error.partition(': json-schema')[0].strip() or 'compiles'}")


number, total = {"$ref": "#/$defs/number"}, {"$ref": "#/$defs/sum"}
plain = {"number": entry("number"), "sum": entry("sum")}
nested = {"number": entry("number"), "sum": entry("sum", left={"oneOf": [number, total], "note": ""})}
try_it("in place", {"oneOf": [entry("number"), entry("sum")]})
try_it("references", {"oneOf": [number, total], "$defs": plain})
try_it('references, "note" beside them', {"oneOf": [number, total], "note": "", "$defs": plain})
try_it('an expression in an expression, "note" beside them', {"oneOf": [number, total], "note": "", "$defs": nested})
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
in place: compiles
references: oneOf constraints are not supported. Enable 'coerce_one_of' option to approximate oneOf with anyOf
references, "note" beside them: compiles
an expression in an expression, "note" beside them: circular references with sibling keys are not supported
SEEN
