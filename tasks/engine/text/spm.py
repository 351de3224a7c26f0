"""A tokenizer of which the folder has SentencePiece's own file alone, whose rules count.

transformers 5 makes a tokenizer out of its pieces by the class that the folder names. LlamaTokenizer takes each for a BPE with a
space before the text, and where no class is named there is none before it, whatever the file says: prompts are cut into other
tokens than those that the model was trained with, without an error.

A text that begins with a space has one piece less than in SentencePiece: as in transformers, a space goes before a text that
begins with none, and not before the text behind a special token.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tokenizers import Tokenizer

logger = logging.getLogger(__name__)

FILE = "tokenizer.model"
MARK = "\u2581"
_UNIGRAM, _BPE = 1, 2
_USER_DEFINED = 4


def follow_file(hf: Any, folder: Path, probes: Sequence[str]) -> Any:
    """The tokenizer with the file's rules where its own are others; as it is where there is no such file, or of another kind.

    Args:
        hf: of transformers.
        folder: the model's.
        probes: texts to compare.
    """
    path, backend = folder / FILE, getattr(hf, "backend_tokenizer", None)
    if backend is None or not path.is_file():
        return hf
    from sentencepiece import SentencePieceProcessor

    try:
        file = SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError):  # a vocabulary in another format goes by this name, too
        return hf
    if (differing := _differing(backend, file, probes)) is None:
        return hf
    made = _made(path)
    if made is None or _differing(made, file, probes) is not None:
        logger.warning("%s: %r is read otherwise than %s says, and no other way is known", folder, differing, FILE)
        return hf
    logger.warning(
        "%s: transformers' %s reads %r otherwise than %s says; the file is followed",
        *(folder, type(hf).__name__, differing, FILE),
    )
    for step in ("model", "normalizer", "pre_tokenizer", "decoder"):
        setattr(backend, step, getattr(made, step))
    return hf


def _differing(tokenizer: Tokenizer, file: Any, probes: Sequence[str]) -> str | None:
    """A text that the two read otherwise, if there is one."""
    texts = (text for text in probes if not text.startswith(" "))
    return next(
        (text for text in texts if tokenizer.encode(text, add_special_tokens=False).ids != file.encode(text)), None
    )


def _made(path: Path) -> Tokenizer | None:
    """The file's rules as steps of a tokenizer; ``None`` for a kind that language models do not have."""
    from sentencepiece import sentencepiece_model_pb2
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers

    described: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]  # made when it is imported
    described.ParseFromString(path.read_bytes())
    model = _model(described)
    if model is None:
        return None
    rules = described.normalizer_spec
    before: list[Any] = []
    behind: list[Any] = [decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
    if rules.precompiled_charsmap:
        before.append(normalizers.Precompiled(rules.precompiled_charsmap))
    if rules.remove_extra_whitespaces:
        before += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    if rules.add_dummy_prefix:
        behind.append(decoders.Strip(" ", 1, 0))
    made = Tokenizer(model)
    made.normalizer = normalizers.Sequence(before)
    scheme = "first" if rules.add_dummy_prefix else "never"
    made.pre_tokenizer = pre_tokenizers.Metaspace(MARK, prepend_scheme=scheme, split=False)
    made.decoder = decoders.Sequence(behind)
    whole = [piece.piece for piece in described.pieces if piece.type == _USER_DEFINED]
    made.add_tokens([AddedToken(piece, normalized=False) for piece in whole])
    return made


def _model(described: Any) -> Any:
    from tokenizers import models

    trained = described.trainer_spec
    if trained.model_type == _UNIGRAM:
        scores = [(piece.piece, piece.score) for piece in described.pieces]
        return models.Unigram(scores, unk_id=trained.unk_id, byte_fallback=trained.byte_fallback)
    if trained.model_type == _BPE:
        vocabulary = {piece.piece: number for number, piece in enumerate(described.pieces)}
        return models.BPE(
            vocabulary,
            list(_merges(vocabulary)),
            unk_token=trained.unk_piece,
            fuse_unk=True,
            byte_fallback=trained.byte_fallback,
        )
    return None


def _merges(vocabulary: dict[str, int]) -> Iterator[tuple[str, str]]:
    """The pairs that make each piece, in the order in which they were learned, which is that of the pieces."""
    for piece in vocabulary:
        pairs = ((piece[:at], piece[at:]) for at in range(1, len(piece)))
        known = [pair for pair in pairs if pair[0] in vocabulary and pair[1] in vocabulary]
        yield from sorted(known, key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
