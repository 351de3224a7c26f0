"""The options in a fake model's name, and the process and figures that follow from them."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.engine.generation.runner import Facts
from tasks.errors import ModelLoadFailed
from tasks.messages.memory import KvSize

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.messages.engine import EngineConfig

PREFIX = "fake:"
KV = KvSize(bytes_per_token=1024)
WEIGHTS_BYTES = 1 << 20


def is_fake(model: str) -> bool:
    """Whether a model of this name computes nothing."""
    return model.startswith(PREFIX)


@dataclass(slots=True, frozen=True, kw_only=True)
class FakeOptions:
    """The options in a fake model's name: times in the units that their names end in."""

    step_ms: float
    load_s: float = 0.0
    load_error: str = ""
    load_exit: int = 0
    context: int = 8192
    weights_mb: int = 0
    dimensions: int = 0
    ranks: int = 0


_OPTIONS: dict[str, type[float | int | str]] = {
    "load_s": float,
    "load_error": str,
    "load_exit": int,
    "context": int,
    "weights_mb": int,
    "dimensions": int,
    "ranks": int,
}


def parse_options(model: str) -> FakeOptions:
    """Return the options in a name such as ``fake:10:load_s=2``; the tier behind an ``@`` is routing's business.

    Raises:
        ModelLoadFailed: the name does not have this form.
    """
    step_ms, *options = model.removeprefix(PREFIX).partition("@")[0].split(":")
    try:
        values: dict[str, Any] = {"step_ms": float(step_ms)}
        for option in options:
            name, value = option.split("=", 1)
            values[name] = _OPTIONS[name](value)
        return FakeOptions(**values)
    except (ValueError, TypeError, KeyError):
        raise ModelLoadFailed(
            f"model {model!r}: expected fake:STEP_MS, with options {'=, '.join(_OPTIONS)}= behind more colons"
        ) from None


def load_fake(config: EngineConfig, options: FakeOptions, flush: Callable[[], None]) -> bytes:
    """The weights of a fake model, after whatever its name asks for; ``flush`` empties the pipe before a made-up end.

    Raises:
        ModelLoadFailed: its name asks for that.
    """
    time.sleep(options.load_s)
    if options.load_exit:
        flush()
        os._exit(options.load_exit)
    if options.load_error:
        raise ModelLoadFailed(f"model {config.model!r}: {options.load_error}")
    # Of ones, since the system gives memory for zeros only when they are written.
    return b"\1" * (options.weights_mb << 20 or WEIGHTS_BYTES)


def fake_facts(config: EngineConfig, options: FakeOptions, weights_bytes: int) -> Facts:
    """Return the facts of a fake model."""
    return Facts(
        revision="fake",
        context_tokens=min(options.context, config.context_tokens or options.context),
        weights_bytes=weights_bytes,
        kv=KV,
        accelerator="fake",
        blas="",
        end_ids=frozenset(),
    )
