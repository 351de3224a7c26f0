#!/usr/bin/env bash
# Jinja2 3.1.6 (Python 3.11): for a chat template every JSON Schema has "items".
#
# Guess: schema['items'], with brackets and quotes, looks a key up, and is undefined where there is none; the other spelling, schema.items,
# is the one that finds a method of the dictionary.
# Seen: brackets look for the key, and then for an attribute. `items` is a keyword of JSON Schema and a method of Python's dictionaries, so a
# template that asks a tool's parameter for it takes each one for an array, and writes a method with its address into the prompt. Only the
# spellings in the second half ask for the key alone:
#     {% if schema['items'] %}                  true
#     {{ schema['items'] is defined }}          True
#     {{ schema['items'] }}                     <built-in method items of dict ...>
#     {{ 'items' in schema }}                   False
#     {{ schema.get('items') }}                 None
# The same holds for properties that are called keys, values, copy or get, and for a text's title, index and count.
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q Jinja2==3.1.6
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
import re

from jinja2.sandbox import ImmutableSandboxedEnvironment  # what transformers and mlx-lm render chat templates with

environment = ImmutableSandboxedEnvironment()
for template in (
    "{% if schema['items'] %}true{% else %}false{% endif %}",
    "{{ schema['items'] is defined }}",
    "{{ schema['items'] }}",
    "{{ 'items' in schema }}",
    "{{ schema.get('items') }}",
):
    rendered = environment.from_string(template).render(schema={"type": "string"})
    print(f"{template.partition('true{%')[0]:41}", re.sub("dict object at 0x[0-9a-f]+", "dict ...", rendered))
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
{% if schema['items'] %}                  true
{{ schema['items'] is defined }}          True
{{ schema['items'] }}                     <built-in method items of dict ...>
{{ 'items' in schema }}                   False
{{ schema.get('items') }}                 None
SEEN
