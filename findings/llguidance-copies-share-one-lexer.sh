#!/usr/bin/env bash
# llguidance 1.9.1 (Linux, Python 3.11): an error of one copy of a matcher is an error of all copies, those to come included.
#
# Guess: deep_copy() gives a matcher of its own, so that an answer which needs more than max_lexer_states fails alone.
# Seen: the copies share one lexer, which remembers every state that any of them was in and never leaves an error. Two answers
# by {"type": "string", "maxLength": 1000} with room for 500 states: one is in its 500th, the other had said one letter.
#     long answer: lexer error: too many states: 500 >= 500
#     short answer: lexer error: too many states: 500 >= 500
#     new answer: lexer error: too many states: 500 >= 500
# The default is 250,000 states, which a text of as many characters by a large enough maxLength reaches.
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q llguidance==1.9.1
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper


class Bytes:
    eos_token_id, bos_token_id, special_token_ids = 256, None, [256]
    tokens = [*(bytes([byte]) for byte in range(256)), b"<eos>"]

    def __call__(self, text):
        return list(text if isinstance(text, bytes) else text.encode())


tokenizer = LLTokenizer(TokenizerWrapper(Bytes()))
limits = LLParserLimits(max_lexer_states=500, verbose_errors=False)
grammar = LLMatcher.grammar_from_json_schema({"type": "string", "maxLength": 1000})
root = LLMatcher(tokenizer, grammar, log_level=0, limits=limits)
long, short = root.deep_copy(), root.deep_copy()
for matcher in (long, short):
    matcher.consume_tokens(list(b'"a'))
    matcher.compute_bitmask()
while not long.is_error():
    long.consume_token(ord("a"))
    long.compute_bitmask()
for name, matcher in (("long", long), ("short", short), ("new", root.deep_copy())):
    matcher.consume_token(ord("a" if name != "new" else '"'))
    matcher.compute_bitmask()
    print(f"{name} answer: {matcher.get_error().splitlines()[0]}")
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
long answer: lexer error: too many states: 500 >= 500
short answer: lexer error: too many states: 500 >= 500
new answer: lexer error: too many states: 500 >= 500
SEEN
