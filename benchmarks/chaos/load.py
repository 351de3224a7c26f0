"""A steady load of requests that are read in several ways."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from typing import TYPE_CHECKING

import redis

from benchmarks.chaos.judge import Reading, Seen, Way, judge
from benchmarks.chaos.mix import Said, said
from tasks import generate
from tasks.errors import BrokerUnavailable, GenerationError, StreamTimeout

if TYPE_CHECKING:
    from benchmarks.chaos.mix import Mix
    from tasks.client.result import GenerateResult


class Load:
    """So many readers at once, each with one request after the other, until ``total`` were sent.

    Args:
        mix: what is asked for.
        total: requests in all.
        readers: requests at once.
        seed: of the lengths of the answers and of the ways they are read.
        end_s: no way of reading may take longer, whatever happens to the fleet meanwhile.
    """

    def __init__(self, mix: Mix, total: int, readers: int, seed: int, end_s: float) -> None:
        self._mix = mix
        self.total = total
        self.end_s = end_s
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
            return [reading for reading in self.readings if reading.verdict == "running" and reading.times]

    def cut_a_reader(self) -> None:
        """Have the next reader that gets a chunk leave, and come back with a new stream."""
        self._cut.set()

    def audit(self) -> None:
        """Read every answer once more, by its id alone, as a program does that comes later."""
        for reading in self.readings:
            if reading.verdict == "ok" and reading.way is not Way.CANCELLED:
                try:
                    self._look_again(reading)
                except Exception as error:  # noqa: BLE001  (as while they are read)
                    reading.verdict, reading.detail = "lost", f"later: {error!r}"

    def _look_again(self, reading: Reading) -> None:
        answer = generate.AsyncResult(reading.task_id).get(timeout=self.end_s)
        wanted = self._mix.wanted(reading)
        if wanted is not None and said(answer) != wanted.text:
            reading.verdict = "wrong"
            reading.detail = f"later its result is {said(answer)!r} instead of {wanted.text!r}"
        elif fault := self._mix.fault(reading, answer):
            reading.verdict, reading.detail = "invalid", fault

    def _next(self) -> Reading | None:
        with self._lock:
            if len(self.readings) >= self.total:
                return None
            reading = self._mix.reading(len(self.readings), self._random)
            self.readings.append(reading)
            return reading

    def _read_on(self) -> None:
        while (reading := self._next()) is not None:
            self._read(reading)

    def _read(self, reading: Reading) -> None:
        try:
            reading.verdict, reading.detail = judge(self._see(reading), self._mix.wanted(reading), reading)
        except StreamTimeout as error:
            reading.verdict, reading.detail = "hung", str(error)
        except GenerationError as error:
            reading.verdict, reading.detail = "lost", f"{error.code}: {error}"
        except Exception as error:  # noqa: BLE001  (whatever it is, it is a finding and goes into the table)
            kind = "hung" if "Timeout" in type(error).__name__ else "lost"
            reading.verdict, reading.detail = kind, repr(error)

    def _see(self, reading: Reading) -> Seen:
        result = self._submit(reading)
        match reading.way:
            case Way.LATE:
                stored = said(result.get(timeout=self.end_s))
                seen = self._stream(result, reading)
                seen.stored = stored
            case Way.BESIDE:
                seen, answers = Seen([], "", []), []
                waiter = threading.Thread(
                    target=lambda: answers.append(said(result.get(timeout=self.end_s))), daemon=True
                )
                waiter.start()
                seen = self._stream(result, reading)
                waiter.join(self.end_s)
                seen.stored = answers[0] if answers else None
            case Way.CANCELLED:
                seen = self._stream(result, reading, cancel_at=reading.tokens // 2)
                seen.state = self._state(result)
                if seen.state == "SUCCESS":
                    seen.stored = said(result.get(timeout=self.end_s))
            case Way.STREAM:
                seen = self._stream(result, reading)
                seen.stored = said(result.get(timeout=self.end_s))
        return seen

    def _submit(self, reading: Reading) -> GenerateResult:
        while True:
            try:
                result = generate.delay(**self._mix.parameters(reading))
            except BrokerUnavailable:  # not accepted: the producer's to repeat
                time.sleep(0.2)
            else:
                reading.task_id = result.id
                return result

    def _stream(self, result: GenerateResult, reading: Reading, cancel_at: int | None = None) -> Seen:
        """Read to the end. A reader that is cut reads again from the beginning, as a page that was reloaded does."""
        while True:
            seen, heard = Seen([], "", []), Said()
            for chunk in generate.AsyncResult(result.id).stream(timeout=self.end_s):
                reading.times.append(time.monotonic())
                seen.indices.extend(range(chunk.index, chunk.index + len(chunk.ids)))
                heard.add(chunk)
                if chunk.finish_reason is not None:
                    seen.finish_reasons.append(chunk.finish_reason)
                if cancel_at is not None and len(seen.indices) >= cancel_at:
                    cancel_at = None
                    self._revoke(result)
                if self._cut.is_set() and not seen.finish_reasons:
                    self._cut.clear()
                    reading.cuts += 1
                    break
            else:
                seen.text = str(heard)
                return seen

    @staticmethod
    def _revoke(result: GenerateResult) -> None:
        """Cancel, and try again where Redis was away; after a second time the request may as well run to its end."""
        for _ in range(2):
            try:
                result.revoke(terminate=True)
            except BrokerUnavailable:
                time.sleep(1)
            else:
                return

    def _state(self, result: GenerateResult) -> str:
        """The result's state, once it is one."""
        deadline = time.monotonic() + self.end_s
        while time.monotonic() < deadline:
            with contextlib.suppress(
                redis.ConnectionError, redis.TimeoutError
            ):  # Celery's own look, while Redis is away
                if result.ready():
                    return str(result.state)
            time.sleep(0.05)
        raise StreamTimeout(f"{result.id} has no result {self.end_s:g} s after its stream ended")
