"""Ask several questions at once and say which worker answered each: python examples/failover.py [NUMBER]

Kill a worker while it runs: its answers go on with another one, after their last token.
"""

from __future__ import annotations

import sys
from itertools import cycle, islice

from celery_mlx import generate

QUESTIONS = ("What is gravity?", "What is photosynthesis?", "Why is the sky blue?", "What is a volcano?")

number = int(sys.argv[1]) if len(sys.argv) > 1 else 12
results = [
    (question, generate.delay(messages=[{"role": "user", "content": question}], max_tokens=200, temperature=0))
    for question in islice(cycle(QUESTIONS), number)
]
print(f"{number} questions are sent", flush=True)
for question, result in results:
    answer = result.get(timeout=600)
    tokens = answer["usage"]["completion_tokens"]
    print(f"{question}  {tokens} tokens by {answer['worker']}, attempt {answer['attempt']}", flush=True)
