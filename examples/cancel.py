"""Cancel a running request: its place in the batch is free after one step, and what it said stays readable."""

from __future__ import annotations

from celery.exceptions import TaskRevokedError

from celery_mlx import generate

result = generate.delay(messages=[{"role": "user", "content": "Count to one thousand."}], max_tokens=1000)
for chunk in result.stream(idle_timeout=120):
    if chunk.kind == "content":
        print(chunk.text, end="", flush=True)
    if chunk.index >= 10 and chunk.finish_reason is None:
        result.revoke(terminate=True)
print(f"\n\nfinish_reason: {chunk.finish_reason}")
try:
    result.get(timeout=10)
except TaskRevokedError as error:
    print(f"get() raises TaskRevokedError: {error}")
