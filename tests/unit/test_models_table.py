"""The table of architectures in docs/models.md, which ``make models`` makes."""

from __future__ import annotations

from benchmarks.models.matrix import Finding
from benchmarks.models.report import BEGIN, END, PAGE, as_markdown, versions


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
