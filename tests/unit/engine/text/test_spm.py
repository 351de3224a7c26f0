"""Folders that have SentencePiece's own file and no tokenizer.json: tokens are those of that library."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from tasks.engine.text.detokenizer import streamed_text
from tasks.engine.text.tokenizer import PROBES, load_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from mlx_lm.tokenizer_utils import TokenizerWrapper

pytestmark = pytest.mark.xdist_group("mlx")

#: What Llama 2's, and most others', were trained with.
AS_IT_IS = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
RULES: dict[str, dict[str, Any]] = {
    "space before": AS_IT_IS,
    "no space before": {**AS_IT_IS, "add_dummy_prefix": False},
    "digits, symbols": {**AS_IT_IS, "split_digits": True, "user_defined_symbols": ["<mark>"]},
    "normalised": {},
}


def trained(kind: str, rules: dict[str, Any]) -> bytes:
    """A vocabulary for the texts that a tokenizer is tried with."""
    written = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter([*PROBES, "the cat sat on the mat, and a line is a line"] * 9),
        model_writer=written,
        vocab_size=400,
        model_type=kind,
        byte_fallback=True,
        character_coverage=0.99,
        hard_vocab_limit=False,
        minloglevel=2,
        **rules,
    )
    return written.getvalue()


def load(folder: Path, model: bytes, described: dict[str, Any] | None = None) -> TokenizerWrapper:
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes(model)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    if described is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(described))
    return load_tokenizer(folder, trust_remote_code=False, ends=(2,), template=None)


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_text_is_read_as_the_file_says(tmp_path: Path, kind: str, rules: str) -> None:
    """Whatever class the folder names, or none: ids and decoded text are SentencePiece's own."""
    model = trained(kind, RULES[rules])
    file = SentencePieceProcessor(model_proto=model)
    for name, described in {
        "class": {"tokenizer_class": "LlamaTokenizer", "eos_token": "</s>"},
        "other": {"tokenizer_class": "GemmaTokenizer"},
        "none": None,
    }.items():
        tokenizer = load(tmp_path / name, model, described)
        for text in (*PROBES, "a<mark>b"):
            ids = file.encode(text)
            if not text.startswith(" "):
                assert tokenizer.encode(text, add_special_tokens=False) == ids, (name, text)
            if "<mark>" not in text:  # a special token for transformers
                assert streamed_text(tokenizer, ids) == file.decode(ids), (name, text)
