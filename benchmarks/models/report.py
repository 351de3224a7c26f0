"""What ``make models`` found, as the part of docs/models.md between two comments."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.models.memory import LENGTHS_TOKENS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.models.matrix import Finding
    from benchmarks.models.memory import RowBytes

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
BEGIN, END = "<!-- made by `make models` -->\n", "<!-- end of what `make models` made -->\n"
MEMORY_BEGIN, MEMORY_END = "<!-- memory, by `make models` -->\n", "<!-- end of memory -->\n"
PACKAGES = ("mlx-lm", "mlx", "transformers")
SERVED = {"padded": "together", "equal": "together, prompts in equal pieces", "apart": "one by one"}


def write(findings: Sequence[Finding], left_out: dict[str, str], memory: Mapping[str, Sequence[RowBytes]]) -> None:
    """Put the findings, and what caches take, into the page."""
    text = PAGE.read_text(encoding="utf-8")
    text = _with_part(text, BEGIN, as_markdown(findings, left_out), END)
    PAGE.write_text(_with_part(text, MEMORY_BEGIN, memory_table(memory), MEMORY_END), encoding="utf-8")


def _with_part(text: str, begin: str, part: str, end: str) -> str:
    before, _, rest = text.partition(begin)
    return f"{before}{begin}\n{part}\n{end}{rest.partition(end)[2]}"


def versions() -> str:
    """The packages that a table holds for."""
    return ", ".join(f"{name} {version(name)}" for name in PACKAGES)


def as_markdown(findings: Sequence[Finding], left_out: dict[str, str]) -> str:
    """A paragraph with the counts, a table of what is not served as most are, and the names of the rest."""
    right = [finding for finding in findings if finding.is_right]
    padded = [finding.name for finding in right if finding.batching == "padded"]
    others = [finding for finding in findings if finding.name not in padded]
    in_slots = sum(finding.slots for finding in right)
    worst = max((max(finding.differences.values(), default=0.0) for finding in right), default=0.0)
    counts = ", ".join(
        f"{sum(finding.batching == batching for finding in right)} {served}" for batching, served in SERVED.items()
    )
    summary = (
        f"With {versions()}, in single precision on a CPU: of {len(findings) + len(left_out)} architectures and variants "
        f"{len(right)} compute for rows in company what they compute for each alone ({counts}; "
        f"{in_slots} of the first also in slots, where a step may bring a row several tokens). The largest difference of "
        f"their logits is {worst:.1g}."
    )
    lines = [
        summary,
        "",
        "| architecture | caches | is served | because | largest difference |",
        "|---|---|---|---|---|",
        *(_row(finding) for finding in others),
        *(f"| {name} | | **not tried** | {why} | |" for name, why in sorted(left_out.items())),
        "",
        f"Together, with nothing to say: {', '.join(padded)}.",
        "",
    ]
    return "\n".join(lines)


def _row(finding: Finding) -> str:
    if finding.error:
        return f"| {finding.name} | {finding.caches} | **no** | {finding.error} | |"
    served = SERVED[finding.batching] if finding.batching is not None else ""
    worst = f"{max(finding.differences.values(), default=0.0):.1g}"
    return f"| {finding.name} | {finding.caches} | {served} | {finding.why} | {worst if finding.is_right else f'**{worst}**'} |"


def memory_table(memory: Mapping[str, Sequence[RowBytes]]) -> str:
    """A row for each architecture: bytes by the configuration and of the arrays, and the first as a share of the second."""
    heads = "".join(f" estimate, {tokens:,} tokens | measured | ratio |" for tokens in LENGTHS_TOKENS)
    lines = [f"| architecture |{heads}", f"|---|{'---|' * 3 * len(LENGTHS_TOKENS)}"]
    lines += [f"| {name} | {' | '.join(map(_shown, rows))} |" for name, rows in memory.items()]
    return "\n".join([*lines, ""])


def _shown(row: RowBytes) -> str:
    return f"{row.estimated:,} | {row.measured:,} | {row.estimated / row.measured:.3f}"
