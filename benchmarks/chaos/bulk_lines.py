"""What a bulk job's lines ask for in the storm, and which answers are right."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FAKE = "fake:0"
TOKENS = 5
ENCODER = "all-minilm-l6-v2"
#: Every so many vectors are compared with those of an undisturbed fleet.
COMPARED_EVERY = 50
PER_REQUEST = 50
TOLERANCE = 1e-4


class Lines(Protocol):
    """A kind of lines, by their numbers."""

    def environment(self, folder: Path) -> dict[str, str]:
        """Variables of the fleet; files that they name are made in this folder."""

    def learn(self, count: int) -> None:
        """Ask the undisturbed fleet what there is to know of so many lines."""

    def line(self, number: int) -> dict[str, Any]:
        """The line, without its id."""

    def is_right(self, number: int, record: dict[str, Any]) -> bool:
        """Whether this is its answer."""


class Texts:
    """Five tokens each of the fake engine."""

    def environment(self, folder: Path) -> dict[str, str]:
        """None."""
        del folder
        return {}

    def learn(self, count: int) -> None:
        """Nothing: the fake engine's answers can be computed."""

    def line(self, number: int) -> dict[str, Any]:
        """A plain line."""
        return {"id": f"l{number}", "prompt": f"bulk {number}", "model": FAKE, "max_tokens": TOKENS}

    def is_right(self, number: int, record: dict[str, Any]) -> bool:
        """Whether it is the fake engine's text."""
        from tasks.engine.fake import fake_text

        return bool(record.get("text") == fake_text(f"bulk {number}", None, TOKENS))


class Vectors:
    """A vector each of all-MiniLM-L6-v2, a real model (:mod:`benchmarks.parts.minilm` fetches it)."""

    def __init__(self) -> None:
        self._known: dict[int, Sequence[float]] = {}

    def environment(self, folder: Path) -> dict[str, str]:
        """A catalogue with the model."""
        from benchmarks.parts.minilm import fetched_minilm

        catalogue = folder / "catalogue.toml"
        source = json.dumps(str(fetched_minilm()))
        catalogue.write_text(f'[[models]]\nname = "{ENCODER}"\nsource = {source}\nparameters_b = 0.0227\n')
        return {"CELERY_MLX_CATALOGUE": str(catalogue), "CELERY_MLX_MODELS": ENCODER}

    def learn(self, count: int) -> None:
        """Vectors of some lines."""
        from tasks import embed

        numbers = list(range(0, count, COMPARED_EVERY))
        for start in range(0, len(numbers), PER_REQUEST):
            page = numbers[start : start + PER_REQUEST]
            answer = embed.delay(input=[_text(number) for number in page], model=ENCODER).get(timeout=300)
            self._known.update(zip(page, (item["embedding"] for item in answer["data"]), strict=True))

    def line(self, number: int) -> dict[str, Any]:
        """A line of OpenAI's."""
        body = {"input": _text(number), "model": ENCODER}
        return {"custom_id": f"l{number}", "method": "POST", "url": "/v1/embeddings", "body": body}

    def is_right(self, number: int, record: dict[str, Any]) -> bool:
        """Whether it is a vector of unit length, and the known one where one is known."""
        response = record.get("response") or {}
        if response.get("status_code") != 200:
            return False
        (item,) = response["body"]["data"]
        vector = item["embedding"]
        known = self._known.get(number, vector)
        return abs(math.hypot(*vector) - 1) < TOLERANCE and math.dist(vector, known) < TOLERANCE


def _text(number: int) -> str:
    return (
        f"Shelf {number} of the library has books on the {number % 97} kinds of moss that grow on roof {number % 1009}."
    )
