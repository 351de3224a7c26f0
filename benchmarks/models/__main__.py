"""``make models``: which of mlx-lm's architectures are served rightly, and how."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from benchmarks.models.matrix import Finding, examine
from benchmarks.models.memory import rows_of
from benchmarks.models.report import PAGE, write
from benchmarks.models.tiny import architectures, build, left_out, variants

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.models.memory import RowBytes

#: What cannot be computed here for a reason that is not ours: it is in the table, and no failure of this command.
EXPECTED = frozenset({"bitnet", "olmo"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Examine the architectures that were named, or all of them; 1 if one of them is served wrongly."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.models", description=__doc__)
    parser.add_argument("names", nargs="*", help="architectures or variants; all of them if left out")
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.name}")
    options = parser.parse_args(arguments)
    without = left_out()
    names = options.names or [name for name in (*architectures(), *variants()) if name not in without]
    findings = []
    for name in names:
        started = time.monotonic()
        findings.append(finding := _examine(name))
        _show(finding, time.monotonic() - started)
    if options.write:
        write(findings, without, _memory(names))
    wrong = [finding.name for finding in findings if not finding.is_right and finding.name not in EXPECTED]
    print(
        f"{len(findings) - len(wrong)} of {len(findings)} as expected"
        + (f"; wrong: {', '.join(wrong)}" if wrong else "")
    )
    return 1 if wrong else 0


def _examine(name: str) -> Finding:
    try:
        model = build(name)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - what a module raises is what is found
        return Finding(name, error=f"{type(error).__name__}: {error}")
    return examine(name, model)


def _memory(names: Sequence[str]) -> dict[str, list[RowBytes]]:
    """What caches take, of all models whose shapes can be had here."""
    found = {}
    for name in names:
        with suppress(Exception, SystemExit):  # the table of architectures says why
            found[name] = rows_of(name)
    return found


def _show(finding: Finding, seconds: float) -> None:
    cells = " ".join(f"{scenario} {value:.1g}" for scenario, value in finding.differences.items())
    verdict = "right" if finding.is_right else "WRONG"
    print(f"{verdict} {finding.name} ({finding.batching}): {cells}{finding.error} [{seconds:.1f} s]", flush=True)


if __name__ == "__main__":
    sys.exit(main())
