"""One request in the sampler: its parameters, and the state of its penalties and its grammar."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING

import mlx.core as mx

from tasks.engine.sampling import drawing
from tasks.engine.sampling.barred import NONE_BARRED

if TYPE_CHECKING:
    from collections.abc import Mapping
    from random import Random

    import numpy as np
    import numpy.typing as npt

    from tasks.engine.constraint.grammar import Matcher
    from tasks.engine.generation.runner import Draw
    from tasks.engine.sampling.barred import Barred
    from tasks.messages.engine import Sampling

#: Below this a temperature is 0: it tells logits apart that single precision does not.
LOWEST_TEMPERATURE = 1e-5


@dataclass(slots=True, frozen=True)
class Entry:
    """One row of an array on the device. Rows that stay together share their array, so nothing is copied."""

    array: mx.array
    index: int


def stack(entries: list[Entry]) -> mx.array:
    """One array of these rows."""
    array = entries[0].array
    if len(entries) == len(array) and all(entry.array is array and entry.index == n for n, entry in enumerate(entries)):
        return array
    return mx.stack([entry.array[entry.index] for entry in entries])


class Row:
    """One request. ``position`` counts its draws, those of earlier attempts included.

    ``counts`` says of each token how often the row generated it, ``seen`` after how many tokens of prompt and answer it
    came last (0: never); ``None`` where no penalty asks. Both lack the ``latest`` token drawn here, which may still be on
    the device alone.
    """

    __slots__ = (
        *(
            "_barred",
            "counts",
            "has_drawn",
            "latest",
            "matcher",
            "position",
            "prompt_tokens",
            "sampling",
            "seen",
            "uid",
        ),
        "vocabulary",
    )

    def __init__(
        self,
        uid: int,
        sampling: Sampling,
        prompt: list[int],
        generated: list[int],
        vocabulary: int,
        barred: Barred = NONE_BARRED,
    ) -> None:
        self._barred = barred
        self.uid = uid
        self.sampling = sampling
        self.vocabulary = vocabulary
        self.prompt_tokens = len(prompt)
        self.position = len(generated)
        self.has_drawn = False
        self.latest = Entry(mx.zeros(1, dtype=mx.uint32), 0)
        self.matcher: Matcher | None = None
        self.counts: Entry | None = None
        self.seen: Entry | None = None
        if sampling.presence_penalty or sampling.frequency_penalty:
            self.counts = Entry(_dense(Counter(generated), vocabulary), 0)
        if sampling.repetition_penalty != 1:
            places = {token_id: n for n, token_id in enumerate(chain(prompt, generated), start=1)}
            self.seen = Entry(_dense(places, vocabulary), 0)

    @property
    def context_tokens(self) -> int:
        """Tokens of prompt and answer so far."""
        return self.prompt_tokens + self.position

    @property
    def bias(self) -> Mapping[int, float]:
        """The bias of its logits in the next draw, by token."""
        return self._barred.bias(self.sampling.logit_bias, first=self.position == 0)

    @property
    def begins_otherwise(self) -> bool:
        """Whether the draw behind the next one has another bias."""
        return self.position == 0 and bool(self._barred.first)

    @property
    def is_random(self) -> bool:
        """Whether its token is drawn, and not the likeliest one."""
        return self.sampling.temperature >= LOWEST_TEMPERATURE and self.sampling.top_k != 1

    @property
    def is_ranked(self) -> bool:
        """Whether ``top_k`` leaves tokens out."""
        return 0 < self.sampling.top_k < self.vocabulary

    @property
    def is_nucleus(self) -> bool:
        """Whether ``top_p`` looks at the whole vocabulary."""
        return self.sampling.top_p < 1 and not self.is_ranked

    @property
    def is_penalised(self) -> bool:
        """Whether its earlier tokens change its logits: a draft would have to change its memory of them."""
        return self.counts is not None or self.seen is not None

    def take(self, token: Entry) -> None:
        """Note the token that was drawn."""
        self.latest = token
        self.has_drawn = True
        self.position += 1

    def advanced(self, draw: Draw) -> Draw:
        """A draw of this row that has been read, with its grammar gone on by it."""
        if self.matcher is None:
            return draw
        self.matcher.take(draw.token)
        self.matcher.note()
        return replace(draw, complete=self.matcher.complete, fault=self.matcher.error)

    def random_words(self, entropy: Random) -> npt.NDArray[np.uint32]:
        """The random bits of the next draw: of the seed and its number, else of ``entropy``."""
        seed = entropy.getrandbits(64) if self.sampling.seed is None else self.sampling.seed
        return drawing.random_words(seed, self.position, drawing.numbers_for(self.vocabulary))


def _dense(numbers: dict[int, int], vocabulary: int) -> mx.array:
    """A row of zeros but for these, ``[1, vocabulary]``."""
    row = mx.zeros((1, vocabulary))
    if numbers:
        row[0, mx.array(list(numbers))] = mx.array(list(numbers.values()), dtype=mx.float32)
    return row
