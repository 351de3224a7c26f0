"""The list of tensors in a GGUF file, read without MLX, which reads some kinds wrongly and leaves others out silently.

Format (GGUF 2 and 3): ``GGUF``, version, number of tensors, number of metadata entries; each entry is a name, a type and a
value; each tensor a name, its dimensions, its kind and its place. Numbers are little-endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from tasks.errors import ModelLoadFailed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: Kinds of tensors by their number, for errors.
KINDS = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K",
    12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL",
    21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 30: "BF16",
    34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4",
}  # fmt: skip
#: What MLX 0.32.4 reads rightly. Q4_K it reads with the wrong scale for half of the weights, BF16 as F16, and with TQ and
#: MXFP kinds it stops reading, without an error in any of these cases.
READ_RIGHTLY = frozenset({"F32", "F16", "Q4_0", "Q4_1", "Q8_0", "Q2_K", "Q6_K"})
_DENSE = frozenset({"F32", "F16"})
_SCALARS: Mapping[int, str] = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9
#: No name and no list of tensors is longer; a damaged file may say so.
_MOST_NAME_BYTES = 1 << 16
_MOST_TENSORS = 1 << 20


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """A tensor's name, and how its numbers are written."""

    name: str
    kind: str


def read_tensor_list(source: Path) -> list[GgufTensor]:
    """The file's tensors.

    Raises:
        ModelLoadFailed: it is no GGUF file, or its header is damaged.
    """
    try:
        with source.open("rb") as file:
            return _Reader(file).tensors()
    except (struct.error, ValueError, OSError, RecursionError) as error:
        raise ModelLoadFailed(f"{source} is not a complete GGUF file: {error}") from None


def check_tensors(source: Path) -> list[GgufTensor]:
    """The file's tensors, each of a kind that MLX reads rightly.

    Raises:
        ModelLoadFailed: one is not; the message names it.
    """
    tensors = read_tensor_list(source)
    for tensor in tensors:
        if tensor.kind not in READ_RIGHTLY:
            raise ModelLoadFailed(
                f"{source}: tensor {tensor.name!r} is {tensor.kind}, which MLX does not read rightly; take a file in "
                f"{', '.join(sorted(READ_RIGHTLY))}"
            )
        if tensor.kind not in _DENSE and not tensor.name.endswith(".weight"):
            raise ModelLoadFailed(
                f"{source}: tensor {tensor.name!r} is {tensor.kind} and its name does not end in .weight, which MLX would cut"
            )
    return tensors


class _Reader:
    """Reads one value after the other."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def tensors(self) -> list[GgufTensor]:
        if self._file.read(4) != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        version, count, entries = self._number("<I"), self._number("<Q"), self._number("<Q")
        if version not in (2, 3):
            raise ValueError(f"version {version}")
        if count > _MOST_TENSORS or entries > _MOST_TENSORS:
            raise ValueError(f"{count} tensors and {entries} metadata entries")
        for _ in range(entries):
            self._text()
            self._skip(self._number("<I"))
        return [self._tensor() for _ in range(count)]

    def _tensor(self) -> GgufTensor:
        name = self._text()
        for _ in range(self._number("<I")):
            self._number("<Q")
        kind = self._number("<I")
        self._number("<Q")
        return GgufTensor(name, KINDS.get(kind, f"kind {kind}"))

    def _number(self, form: str) -> int:
        (value,) = struct.unpack(form, self._file.read(struct.calcsize(form)))
        return int(value)

    def _text(self) -> str:
        size = self._number("<Q")
        if size > _MOST_NAME_BYTES:
            raise ValueError(f"a name of {size} bytes")
        return self._file.read(size).decode()

    def _skip(self, kind: int) -> None:
        if kind == _STRING:
            self._file.seek(self._number("<Q"), 1)
        elif kind == _ARRAY:
            inner, count = self._number("<I"), self._number("<Q")
            if inner in _SCALARS:
                self._file.seek(count * struct.calcsize(_SCALARS[inner]), 1)
                return
            for _ in range(count):
                self._skip(inner)
        elif kind in _SCALARS:
            self._file.seek(struct.calcsize(_SCALARS[kind]), 1)
        else:
            raise ValueError(f"metadata of type {kind}")
