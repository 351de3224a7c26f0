"""The naive Celery application: one call of mlx-lm for each request, and a task that does nothing."""

from __future__ import annotations

from functools import cache
from typing import Any

from celery import Celery

from tasks.engine.model.blas import load_blas
from worker_config.settings import current_settings

app = Celery("naive", broker=current_settings().redis_url, backend=current_settings().redis_url, set_as_current=False)


@cache
def load_model(folder: str) -> tuple[Any, Any]:
    """The model and its tokenizer, once in each process."""
    load_blas()
    from mlx_lm import load

    loaded: Any = load(folder)
    return loaded[0], loaded[1]


@app.task(name="benchmarks.generate")
def generate(folder: str, prompt: str, max_tokens: int) -> int:
    """Generate as ``mlx_lm.generate`` does, and return the number of tokens, which it would not tell."""
    model, tokenizer = load_model(folder)
    from mlx_lm import stream_generate

    tokens = 0
    for response in stream_generate(model, tokenizer, prompt, max_tokens=max_tokens):
        tokens = response.generation_tokens
    return tokens


@app.task(name="benchmarks.nothing")
def nothing() -> int:
    """Cost what a task costs."""
    return 0
