"""Finds the files with a model's weights, and checks that they are whole.

The index decides, as its authors meant it: what else lies in the folder (another conversion, an adapter, a copy) is not
loaded and not counted. Without an index it is ``model.safetensors``, or a full set of numbered shards. Formats: the index is
JSON; a safetensors file is 8 bytes of header length, a JSON header of names, dtypes and places, then the numbers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from tasks.models.foreign import instead_of_weights
from tasks.models.reading import (
    ModelFilesUnreadable,
    is_pointer,
    parse_object,
    pointer_message,
    read_object,
    require_file,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
#: The names that mlx-lm loads.
PATTERN = "model*.safetensors"
#: The safetensors format's own bound on a header.
HEADER_BYTES_MAX = 100_000_000
_SHARD = re.compile(r"model-(\d+)-of-(\d+)\.safetensors")


class WeightsMissing(ModelFilesUnreadable):
    """Weights are missing, some or all; the message names them."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a safetensors file. ``start`` and ``end`` are its place among the numbers, in bytes."""

    name: str
    dtype: str
    shape: list[int]
    start: int
    end: int


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The files that hold the model's weights, in order.

    Raises:
        WeightsMissing: one of them is not here, or there are none.
        ModelFilesUnreadable: the files contradict each other.
    """
    if (folder / INDEX).is_file():
        return _indexed(folder)
    if (folder / SINGLE).is_file():
        return (folder / SINGLE,)
    found = sorted(folder.glob(PATTERN))
    shards = {path.name: match for path in found if (match := _SHARD.fullmatch(path.name))}
    if shards:
        return _shards(folder, shards)
    if not found:
        raise WeightsMissing(f"{folder}: has no weights ({PATTERN}); {instead_of_weights(folder)}")
    return tuple(found)


def stray_files(folder: Path) -> list[str]:
    """Names of safetensors files that mlx-lm would load by their names, and that are not part of the model."""
    kept = {path.name for path in weight_files(folder)}
    return sorted(path.name for path in folder.glob(PATTERN) if path.name not in kept)


def check_weights(folder: Path) -> tuple[Path, ...]:
    """The same files, each checked against its header and all against the index.

    Raises:
        ModelFilesUnreadable: a file is cut off, is no safetensors file, or is not the one that the index means.
    """
    paths = weight_files(folder)
    tensors = {path.name: {tensor.name for tensor in read_tensors(path)} for path in paths}
    _check_index(folder, tensors)
    seen: dict[str, str] = {}
    for file, names in tensors.items():
        for name in names:
            if name in seen:
                raise ModelFilesUnreadable(
                    f"{folder}: {seen[name]} and {file} both have the tensor {name!r}; remove the file that does not belong to "
                    "the model"
                )
            seen[name] = file
    return paths


def read_tensors(path: Path) -> list[Tensor]:
    """The tensors of a safetensors file, which is checked against its header's sizes.

    Raises:
        ModelFilesUnreadable: it is damaged; the message says how.
    """
    header, at = read_header(path)
    tensors = list(_tensors(path, header))
    size, expected = path.stat().st_size, at + max((tensor.end for tensor in tensors), default=0)
    if size < expected:
        raise ModelFilesUnreadable(f"{path}: cut off: {size} of {expected} bytes; fetch the file again")
    if size > expected:
        raise ModelFilesUnreadable(f"{path}: has {size} bytes where its header says {expected}; fetch the file again")
    return tensors


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """A safetensors file's header, and where the numbers begin.

    Raises:
        ModelFilesUnreadable: it has none.
    """
    require_file(path)
    try:
        if is_pointer(path):
            raise ModelFilesUnreadable(pointer_message(str(path)))
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            text = file.read(length) if 2 <= length <= HEADER_BYTES_MAX else b""
    except OSError as error:
        raise ModelFilesUnreadable(f"{path}: cannot be read ({error.strerror})") from None
    if not text:
        raise ModelFilesUnreadable(f"{path}: not a safetensors file, or a corrupt one; fetch the file again")
    if len(text) < length:
        raise ModelFilesUnreadable(f"{path}: cut off in its header; fetch the file again")
    return parse_object(text, f"header of {path}"), 8 + length


def _tensors(path: Path, header: dict[str, Any]) -> Iterator[Tensor]:
    for name, described in header.items():
        if name == "__metadata__":
            continue
        try:
            shape = [int(length) for length in described["shape"]]
            start, end = map(int, described["data_offsets"])
            tensor = Tensor(name, described["dtype"], shape, start, end)
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise ModelFilesUnreadable(f"{path}: damaged entry of tensor {name!r} ({error})") from None
        if min(shape, default=0) < 0 or not 0 <= start <= end:
            raise ModelFilesUnreadable(f"{path}: tensor {name!r} has an impossible shape or place")
        yield tensor


def _indexed(folder: Path) -> tuple[Path, ...]:
    names = sorted(set(_weight_map(folder).values()))
    missing = next((name for name in names if not (folder / name).is_file()), None)
    if missing is not None and (folder / SINGLE).is_file():
        raise WeightsMissing(
            f"{folder}: {INDEX} is stale: it names {missing}, which is not here, and {SINGLE} is; remove the index if that "
            "is the whole model, or fetch the model again"
        )
    if missing is not None:
        raise WeightsMissing(f"{folder}: {INDEX} names {missing}, which is missing; fetch the model again")
    return tuple(folder / name for name in names)


def _weight_map(folder: Path) -> dict[str, str]:
    """Tensor to file. A file is a name in this folder: an index must not lead elsewhere."""
    path = folder / INDEX
    found = read_object(path).get("weight_map")
    if not isinstance(found, dict | None):
        raise ModelFilesUnreadable(f"{path}: weight_map is not an object; fetch the file again")
    if not found:
        raise WeightsMissing(
            f"{path}: names no files; fetch the model again, or remove the index if the files are right"
        )
    for name in found.values():
        if not isinstance(name, str) or PurePath(name).name != name or not name.endswith(".safetensors"):
            raise ModelFilesUnreadable(f"{path}: {name!r} is not the name of a safetensors file; fetch the file again")
    return found


def _check_index(folder: Path, tensors: dict[str, set[str]]) -> None:
    if not (folder / INDEX).is_file():
        return
    for name, file in _weight_map(folder).items():
        if name not in tensors[file]:
            raise ModelFilesUnreadable(
                f"{folder}: {INDEX} is stale: it has the tensor {name!r} in {file}, which does not; fetch the model again, or "
                "remove the index if the files are right"
            )


def _shards(folder: Path, shards: dict[str, re.Match[str]]) -> tuple[Path, ...]:
    """A full set of numbered files, where no index names them."""
    counts = sorted({int(match[2]) for match in shards.values()})
    if len(counts) > 1:
        raise ModelFilesUnreadable(
            f"{folder}: has shards of {' and of '.join(map(str, counts))}, and no {INDEX} says which are the model's; remove "
            "the others"
        )
    numbers = {int(match[1]) for match in shards.values()}
    missing = sorted(set(range(1, counts[0] + 1)) - numbers)
    if missing:
        raise WeightsMissing(f"{folder}: of {counts[0]} shards, number {missing[0]} is missing; fetch the model again")
    return tuple(folder / name for name in sorted(shards))
