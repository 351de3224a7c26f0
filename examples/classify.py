"""One of a few words for each text, and how sure the model is: python examples/classify.py"""

from __future__ import annotations

import math

from celery import group

from celery_mlx import generate

LABELS = ["bug", "question", "praise"]
TEXTS = ["The app crashes when I print.", "How do I print?", "Printing is so easy, thank you!"]


def ask(text: str) -> list[dict[str, str]]:
    """The conversation about one text."""
    return [{"role": "user", "content": f"Is this a bug, a question or praise? One word.\n{text}"}]


# The answer is one of the labels, letter by letter: nothing has to be parsed, and nothing can be refused.
requests = (generate.s(messages=ask(text), choice=LABELS, temperature=0, max_tokens=8, logprobs=True) for text in TEXTS)
for text, answer in zip(TEXTS, group(requests).apply_async().get(), strict=True):
    sure = math.exp(sum(token["logprob"] for token in answer["logprobs"]))
    print(f"{answer['text']} ({sure:.0%} among the labels): {text}")
