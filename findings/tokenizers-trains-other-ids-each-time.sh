#!/usr/bin/env bash
# tokenizers 0.23.3 (Linux, Python 3.11): the same texts train another vocabulary each time, for two of four kinds.
#
# Guess: training counts, and has no random numbers and no seed, so the same texts in the same order give the same file.
# Seen: so it is for BPE and WordLevel. WordPiece and Unigram come out in another way at each call, also within one process: the same token
# has other ids, and of candidates that are equally good others are kept. A model that was trained with one run's file reads noise through
# the next run's, whose size and tokens look the same. Different vocabularies in twenty trainings with the same ten texts:
#     BPE        1 of 20
#     WordLevel  1 of 20
#     WordPiece  more than 1 of 20
#     Unigram    more than 1 of 20
# Succeeds while that is so, and fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q tokenizers==0.23.3
"$folder/venv/bin/python" >"$folder/seen" <<'PYTHON'
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

TEXTS = ["hello world hello", "low lower lowest newest widest"] * 5
MORE = {"special_tokens": ["?"], "show_progress": False}
KINDS = {
    "BPE": lambda: (models.BPE(), trainers.BpeTrainer(vocab_size=40, **MORE)),
    "WordLevel": lambda: (models.WordLevel(unk_token="?"), trainers.WordLevelTrainer(**MORE)),
    "WordPiece": lambda: (models.WordPiece(unk_token="?"), trainers.WordPieceTrainer(vocab_size=40, **MORE)),
    "Unigram": lambda: (models.Unigram(), trainers.UnigramTrainer(vocab_size=30, unk_token="?", **MORE)),
}


def trained(kind):
    model, trainer = KINDS[kind]()
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tuple(sorted(tokenizer.get_vocab().items()))


for kind in KINDS:
    vocabularies = len({trained(kind) for _ in range(20)})
    print(f"{kind:10} {'1' if vocabularies == 1 else 'more than 1'} of 20")
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN'
BPE        1 of 20
WordLevel  1 of 20
WordPiece  more than 1 of 20
Unigram    more than 1 of 20
SEEN
