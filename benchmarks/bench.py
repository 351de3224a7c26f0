"""What every row is given: a Redis, a folder for logs, and a way to measure contenders in turns."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from benchmarks.figures import Findings, Samples

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from redis import Redis

    from benchmarks.figures import Metrics
    from tasks.demo.embedded import EmbeddedServer

    #: Measures once; is given the number of the repeat.
    Measure: TypeAlias = Callable[[int], Metrics]


@dataclass(slots=True, frozen=True)
class Bench:
    """One run of the benchmarks.

    Args:
        server: an empty private server; this process's Celery application is connected to it.
        client: a client of it, whose answers are bytes.
        folder: where logs go; it is removed after the run.
        repeats: how often each contender is measured.
        quick: whether the row only has to show that it works.
        say: is told what is being done.
    """

    server: EmbeddedServer
    client: Redis
    folder: Path
    repeats: int
    quick: bool
    say: Callable[[str], None]

    def size(self, full: int, quick: int) -> int:
        """How much to do."""
        return quick if self.quick else full

    def in_turns(self, about: str, contenders: Mapping[str, Measure]) -> Samples:
        """Measure each contender once in each repeat, back and forth, so that a drift of the machine meets them all."""
        # A full garbage collection over all that was imported, at the latest by the row's first requests, takes 40 to 70 ms, and
        # every reader of this process waits for it.
        gc.collect()
        gc.freeze()
        samples = Samples()
        for number in range(self.repeats):
            names = list(contenders)
            for name in reversed(names) if number % 2 else names:
                self.say(f"{about}: {name} ({number + 1} of {self.repeats})")
                samples.add(name, contenders[name](number))
        return samples


@dataclass(slots=True, frozen=True)
class Row:
    """A family of figures that share their set-up."""

    name: str
    about: str
    measure: Callable[[Bench, Findings], None]

    def run(self, bench: Bench) -> Findings:
        """Measure; an error ends the row and not the run."""
        findings = Findings(self.name, self.about, judged=not bench.quick)
        started = time.monotonic()
        try:
            self.measure(bench, findings)
        except Exception as error:  # whatever is wrong with one row, the others' figures are worth having  # noqa: BLE001
            findings.error = f"{type(error).__name__}: {error}"
        findings.seconds = time.monotonic() - started
        return findings
