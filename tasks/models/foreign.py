"""Recognises folders in formats that are not loaded here, and says what to do about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.models.reading import ModelFilesUnreadable, read_object
from tasks.names import PACKAGE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CONFIG = "config.json"
_NATIVE = "take the model in the format of transformers, with config.json and model*.safetensors"
_SAVE = "save them as safetensors with transformers (from_pretrained, then save_pretrained)"
_GGUF = f"it has a GGUF file: convert that with python -m {PACKAGE}.engine.files.gguf, or take the model's repository"
_ADAPTER = "it is an adapter: name the folder of its base model, and this one as the entry's adapter in the catalogue"
#: The kinds of folders without config.json, by a file in each.
_WITHOUT_CONFIG: Sequence[tuple[str, str]] = (
    ("*.gguf", _GGUF),
    ("params.json", f"it has a model in its authors' own format (params.json): {_NATIVE}"),
    ("adapter_config.json", _ADAPTER),
    ("model_index.json", "it has a pipeline of diffusers, which writes no text"),
)
#: Files that a folder without weights may have in their place.
_OTHER_WEIGHTS: Sequence[tuple[str, str]] = (
    ("*.gguf", _GGUF),
    ("adapter*.safetensors", _ADAPTER),
    ("consolidated*", f"it has weights in their authors' own format (consolidated): {_NATIVE}"),
    ("*.safetensors", "it has weights under another name: call them model.safetensors if they are the whole model"),
    ("*.bin", f"it has weights of PyTorch: {_SAVE}, or take a repository that has them"),
    ("*.npz", "it has weights of an older MLX: convert the original model with mlx_lm.convert"),
    ("**/*.onnx", f"it has weights of ONNX: {_NATIVE}"),
)


def read_config(folder: Path) -> dict[str, Any]:
    """The object in the folder's ``config.json``.

    Raises:
        ModelFilesUnreadable: it is missing or damaged; the message says what the folder is instead.
    """
    path = folder / CONFIG
    if not path.is_file() and (known := misspelt(path) or _found(folder, _WITHOUT_CONFIG) or _in_subfolder(folder)):
        raise ModelFilesUnreadable(f"{path}: missing; {known}")
    return {name: _number(value) for name, value in read_object(path).items()}


def _number(value: Any) -> Any:
    """Return the value with the numbers that JSON lacks, such as Mamba 2's infinity, in the place of transformers 5's texts."""
    if isinstance(value, list):
        return [_number(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"__float__"} and value["__float__"] in ("Infinity", "-Infinity", "NaN"):
        return float(value["__float__"])
    return {name: _number(entry) for name, entry in value.items()}


def instead_of_weights(folder: Path) -> str:
    """Say what to do about a folder that has a ``config.json`` and no weights."""
    return _found(folder, _OTHER_WEIGHTS) or "fetch them, or convert the original model with mlx_lm.convert"


def misspelt(path: Path) -> str:
    """Say what to do where a file of this name is here in other letters, which disks of Windows and macOS take for the same."""
    others = (other.name for other in path.parent.glob("*") if other.name.lower() == path.name != other.name)
    return next((f"it has {name}: call that {path.name}" for name in others), "")


def _found(folder: Path, kinds: Sequence[tuple[str, str]]) -> str:
    return next((remedy for pattern, remedy in kinds if any(folder.glob(pattern))), "")


def _in_subfolder(folder: Path) -> str:
    places = sorted(path.parent.name for path in folder.glob(f"*/{CONFIG}"))
    return f"its folder {places[0]} has one: name that" if len(places) == 1 else ""
