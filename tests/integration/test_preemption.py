"""Batch work beside urgent requests, on a real worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support import Reader, wait_until

if TYPE_CHECKING:
    from tasks.generate import GenerateTask
    from tests.conftest import StartWorker

#: Slow enough for what happens meanwhile on a busy machine.
MODEL = "fake:40"


def test_urgent_requests_overtake(generate: GenerateTask, worker: StartWorker) -> None:
    """An urgent request runs beside the slots that batch work fills; the next gets one of these, and its row goes on later."""
    worker("-c", "2", env={"CELERY_MLX_MODELS": MODEL})
    rows = [
        generate.apply_async(kwargs={"prompt": f"row {n}", "model": MODEL, "max_tokens": 400}, priority=9)
        for n in range(2)
    ]
    readers = [Reader(row) for row in rows]
    wait_until(lambda: all(reader.chunks for reader in readers))
    beside = generate.delay(prompt="beside", model=MODEL, max_tokens=200)
    next(beside.stream(timeout=60))
    urgent = generate.delay(prompt="urgent", model=MODEL, max_tokens=3).get(timeout=60)
    assert urgent["usage"]["completion_tokens"] == 3
    assert not any(request.ready() for request in (*rows, beside))
    assert beside.get(timeout=60)["attempt"] == 1
    answers = [row.get(timeout=60) for row in rows]
    assert [reader.whole() for reader in readers] == [answer["text"] for answer in answers]
    assert [answer["usage"]["completion_tokens"] for answer in answers] == [400, 400]
    assert sorted(answer["attempt"] for answer in answers) == [1, 2]
