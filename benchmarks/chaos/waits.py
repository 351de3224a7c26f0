"""``python -m benchmarks.chaos.waits``: groups, chords and sets of requests are waited for; none hangs, none has a wrong answer.

Members end before, while and after somebody asks: some are answered at once, and some take a while. Half of the runs are made by
eight threads at a time, the others one after the other.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.chaos.fleet import Fleet

if TYPE_CHECKING:
    from collections.abc import Callable

MODELS = ("fake:0", "fake:5")
MOST_MEMBERS = 50
THREADS = 8
#: A run that has no end by then hangs.
END_S = 60.0


def _group(signatures: list[Any]) -> list[Any]:
    from celery import group

    return group(signatures).apply_async().get(timeout=END_S)  # type: ignore[no-any-return]


def _join(signatures: list[Any]) -> list[Any]:
    from celery import group

    return group(signatures).apply_async().join(timeout=END_S)  # type: ignore[no-any-return]


def _later(signatures: list[Any]) -> list[Any]:
    """All have ended before anybody asks."""
    from celery import group

    result = group(signatures).apply_async()
    deadline = time.monotonic() + END_S
    while not result.ready() and time.monotonic() < deadline:
        time.sleep(0.05)
    return result.get(timeout=END_S)  # type: ignore[no-any-return]


def _set(signatures: list[Any]) -> list[Any]:
    from celery.result import ResultSet

    results = [signature.apply_async() for signature in signatures]
    return ResultSet(results).get(timeout=END_S)  # type: ignore[no-any-return]


def _nested(signatures: list[Any]) -> list[Any]:
    from celery import group

    half = len(signatures) // 2
    parts = group([group(signatures[:half]), group(signatures[half:])] if half else signatures)
    answers = parts.apply_async().get(timeout=END_S)
    return [answer for part in answers for answer in (part if isinstance(part, list) else [part])]


def _chord(signatures: list[Any]) -> list[Any]:
    """The members' answers, once the body has come, which has all of them in its prompt."""
    from celery import chord

    from tasks import generate

    result = chord(signatures)(generate.s(prompt="{previous}", model=MODELS[0], max_tokens=1))
    result.get(timeout=END_S)
    return result.parent.get(timeout=END_S)  # type: ignore[no-any-return]


WAYS: tuple[Callable[[list[Any]], list[Any]], ...] = (_group, _group, _later, _join, _set, _nested, _chord)


def _run(number: int, seed: int) -> str:
    """What was wrong with one run; empty if nothing was."""
    from celery.exceptions import TimeoutError as CeleryTimeoutError

    from tasks import generate
    from tasks.engine.fake import fake_text

    chance = random.Random(f"{seed} {number}")
    model, tokens = chance.choice(MODELS), chance.choice((1, 4))
    prompts = [f"wait {number} {member}" for member in range(chance.randint(1, MOST_MEMBERS))]
    way = chance.choice(WAYS)
    try:
        answers = way([generate.s(prompt=prompt, model=model, max_tokens=tokens) for prompt in prompts])
    except CeleryTimeoutError as error:
        return f"hung: {way.__name__} of {len(prompts)}: {error}"
    except Exception as error:  # noqa: BLE001  (whatever it is, it is a finding)
        return f"failed: {way.__name__} of {len(prompts)}: {error!r}"
    if [answer["text"] for answer in answers] != [fake_text(prompt, None, tokens) for prompt in prompts]:
        return f"wrong: {way.__name__} of {len(prompts)}"
    return ""


def main() -> int:
    """Wait, and count what went wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos.waits", description=__doc__)
    parser.add_argument("--runs", type=int, default=1_000, help="groups to wait for (1000)")
    parser.add_argument("--seed", type=int, default=1, help="of their sizes and ways (1)")
    options = parser.parse_args()
    begun = time.monotonic()
    half = options.runs // 2
    with tempfile.TemporaryDirectory(prefix="waits-") as folder, Fleet(Path(folder), 1, 64):
        faults = [_run(number, options.seed) for number in range(half)]
        with ThreadPoolExecutor(THREADS) as threads:
            faults += threads.map(lambda number: _run(number, options.seed), range(half, options.runs))
    found = Counter(fault.partition(":")[0] for fault in faults if fault)
    took_s = time.monotonic() - begun
    counts = ", ".join(f"{found[kind]} {kind}" for kind in ("hung", "wrong", "failed"))
    print(f"{options.runs} runs of groups of 1 to {MOST_MEMBERS} in {took_s:.0f} s: {counts}")
    for fault in [fault for fault in faults if fault][:10]:
        print(fault)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
