"""Whether a model's head is its embedding, as the files have it.

Where config.json does not say so, mlx-lm 0.32.2 takes a default of its own for each architecture, which for llama, qwen2, olmo2,
granite and others is not that of transformers: a head that lies in the files is left out then, and the model answers nonsense
without an error. Where config.json says that the two are one, and the files have two that differ, the files are right, as for
transformers 5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.models.weights import read_header, read_tensors, weight_files

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tasks.models.weights import Tensor

FIELD = "tie_word_embeddings"
_HEAD, _EMBEDDING = "lm_head.weight", "embed_tokens.weight"
#: The part of two tensors that is compared at a time.
_PIECE_BYTES = 16 << 20


def tied_fields(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """The field as it has to be for mlx-lm, where config.json lacks it or contradicts the files; else empty."""
    tied = _tied(folder, config)
    nested = config.get("text_config")
    place = nested if isinstance(nested, dict) else config
    if tied is None or place.get(FIELD) == tied:
        return {}
    return {"text_config": {**nested, FIELD: tied}} if isinstance(nested, dict) else {FIELD: tied}


def _tied(folder: Path, config: Mapping[str, Any]) -> bool | None:
    """``None`` where mlx-lm may do as it likes."""
    nested = config.get("text_config")
    values = (nested.get(FIELD) if isinstance(nested, dict) else None, config.get(FIELD))
    tied = next((value for value in values if isinstance(value, bool)), None)
    if tied is False:
        return False
    found = {path: read_tensors(path) for path in weight_files(folder)}
    heads, embeddings = (
        [(path, tensor) for path, tensors in found.items() for tensor in tensors if tensor.name.endswith(suffix)]
        for suffix in (_HEAD, _EMBEDDING)
    )
    if len(heads) != 1:
        return tied
    if len(embeddings) != 1 or _are_equal(*heads[0], *embeddings[0]):
        return tied
    return False


def _are_equal(path: Path, tensor: Tensor, other_path: Path, other: Tensor) -> bool:
    if (tensor.dtype, tensor.shape) != (other.dtype, other.shape):
        return False
    with path.open("rb") as file, other_path.open("rb") as other_file:
        file.seek(read_header(path)[1] + tensor.start)
        other_file.seek(read_header(other_path)[1] + other.start)
        left = tensor.end - tensor.start
        while left > 0:
            size = min(left, _PIECE_BYTES)
            if file.read(size) != other_file.read(size):
                return False
            left -= size
    return True
