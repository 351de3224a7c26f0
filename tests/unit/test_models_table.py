"""The table of architectures in docs/models.md, which ``make models`` makes."""

from __future__ import annotations

import pytest

from benchmarks.models.matrix import Finding
from benchmarks.models.memory import LENGTHS_TOKENS, RowBytes, rows_of
from benchmarks.models.report import BEGIN, END, MEMORY_BEGIN, MEMORY_END, PAGE, as_markdown, memory_table, versions
from benchmarks.models.tiny import architectures, config, left_out, variants
from tasks.models.kv_cache import kv_size

#: mlx-lm computes these on a GPU alone, or not without another package, or keeps a cache of the model's own kind.
NOT_MEASURED = frozenset({"bitnet", "olmo", "deepseek_v41", *left_out()})


def test_the_table_is_of_the_installed_versions() -> None:
    """Another mlx-lm may break an architecture, or repair one: the page says for which version it holds."""
    page = PAGE.read_text(encoding="utf-8")
    assert f"With {versions()}, " in page.partition(BEGIN)[2].partition(END)[0], "run `make models`"


def test_what_is_wrong_stands_out() -> None:
    """Whatever is not served as most are has a row of its own; the rest are names."""
    findings = [
        Finding("plain", "padded", differences={"alone": 0.0, "burst": 2e-6}),
        Finding("pieces", "equal", "a reason", "Arrays", {"alone": 1e-6}),
        Finding("wrong", "padded", "", "KV", {"alone": 0.0, "burst": 0.25}),
        Finding("broken", error="ValueError: no"),
    ]
    text = as_markdown(findings, {"absent": "another reason"})
    assert "of 5 architectures and variants 2 compute" in text
    assert "| pieces | Arrays | together, prompts in equal pieces | a reason | 1e-06 |" in text
    assert "| wrong | KV | together |  | **0.2** |" in text
    assert "| broken |  | **no** | ValueError: no | |" in text
    assert "| absent | | **not tried** | another reason | |" in text
    assert "nothing to say: plain." in text


def _memory_on_the_page() -> dict[str, list[RowBytes]]:
    lines = PAGE.read_text(encoding="utf-8").partition(MEMORY_BEGIN)[2].partition(MEMORY_END)[0].strip().splitlines()
    rows = {}
    for line in lines[2:]:
        name, *cells = (cell.strip() for cell in line.strip("|").split(" | "))
        figures = [int(cell.replace(",", "")) for cell in cells if "," in cell or "." not in cell]
        pairs = zip(LENGTHS_TOKENS, figures[::2], figures[1::2], strict=True)
        rows[name] = [RowBytes(*pair) for pair in pairs]
    return rows


def test_the_memory_on_the_page_is_what_a_worker_reserves() -> None:
    """Of every architecture, as it is estimated today, and within five percent of what was measured."""
    rows = _memory_on_the_page()
    assert rows.keys() == {*architectures(), *variants()} - NOT_MEASURED, "run `make models`"
    for name, found in rows.items():
        estimate = kv_size(config(name)[1])
        assert estimate is not None
        for row in found:
            assert row.estimated == estimate.row_bytes(row.tokens), f"{name}: run `make models`"
            assert row.estimated == pytest.approx(row.measured, rel=0.05), name


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "nemotron_h"])
def test_the_memory_on_the_page_is_measured_here(name: str) -> None:
    """Plain caches, windows and states: the table has what mlx-lm's arrays take."""
    assert _memory_on_the_page()[name] == rows_of(name)
    assert memory_table({name: rows_of(name)}).splitlines()[2] in PAGE.read_text(encoding="utf-8")
