"""Interactive work overtakes batch work: priority 0 is taken first, then 5, then 9; none of them starves."""

from __future__ import annotations

from celery_mlx import generate

question = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8}
batch = [generate.apply_async(kwargs=question, priority=9) for _ in range(12)]
interactive = generate.apply_async(kwargs=question, priority=0)
print(f"in the queue before the interactive one: {interactive.position()}")
interactive.get(timeout=300)
print(
    f"answered; of the {len(batch)} batch requests, which were sent before, {sum(result.ready() for result in batch)} are done"
)
for result in batch:
    result.get(timeout=300)
