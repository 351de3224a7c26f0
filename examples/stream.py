"""Stream an answer to the terminal: python examples/stream.py "Why is the sky blue?" """

from __future__ import annotations

import sys

from celery_mlx import generate

question = " ".join(sys.argv[1:]) or "What is photosynthesis?"
result = generate.delay(messages=[{"role": "user", "content": question}], max_tokens=128)
for chunk in result.stream(idle_timeout=120):
    if chunk.kind == "content":  # the answer; "reasoning" is what the model thinks
        print(chunk.text, end="", flush=True)
answer = result.get()
print(f"\n\n{answer['finish_reason']}: {answer['usage']['completion_tokens']} tokens by {answer['worker']}")
