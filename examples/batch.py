"""Many prompts at once, in submission order, with progress: python examples/batch.py 100"""

from __future__ import annotations

import sys
import time

from celery import group

from celery_mlx import generate
from celery_mlx.errors import QueueFull

count = int(sys.argv[1]) if len(sys.argv) > 1 else 20
requests = [
    generate.s(messages=[{"role": "user", "content": f"Name one thing that there are {n} of."}], max_tokens=24)
    for n in range(count)
]
results = []
for request in requests:
    while True:
        try:
            results.append(request.apply_async(priority=9))  # batch work: whatever is interactive goes first
            break
        except QueueFull as full:
            time.sleep(full.retry_after_s or 1)
waiting = list(results)
while waiting:
    waiting = [each for each in waiting if not each.ready()]
    print(f"\r{count - len(waiting)} of {count}", end="", flush=True)
    time.sleep(0.1)
print()
for number, result in enumerate(results):
    text = result.get()["text"].strip().replace("\n", " ")
    print(f"{number}: {text[:100]}")

# A group does the same in one call, where progress is not needed and the queue has room.
answers = group(requests[:2]).apply_async(priority=9).get()
print(f"the group answered {len(answers)}")
