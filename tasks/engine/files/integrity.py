"""Checks that a model's files are whole, and computes their revision. No MLX here."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from tasks.models.foreign import misspelt, read_config
from tasks.models.reading import ModelFilesUnreadable, is_pointer, pointer_message, require_file
from tasks.models.weights import INDEX, check_weights, read_header, read_tensors, weight_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "tekken.json",
    "vocab.json",
    "vocab.txt",
    "*.tiktoken",
    "tiktoken.model",
)
#: Beside the weights, the files that decide a model's answers; others, such as a README, may differ between copies.
_DECIDING = (
    "*.json",
    "*.model",
    "*.tiktoken",
    "*.txt",
    "*.jinja",
    "*.jsonl",
    "**/*.py",  # config.json may name the model's own code in a subfolder
    "additional_chat_templates/*.jinja",
    "*_Pooling/config.json",
    "*_Dense/*",
)
#: The bytes from the middle of each tensor that tell models of one shape apart.
SAMPLE_BYTES = 256
#: The most tensors of a file that are looked at, spread evenly.
MOST_SAMPLES = 4096


def check_model(folder: Path) -> dict[str, Any]:
    """The parsed ``config.json``, after a look at all that loading needs.

    Raises:
        ModelFilesUnreadable: a file is missing, cut off or unreadable; the message names it.
    """
    config = read_config(folder)
    if not isinstance(config.get("model_type"), str):
        raise ModelFilesUnreadable(
            f"{folder / 'config.json'}: has no model_type; it is not a language model's configuration"
        )
    check_weights(folder)
    tokenizers = [path for pattern in _TOKENIZERS for path in folder.glob(pattern)]
    if not tokenizers:
        remedy = misspelt(folder / _TOKENIZERS[0]) or "copy the original model's"
        raise ModelFilesUnreadable(f"{folder}: has no tokenizer ({' or '.join(_TOKENIZERS[:2])}); {remedy}")
    for path in tokenizers:
        require_file(path)
        if is_pointer(path):
            raise ModelFilesUnreadable(pointer_message(str(path)))
    return config


def weights_bytes(folder: Path) -> int:
    """Bytes of the files that hold the model's weights."""
    return sum(path.stat().st_size for path in weight_files(folder))


def folder_revision(folder: Path) -> str:
    """A digest of a local model: of all that decides what it says, and of its weights a sample of each tensor.

    It is the same for copies of a model on other machines, and takes milliseconds however large the model is. What lies
    in the folder and is not loaded, such as another model's weights, is not in it, nor is the version of mlx-lm or whether
    the weights are computed with as they are: an answer goes on from its tokens, which mean the same to all of these.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in _deciding(folder):
        _add(digest, str(path.relative_to(folder)), path.read_bytes())
    try:
        for path in weight_files(folder):
            _add(digest, "weights", b"".join(_weights(path)))
    except ModelFilesUnreadable as error:  # loading will say so
        _add(digest, "damaged", str(error).encode())
    return digest.hexdigest()


def _deciding(folder: Path) -> list[Path]:
    found = {path for pattern in _DECIDING for path in folder.glob(pattern) if path.is_file()}
    return sorted(path for path in found if path.name != INDEX)


def _add(digest: hashlib.blake2b, name: str, content: bytes) -> None:
    digest.update(f"{name}\0{len(content)}\0".encode())
    digest.update(hashlib.blake2b(content).digest())


def _weights(path: Path) -> Iterator[bytes]:
    """Yield the bytes that tell a file of weights from others: its size, its header, and a piece of each tensor."""
    tensors = read_tensors(path)
    _, at = read_header(path)
    with path.open("rb") as file:
        yield path.stat().st_size.to_bytes(8, "little")
        yield file.read(at)
        for tensor in tensors[:: 1 + len(tensors) // MOST_SAMPLES]:
            middle = (tensor.start + tensor.end - SAMPLE_BYTES) // 2
            file.seek(at + max(tensor.start, middle))
            yield file.read(min(SAMPLE_BYTES, tensor.end - tensor.start))
