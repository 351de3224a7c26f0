"""``python -m benchmarks.since COMMIT``: what an engine costs now and what it cost at a commit, in turns in one run.

Load is from the start of the engine's process until it is ready, with the trial of the model. Decoding is of 16 rows of the
bundled model.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.contenders import engine
from tasks.demo.bundled import ensure_model

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[1]
#: What each figure may be, now over then.
BOUNDS = {
    "load_s": (0.0, 1.1),
    "tokens_per_s": (0.98, float("inf")),
    "processor_s": (0.0, 1.1),
    "peak_memory": (0.0, 1.02),
}
TURN_S = 300


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure both; 1 if a figure is out of its bounds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.since", description=__doc__)
    parser.add_argument("commit")
    parser.add_argument("--turns", type=int, default=9, help="how often each is measured")
    options = parser.parse_args(arguments)
    model = ensure_model(lambda *_: None)
    with tempfile.TemporaryDirectory() as folder:
        then = Path(folder, "then")
        _git("worktree", "add", "--detach", "--quiet", str(then), options.commit)
        try:
            seen = _measure(then, model, options.turns)
        finally:
            _git("worktree", "remove", "--force", str(then))
    return _tell(options.commit, seen)


def _measure(then: Path, model: Path, turns: int) -> dict[str, list[dict[str, float]]]:
    """Back and forth, so that a drift of the machine meets both; the first turn of each warms the disk's cache."""
    checkouts = {"then": then, "now": ROOT}
    seen: dict[str, list[dict[str, float]]] = {name: [] for name in checkouts}
    for turn in range(turns + 1):
        for name in sorted(checkouts, reverse=turn % 2 == 0):
            figures = _turn(checkouts[name], model)
            if turn:
                seen[name].append(figures)
                print(f"{turn} of {turns}, {name}: {figures}", flush=True)
    return seen


def _turn(checkout: Path, model: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, engine.__file__, str(model)],
        env={**os.environ, "PYTHONPATH": str(checkout)},
        cwd=checkout,
        stdout=subprocess.PIPE,
        text=True,
        timeout=TURN_S,
        check=True,
    )
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _tell(commit: str, seen: dict[str, list[dict[str, float]]]) -> int:
    out = 0
    for name, (least, most) in BOUNDS.items():
        then, now = (median(figures[name] for figures in seen[which]) for which in ("then", "now"))
        inside = least <= now / then <= most
        out |= not inside
        print(
            f"{name}: {now:.3g} now, {then:.3g} at {commit}, ratio {now / then:.3f}{'' if inside else ' (out of bounds)'}"
        )
    return out


def _git(*arguments: str) -> None:
    subprocess.run(["git", "-C", str(ROOT), *arguments], check=True)


if __name__ == "__main__":
    sys.exit(main())
