"""A steady load of streamed requests, and what each reader checks."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tasks import generate
from tasks.engine.fake import fake_text
from tasks.errors import BrokerUnavailable, GenerationError, StreamTimeout

if TYPE_CHECKING:
    from tasks.client.result import GenerateResult

MODEL = "fake:20"
TOKENS = (20, 160)
READ_TIMEOUT_S = 120.0


@dataclass(slots=True)
class Reading:
    """What one reader saw: times of its chunks, and how it ended."""

    number: int
    tokens: int
    times: list[float] = field(default_factory=list)
    cuts: int = 0
    verdict: str = "running"
    detail: str = ""


class Load:
    """So many readers at once, each with one request after the other, until ``total`` were sent.

    Args:
        total: requests in all.
        readers: requests at once.
        seed: of the lengths of the answers.
    """

    def __init__(self, total: int, readers: int, seed: int) -> None:
        self.total = total
        self.readings: list[Reading] = []
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._cut = threading.Event()
        self._threads = [threading.Thread(target=self._read_on, daemon=True) for _ in range(readers)]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    @property
    def running(self) -> bool:
        """Whether requests are still on their way."""
        return any(thread.is_alive() for thread in self._threads)

    def running_now(self) -> list[Reading]:
        """The requests whose first token has come and whose end has not."""
        with self._lock:
            return [each for each in self.readings if each.verdict == "running" and each.times]

    def cut_a_reader(self) -> None:
        """Have the next reader that gets a chunk leave, and come back with a new stream."""
        self._cut.set()

    def _next(self) -> Reading | None:
        with self._lock:
            if len(self.readings) >= self.total:
                return None
            reading = Reading(len(self.readings), self._random.randint(*TOKENS))
            self.readings.append(reading)
            return reading

    def _read_on(self) -> None:
        while (reading := self._next()) is not None:
            self._read(reading)

    def _read(self, reading: Reading) -> None:
        prompt = f"chaos {reading.number}"
        try:
            result = self._submit(prompt, reading)
            indices, text, ends = self._stream(result.id, reading)
            stored = result.get(timeout=READ_TIMEOUT_S)["text"]
        except StreamTimeout as error:
            reading.verdict, reading.detail = "lost", str(error)
        except GenerationError as error:
            reading.verdict, reading.detail = "lost", f"{error.code}: {error}"
        except Exception as error:  # noqa: BLE001  (whatever it is, it is a finding and goes into the table)
            reading.verdict, reading.detail = "lost", repr(error)
        else:
            reading.verdict, reading.detail = judge(indices, text, stored, ends, prompt, reading)

    def _submit(self, prompt: str, reading: Reading) -> GenerateResult:
        while True:
            try:
                return generate.delay(prompt=prompt, model=MODEL, max_tokens=reading.tokens, seed=reading.number)
            except BrokerUnavailable:  # not accepted: the producer's to repeat
                time.sleep(0.2)

    def _stream(self, task_id: str, reading: Reading) -> tuple[list[int], str, int]:
        """Read to the end. A reader that is cut reads again from the beginning, as a page that was reloaded does."""
        while True:
            indices: list[int] = []
            text, ends = "", 0
            for chunk in generate.AsyncResult(task_id).stream(timeout=READ_TIMEOUT_S):
                reading.times.append(time.monotonic())
                indices.extend(range(chunk.index, chunk.index + len(chunk.ids)))
                text += chunk.text
                ends += chunk.finish_reason is not None
                if self._cut.is_set() and not ends:
                    self._cut.clear()
                    reading.cuts += 1
                    break
            else:
                return indices, text, ends


def judge(indices: list[int], text: str, stored: str, ends: int, prompt: str, reading: Reading) -> tuple[str, str]:
    """``ok``, or what is wrong: every index once and in order, the uninterrupted run's text, one end."""
    if len(set(indices)) < len(indices):
        return "repeated", f"indices {indices}"
    if indices != list(range(reading.tokens)) or ends != 1:
        return "lost", f"{len(indices)} of {reading.tokens} tokens, {ends} ends"
    wanted = fake_text(prompt, reading.number, reading.tokens)
    if text != wanted or stored != wanted:
        return "wrong", f"{text!r} and {stored!r} instead of {wanted!r}"
    return "ok", ""
