from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest

from benchmarks.bench import Row
from benchmarks.charts import draw, nice_ceiling
from benchmarks.figures import Chart, Findings, Samples, at_least, at_most
from benchmarks.load import Load, Reading, Request, closed_loop, greedy, mixed
from benchmarks.report import Run, as_json, as_markdown


def run_of(findings: Findings) -> Run:
    return Run(
        command="python -m benchmarks",
        started_at="2026-01-01T00:00:00+00:00",
        seconds=60,
        repeats=3,
        quick=False,
        machine={"cpu_cores": 2},
        versions={"python": "3.11"},
        rows=[findings],
    )


def test_a_ratio_pairs_what_was_measured_in_the_same_repeat() -> None:
    """A machine that is slow for one whole turn changes no ratio."""
    samples = Samples()
    for ours, theirs in ((100, 50), (10, 5), (80, 40)):
        samples.add("ours", {"tokens_per_s": ours})
        samples.add("theirs", {"tokens_per_s": theirs})
    assert samples.ratio("ours", "theirs", "tokens_per_s") == [2, 2, 2]
    assert samples.median("ours", "tokens_per_s") == 80
    assert samples.median("nobody", "tokens_per_s") is None


@pytest.mark.parametrize(("target", "reached"), [(at_least(2), True), (at_least(2.5), False), (at_most(2, 1), True)])
def test_the_median_is_held_against_the_target(target: object, reached: bool) -> None:
    """One bad repeat fails no figure, and the bound itself is within it."""
    findings = Findings("row", "about")
    findings.figure("figure", [1, 2, 9], target=target)  # type: ignore[arg-type]
    assert findings.figures[0].reached is reached


def test_a_load_that_targets_are_not_meant_for_is_not_judged() -> None:
    """A quick run's figures carry no verdict."""
    findings = Findings("row", "about", judged=False)
    findings.figure("figure", [1], target=at_least(2))
    assert findings.figures[0].reached is None


def test_a_report_shows_median_spread_target_and_verdict() -> None:
    """The table has what a reader judges a figure by, and says plainly where it falls short."""
    findings = Findings("relay", "About it.")
    findings.figure("tokens/s, ours | bare", [0.4, 0.45, 0.7], target=at_least(0.5, 0.8))
    findings.measured("ours", [12345.6], "tokens/s")
    findings.chart("Relayed", "tokens/s", ["1"], {"ours": [1.0]})
    report = as_markdown(run_of(findings))
    assert "| tokens/s, ours \\| bare | 0.45 | 0.4 … 0.7 | ≥ 0.5 | 0.8 | **no** |" in report
    assert "| ours | 12,346 tokens/s | 12,346 … 12,346 |" in report
    assert "![Relayed](relay-relayed.svg)" in report


def test_the_json_keeps_every_value() -> None:
    """Programs can compute their own statistics."""
    findings = Findings("relay", "About it.")
    findings.figure("figure", [3, 1, 2], "ms", at_most(2))
    figure = as_json(run_of(findings))["rows"][0]["figures"][0]
    assert figure == {
        "name": "figure",
        "unit": "ms",
        "values": [3, 1, 2],
        "median": 2,
        "lowest": 1,
        "highest": 3,
        "target": {"kind": "at most", "must": 2, "aim": None},
        "reached": True,
    }


def test_a_row_that_fails_keeps_what_it_has_found() -> None:
    """One broken row costs neither its own earlier figures nor the rows after it."""

    def measure(_bench: object, found: Findings) -> None:
        found.figure("first", [1])
        raise RuntimeError("no such luck")

    findings = Row("row", "about", measure).run(type("Quick", (), {"quick": True})())
    assert findings.error == "RuntimeError: no such luck"
    assert [figure.name for figure in findings.figures] == ["first"]
    assert "**It failed**: RuntimeError: no such luck" in as_markdown(run_of(findings))


def test_bars_are_as_tall_as_their_values() -> None:
    """A value twice as large has a bar twice as tall; a missing one has none; names cannot break the file."""
    svg = draw(Chart("A & B", "ms", ["<3B", "7B"], {"ours": [10.0, 5.0], "peer": [None, 20.0]}))
    root = ET.fromstring(svg)  # noqa: S314  (drawn here)
    bars = [node for node in root.iter() if node.tag.endswith("rect") and len(node)]
    heights = [float(bar.attrib["height"]) for bar in bars]
    assert len(heights) == 3
    assert heights[0] == pytest.approx(2 * heights[1])
    assert heights[2] == pytest.approx(2 * heights[0])
    assert re.search("ours, &lt;3B: 10 ms", svg)


@pytest.mark.parametrize(("value", "ceiling"), [(0.03, 0.05), (1, 1), (101, 200), (240, 250), (6000, 10000)])
def test_scales_end_at_a_round_number(value: float, ceiling: float) -> None:
    """The largest value fits, with a scale that divides well."""
    assert nice_ceiling(value) == pytest.approx(ceiling)


def test_readers_of_a_closed_loop_send_every_request_once() -> None:
    """All requests are sent, by no more readers than asked for, and an error reaches the caller."""
    requests = greedy(20, 4, 1)
    asked: list[Request] = []

    def ask(request: Request) -> Reading:
        asked.append(request)
        return Reading(0.0, [0.5], 1, 1.0)

    load = closed_loop(ask, requests, 3)
    assert sorted(request.prompt for request in asked) == sorted(request.prompt for request in requests)
    assert load.requests_per_s == 20
    assert load.metrics()["first_p50_ms"] == 500

    def fail(_: Request) -> Reading:
        raise RuntimeError("gone")

    with pytest.raises(RuntimeError, match="gone"):
        closed_loop(fail, requests, 3)


def test_gaps_are_counted_between_arrivals() -> None:
    """Time between tokens leaves out the wait for the first one."""
    load = Load([Reading(0.0, [5.0, 5.1, 5.3], 3, 5.3)])
    assert load.metrics()["gap_p50_ms"] == pytest.approx(100)
    assert load.metrics()["gap_p99_ms"] == pytest.approx(200)


def test_mixed_requests_are_half_sampled_and_a_quarter_with_logprobs() -> None:
    """The mix is what the report says that it is, and no two texts are alike."""
    requests = mixed(16, 24, 8, "seed")
    assert sum(request.temperature > 0 for request in requests) == 8
    assert len({request.temperature for request in requests if request.temperature}) == 8
    assert sum(request.logprobs for request in requests) == 4
    assert len({request.prompt for request in requests}) == 16
