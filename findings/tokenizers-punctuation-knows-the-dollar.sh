#!/usr/bin/env bash
# tokenizers 0.23.3 (Linux, Python 3.11): "$5" are two words, and "€5" is one.
#
# Guess: Punctuation and BertPreTokenizer treat signs of one kind alike: all currencies, all of mathematics, whether ASCII has them or not.
# Seen: what is not a letter or a digit in ASCII is cut off, and beyond ASCII only what Unicode calls punctuation. Signs of currencies, degrees and
# mathematics are symbols there, so they stay with the number: its first digit is a piece within a word (##5), another token than
# the same digit behind a dollar, and a vocabulary without such pieces says [UNK]:
#     $5  Punctuation '$' '5'  BertPreTokenizer '$' '5'  Whitespace '$' '5'
#     €5  Punctuation '€5'     BertPreTokenizer '€5'     Whitespace '€' '5'
#     £5  Punctuation '£5'     BertPreTokenizer '£5'     Whitespace '£' '5'
#     +5  Punctuation '+' '5'  BertPreTokenizer '+' '5'  Whitespace '+' '5'
#     ×5  Punctuation '×5'     BertPreTokenizer '×5'     Whitespace '×' '5'
#     WordPiece: $ 5 and € ##5
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q tokenizers==0.23.3
PYTHONUTF8=1 "$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
from tokenizers import Tokenizer, models
from tokenizers.pre_tokenizers import BertPreTokenizer, Punctuation, Whitespace

for text in ("$5", "€5", "£5", "+5", "×5"):
    words = (
        f"{kind.__name__} {' '.join(repr(word) for word, _ in kind().pre_tokenize_str(text)):7}"
        for kind in (Punctuation, BertPreTokenizer, Whitespace)
    )
    print(text, *words, sep="  ")
tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0, "$": 1, "€": 2, "5": 3, "##5": 4}, unk_token="[UNK]"))
tokenizer.pre_tokenizer = BertPreTokenizer()
print("WordPiece:", *tokenizer.encode("$5").tokens, "and", *tokenizer.encode("€5").tokens)
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
$5  Punctuation '$' '5'  BertPreTokenizer '$' '5'  Whitespace '$' '5'
€5  Punctuation '€5'     BertPreTokenizer '€5'     Whitespace '€' '5'
£5  Punctuation '£5'     BertPreTokenizer '£5'     Whitespace '£' '5'
+5  Punctuation '+' '5'  BertPreTokenizer '+' '5'  Whitespace '+' '5'
×5  Punctuation '×5'     BertPreTokenizer '×5'     Whitespace '×' '5'
WordPiece: $ 5 and € ##5
SEEN
