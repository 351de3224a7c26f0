"""The footprint of a model: its files, and the bytes that its engine needs at least, before it is loaded and after."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.errors import ModelLoadFailed, UnknownModel
from tasks.messages.memory import KvSize, margin_bytes
from tasks.models.routing import KV_ROOM_BYTES, KV_ROOM_TOKENS, size_of
from tasks.names import PACKAGE
from worker_config.cache import bundled_folder
from worker_config.hub import fetched_snapshot

if TYPE_CHECKING:
    from tasks.messages.load import Ready
    from tasks.models.files import ModelSize
    from worker_config.catalogue import ModelEntry

#: The process itself: Python, MLX, the tokenizer, a device's context. Measured at 150 to 230 MB (docs/models.md).
PROCESS_BYTES = 256 << 20
#: On a CPU the engine computes in dense float32, whatever the files hold (docs/performance.md), KV caches included.
CPU_BYTES_PER_PARAMETER = 4
CPU_KV_FACTOR = 2

#: The KV cache of :mod:`tasks.engine.fake`, for 4,096 tokens.
FAKE_KV_BYTES = 4 << 20

_FAKE_WEIGHTS = re.compile(r":weights_mb=(\d+)")


@dataclass(frozen=True, slots=True)
class Footprint:
    """The least memory that an engine needs.

    Args:
        weights_bytes: the weights as they lie in memory.
        kv_bytes: the KV cache of one request of 4,096 tokens, or of the model's whole context if that is less.
        margin_bytes: the memory of one step.
        process_bytes: its memory beyond MLX's own; the engine does not count it.
    """

    weights_bytes: int
    kv_bytes: int
    margin_bytes: int = 0
    process_bytes: int = PROCESS_BYTES

    @property
    def floor_bytes(self) -> int:
        """All of it, with a margin for prefill."""
        return self.weights_bytes + self.margin_bytes + self.kv_bytes + self.process_bytes


#: A fake model without weights, which counts for nothing.
NOTHING = Footprint(0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Source:
    """The model that an engine loads. ``path`` is empty for a fake model, ``revision`` ``None`` where the files tell it."""

    path: str
    revision: str | None = None


def local_source(entry: ModelEntry) -> Source | None:
    """Return the place of this model's files; ``None`` if they have to be fetched from the hub first.

    Raises:
        ModelLoadFailed: they ought to be here, and are not.
    """
    if entry.kind == "fake":
        return Source("")
    if entry.kind == "hub":
        folder = fetched_snapshot(entry.source, entry.revision)
        return Source(str(folder), folder.name) if folder is not None else None
    if entry.kind == "bundled":
        folder = bundled_folder(entry.source)
        remedy = f"run `make model` (or `python -m {PACKAGE}.demo.bundled`)"
    else:
        folder = Path(entry.source)
        remedy = "put the model there, or correct its source in the catalogue"
    if not folder.is_dir():
        raise ModelLoadFailed(f"model {entry.name!r}: {folder} does not exist: {remedy}")
    return Source(str(folder))


def expected(entry: ModelEntry, accelerator: str, step_tokens: int, most_bytes: int | None = None) -> Footprint:
    """Estimate the memory of an engine by the headers of the model's files, else by its name; nothing for a fake one.

    Args:
        entry: the model.
        accelerator: ``metal``, ``cuda`` or ``cpu``.
        step_tokens: prompt tokens that one step of the engine computes.
        most_bytes: the memory that there is. A CPU keeps a model as its files have it, if its dense weights do not fit.

    Raises:
        UnknownModel: nothing tells its size.
    """
    if entry.kind == "fake":
        weights = _FAKE_WEIGHTS.search(entry.name)
        if weights is None:
            return NOTHING
        fake_bytes = int(weights.group(1)) << 20
        return Footprint(fake_bytes, FAKE_KV_BYTES, margin_bytes(fake_bytes, KvSize(), step_tokens))
    size = size_of(entry)
    if size.parameters_b is None:
        raise UnknownModel(
            f"model {entry.name!r}: nothing tells its size; add parameters_b to its entry in the catalogue"
        )
    # Weights whose files are not here and whose name tells no quantisation have 16 bits.
    stored = _footprint(
        size, size.weights_bytes or int(size.parameters_b * 2e9), 2 if size.single_precision else 1, step_tokens
    )
    if accelerator != "cpu" and not size.encoder:
        return stored
    dense = _footprint(size, int(size.parameters_b * 1e9 * CPU_BYTES_PER_PARAMETER), CPU_KV_FACTOR, step_tokens)
    return stored if most_bytes is not None and dense.floor_bytes > most_bytes else dense


def _footprint(size: ModelSize, weights_bytes: int, kv_factor: int, step_tokens: int) -> Footprint:
    """With a KV cache of so many times the width of 16-bit values."""
    kv = size.kv.times(kv_factor) if size.kv is not None else KvSize()
    tokens = min(KV_ROOM_TOKENS, size.context_tokens or KV_ROOM_TOKENS)
    kv_bytes = kv.row_bytes(tokens) if size.kv is not None else KV_ROOM_BYTES * kv_factor
    return Footprint(weights_bytes, kv_bytes, margin_bytes(weights_bytes, kv, step_tokens))


def measured(ready: Ready, before: Footprint, step_tokens: int) -> Footprint:
    """Return the least memory that an engine needs that has loaded."""
    kv_bytes = ready.kv.row_bytes(min(KV_ROOM_TOKENS, ready.context_tokens))
    margin = margin_bytes(ready.weights_bytes, ready.kv, step_tokens) if ready.weights_bytes else 0
    return Footprint(ready.weights_bytes, kv_bytes, margin, before.process_bytes)
