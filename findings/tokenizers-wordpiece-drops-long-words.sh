#!/usr/bin/env bash
# tokenizers 0.23.3 (Linux, Python 3.11): to a model of the BERT family, all long Thai sentences are one and the same token.
#
# Guess: WordPiece cuts a word into pieces of its vocabulary, however long the word is; [UNK] stands for what no piece fits.
# Seen: a word of more than 100 characters is one [UNK], although each of its letters is in the vocabulary (max_input_chars_per_word, in BERT's
# files as well). A "word" is what spaces and punctuation separate: a whole sentence in Thai, Lao, Khmer or Burmese, a DNA sequence, a
# key in base64. All such texts have one vector in a search, and no error or warning says so:
#     100 letters: 100 tokens
#     101 letters: 1 token, [UNK]
#     two texts of 120 letters: 1 and 1 token, equal: True
#     with a space in each: 120 and 120 tokens, equal: False
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q tokenizers==0.23.3
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

LETTERS = "\u0e01\u0e02\u0e04\u0e07\u0e08"
vocabulary = ["[UNK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
tokenizer = Tokenizer(models.WordPiece({piece: number for number, piece in enumerate(vocabulary)}, unk_token="[UNK]"))
tokenizer.normalizer = normalizers.BertNormalizer()
tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()


def tokens(text):
    return tokenizer.encode(text).tokens


print("100 letters:", len(tokens(LETTERS * 20)), "tokens")
print("101 letters:", len(tokens(LETTERS * 20 + LETTERS[0])), "token,", *tokens(LETTERS * 20 + LETTERS[0]))
one, other = LETTERS * 24, LETTERS[::-1] * 24
a, b = tokens(one), tokens(other)
print(f"two texts of 120 letters: {len(a)} and {len(b)} token, equal: {a == b}")
a, b = (tokens(f"{text[:60]} {text[60:]}") for text in (one, other))
print(f"with a space in each: {len(a)} and {len(b)} tokens, equal: {a == b}")
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
100 letters: 100 tokens
101 letters: 1 token, [UNK]
two texts of 120 letters: 1 and 1 token, equal: True
with a space in each: 120 and 120 tokens, equal: False
SEEN
