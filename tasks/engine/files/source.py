"""A model's files: where they are, whether they are whole, and which revision they are. No MLX here."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.engine.files.download import fetch
from tasks.errors import ModelLoadFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

_WEIGHTS = "model*.safetensors"
_INDEX = "model.safetensors.index.json"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "*.tiktoken")
#: Files that decide what a model says; others, such as a README, may differ between copies.
_PARTS = ("*.json", "*.safetensors", "*.model", "*.tiktoken", "*.txt", "*.jinja", "*.py")
_WHOLE = frozenset({".json", ".model", ".tiktoken", ".txt", ".jinja", ".py"})
#: The safetensors format bounds its header so.
_MOST_HEADER_BYTES = 100_000_000


def find_model(source: str, revision: str | None) -> tuple[Path, str]:
    """The model's folder, fetched from the hub if need be, and its revision: the hub's commit, or a folder's digest.

    Args:
        source: a folder, or a hub id.
        revision: the hub's branch, tag or commit; for a folder that came from the hub, its commit.

    Raises:
        ModelLoadFailed: there is no such folder or hub model, or it cannot be fetched.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return path, revision or folder_revision(path)
    if path.is_file():
        raise ModelLoadFailed(f"{source}: is a file; name the folder with config.json and the .safetensors files")
    if source.startswith((".", "/", "~")) or source.count("/") != 1:
        raise ModelLoadFailed(f"{source}: no such folder; name an existing folder, or a hub id such as owner/name")
    folder = fetch(source, revision)
    return folder, folder.name


def check_model(folder: Path) -> dict[str, Any]:
    """The parsed ``config.json``, after a look at all that loading needs.

    Raises:
        ModelLoadFailed: a file is missing, cut off or unreadable; the message names it.
    """
    config = _read_json(folder / "config.json")
    if not isinstance(config.get("model_type"), str):
        raise ModelLoadFailed(
            f"{folder / 'config.json'}: has no model_type; it is not a language model's configuration"
        )
    files = sorted(folder.glob(_WEIGHTS))
    if not files:
        raise ModelLoadFailed(f"{folder}: has no weights ({_WEIGHTS}); convert the model with mlx_lm.convert")
    for path in files:
        read_header(path)
    index = folder / _INDEX
    if index.is_file():
        shards = _read_json(index).get("weight_map")
        names = set(shards.values()) if isinstance(shards, dict) else set()
        missing = sorted(str(name) for name in names if not (folder / str(name)).is_file())
        if missing:
            raise ModelLoadFailed(f"{folder}: {_INDEX} names {missing[0]}, which is missing; fetch the model again")
    if not any(next(folder.glob(pattern), None) for pattern in _TOKENIZERS):
        raise ModelLoadFailed(f"{folder}: has no tokenizer ({' or '.join(_TOKENIZERS[:2])}); copy the original model's")
    return config


def weights_bytes(folder: Path) -> int:
    """Bytes of the tensors in the model's files."""
    return sum(path.stat().st_size for path in folder.glob(_WEIGHTS))


def read_header(path: Path) -> dict[str, Any]:
    """A safetensors file's header, checked against the file's size.

    Raises:
        ModelLoadFailed: it is corrupt, or the file is cut off.
    """
    size = path.stat().st_size
    raw = _header(path)
    try:
        header = json.loads(raw)
        ends = [each["data_offsets"][1] for name, each in header.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        raise ModelLoadFailed(f"{path}: corrupt safetensors header; fetch the file again") from None
    expected = 8 + len(raw) + max(ends, default=0)
    if size != expected:
        raise ModelLoadFailed(f"{path}: has {size} bytes where its header says {expected}; fetch the file again")
    return dict(header)


def folder_revision(folder: Path) -> str:
    """A digest of a local model: names, sizes, configuration, tokenizer and tensor headers, but not the tensors' bytes.

    It is the same for copies of a model on other machines, and takes milliseconds however large the model is.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(set(_parts(folder)), key=lambda path: path.name):
        content = path.read_bytes() if path.suffix in _WHOLE else _peek(path)
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        digest.update(hashlib.blake2b(content).digest())
    return digest.hexdigest()


def _parts(folder: Path) -> Iterator[Path]:
    for pattern in _PARTS:
        yield from (path for path in folder.glob(pattern) if path.is_file())


def _peek(path: Path) -> bytes:
    try:
        return _header(path)
    except ModelLoadFailed:
        return b""


def _header(path: Path) -> bytes:
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= _MOST_HEADER_BYTES:
            raise ModelLoadFailed(f"{path}: not a safetensors file, or a corrupt one; fetch the file again")
        raw = file.read(length)
    if len(raw) < length:
        raise ModelLoadFailed(f"{path}: cut off in its header; fetch the file again")
    return raw


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelLoadFailed(f"{path}: missing; is this a model's folder?") from None
    except (OSError, ValueError) as error:
        raise ModelLoadFailed(f"{path}: cannot be read ({error}); fetch the file again") from None
    if not isinstance(value, dict):
        raise ModelLoadFailed(f"{path}: is not a JSON object; fetch the file again")
    return value
