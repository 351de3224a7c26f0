"""Errors in one line for people."""

from __future__ import annotations


def first_line(error: BaseException) -> str:
    """The error's class and the first line of its text, which may be pages long; more where that line announces the others."""
    lines = [line.strip() for line in str(error).strip().splitlines()]
    if not lines:
        return type(error).__name__
    text = " ".join(lines) if lines[0].endswith(":") else lines[0]
    return f"{type(error).__name__}: {text[:300]}"


#: How MLX and the device's driver say that there is no memory left.
_OUT_OF_MEMORY = (
    "metal::malloc",
    "[malloc]",
    "out of memory",
    "outofmemory",
    "insufficient memory",
    "unable to allocate",
)


def ran_out_of_memory(error: BaseException) -> bool:
    """Return whether this error of MLX means that memory ran out, by its text: MLX has no class for it."""
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in _OUT_OF_MEMORY)


def is_panic(error: BaseException) -> bool:
    """Return whether a library in Rust, such as tokenizers, says that it failed: its error is no ``Exception``."""
    return type(error).__module__ == "pyo3_runtime"


def why_unsound(model: str, token: int) -> str:
    """Explain logits that are not finite numbers, for the request's error."""
    return (
        f"model {model!r} computed logits that are not finite numbers for token {token}: "
        "its weights are damaged, or overflow in the precision that they are stored in. Fetch them again, or take "
        "another quantisation"
    )


def why_at_fault(token: int, fault: str) -> str:
    """Explain a grammar that cannot go on, for the request's error."""
    return (
        f"the constraint of the answer cannot be kept to from token {token} on ({fault}): it is too ambiguous or "
        "too large for a step. Take a simpler schema or grammar"
    )
