"""Many prompts at once, on idle slots, with progress: python examples/batch.py 100"""

from __future__ import annotations

import sys
from typing import Any

from celery import group

from celery_mlx import generate

count = int(sys.argv[1]) if len(sys.argv) > 1 else 20
requests: list[dict[str, Any]] = [
    {"id": str(n), "messages": [{"role": "user", "content": f"Name one thing that there are {n} of."}]}
    for n in range(count)
]
answers = {}
# Interactive requests go first. With a path as the second argument of bulk the answers are written there, and the same call
# continues a job that was killed.
for line in generate.bulk(requests, max_tokens=24):
    answers[line.id] = line.text if line.error is None else f"failed: {line.error}"
    print(f"\r{len(answers)} of {count}", end="", flush=True)
print()
for request in requests:
    text = answers[request["id"]].strip().replace("\n", " ")
    print(f"{request['id']}: {text[:100]}")

# A group waits for all its answers in one call, where the queue has room for it.
together = group(generate.s(prompt=f"{n} is", max_tokens=4) for n in range(2)).apply_async(priority=9).get()
print(f"the group answered {len(together)}")
