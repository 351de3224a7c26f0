"""What ``fleet`` shows, and how it fits into a terminal."""

from __future__ import annotations

import io
import json
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tasks.broker.inventory.inventory import OpenRequest
from tasks.cli.overview import plain, screen, words
from tasks.cli.overview.details import departed_lines, worker_lines
from tasks.cli.overview.live import LiveView
from tasks.cli.overview.table import WORKER_COLUMNS, fitted, worker_row
from tasks.errors import BrokerUnavailable
from tasks.fleet.state import FleetState, QueueView, WorkerView
from tasks.fleet.words import age, counted
from tasks.messages.registry import EngineState, Unreadable, WorkerRecord
from worker_config.tiers import QUEUES
from worker_config.units import GIB

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.cli.overview.keyboard import Keyboard

FULL: dict[str, Any] = {
    "concurrency": 18,
    "queues": ["tier-under-3B", "tier-3-7B"],
    "slots": {"tier-under-3B": 10, "tier-3-7B": 8},
    "busy": {"tier-3-7B": 3},
    "models": ["qwen3-4b"],
    "engines": [
        EngineState(
            model="qwen3-4b", state="ready", running=3, memory_bytes=4 * GIB, reserved_bytes=8 * GIB, tokens_per_s=120.0
        ),
        EngineState(model="big", state="failed", reason="no such file"),
    ],
    "hardware": {"chip": "Apple M3 Max", "gpu_cores": 40, "accelerator": "metal", "os_name": "macOS"},
    "usage": {"gpu_percent": 97.2, "memory_used_bytes": 40 * GIB, "memory_total_bytes": 64 * GIB},
    "metrics": {"tokens_per_s": 1234.0, "first_token_ms": {"p95": 85.4}, "totals": {"succeeded": 7, "failed": 1}},
}


def view(node: str = "mac@lab", *, leased: bool = True, loop_age_s: float = 1.0, **values: Any) -> WorkerView:
    """A worker as ``fleet`` sees it."""
    record = WorkerRecord(node=node, boot="b1", **{"status": "online", **FULL, **values})
    return WorkerView(record, beat_age_s=3.0, loop_age_s=loop_age_s, leased=leased)


def state(*workers: WorkerView, swept_s: float | None = 0.4, **values: Any) -> FleetState:
    """A fleet."""
    queue = QueueView("tier-3-7B", "3-7B", depth=0, oldest_s=None, workers=len(workers), slots=8, busy=3)
    given_values = {"now": 1000.0, "unreadable": [], "queues": [queue], "swept_by": "beat", **values}
    return FleetState(workers=list(workers), swept_s=swept_s, **given_values)


def test_a_row_says_what_matters() -> None:
    """Chip, tiers, status, slots, models, speed, load and age stand in one line."""
    assert worker_row(view()) == (
        *("mac@lab", "M3 Max", "≤3-7B", "online", "3/18", "qwen3-4b", "1.2k", "85ms", "97%", "40/64", "3s"),
    )


def test_what_is_not_known_is_not_made_up() -> None:
    """A worker that says nothing of itself has dashes, and a simulated machine is marked."""
    row = worker_row(
        view(hardware={"chip": "Apple M1", "overridden": True}, usage={}, metrics={}, models=[], queues=[])
    )
    assert row[1:3] == ("M1 (sim)", "–")
    assert row[5:10] == ("–", "–", "–", "–", "–/–")


@pytest.mark.parametrize(
    ("worker", "status"),
    [
        (view(leased=False), "silent: no heartbeat for 3s"),
        (view(loop_age_s=45.0), "stuck: no sign of Celery's loop for 45s"),
        (view(status="degraded", reason="m failed"), "degraded: m failed"),
        (view(status="starting"), "starting"),
    ],
)
def test_the_status_has_its_reason(worker: WorkerView, status: str) -> None:
    """A silent or stuck worker is shown as such, whatever it last said of itself."""
    assert worker_row(worker)[3] == status


@pytest.mark.parametrize(
    ("worker", "serves"),
    [(view(), True), (view(leased=False), False), (view(paused=True), False), (view(status="draining"), False)],
)
def test_only_who_takes_requests_serves_a_queue(worker: WorkerView, serves: bool) -> None:
    """The dead and the draining serve nothing."""
    assert worker.serves("tier-3-7B") is serves
    assert not worker.serves("tier-30B-plus")


def test_an_empty_fleet_says_how_to_start() -> None:
    """With no worker and no sweep the overview names the two commands."""
    text = "\n".join(plain.lines(state(swept_s=None)))
    assert "celery -A tasks worker" in text
    assert "no sweep ever ran" in text
    assert "celery -A tasks beat" in text


def test_warnings_name_what_is_wrong() -> None:
    """An old sweep, a queue that nobody serves and unreadable records are each a line."""
    stranded = QueueView("tier-30B-plus", "30B+", depth=2, oldest_s=75.0, workers=0, slots=0, busy=0)
    fleet = state(view(), swept_s=120.0, queues=[stranded], unreadable=[Unreadable("x@y", "not a record")])
    assert fleet.warnings == [
        "no sweep for 2m, so the requests of a dead worker wait; start: celery -A tasks beat",
        "2 requests in tier-30B-plus, which no worker serves",
        "1 record cannot be read",
    ]
    lines = list(plain.lines(fleet))
    assert "x@y  unreadable: not a record" in lines
    assert ["30B+", "tier-30B-plus", "2", "1m", "0", "–"] in [line.split() for line in lines]


def test_a_healthy_fleet_has_no_warnings() -> None:
    """Nothing to do, nothing said."""
    assert state(view()).warnings == []


@pytest.mark.parametrize("limit", [20, 40, 60, 80, 100, 120, 160, 200])
def test_the_table_fits_every_width(limit: int) -> None:
    """No line is wider than the terminal; the worker's name and its status go last."""
    rows = [worker_row(view("a-very-long-name-of-a-machine@somewhere", status="degraded", reason="x" * 80))]
    table = fitted(WORKER_COLUMNS, rows, limit)
    assert all(sum(map(words.width, cells)) <= limit for cells in table.lines())
    assert table.columns[0].title == "worker"
    if limit >= 40:
        assert "status" in [column.title for column in table.columns]


def test_wide_enough_shows_everything() -> None:
    """Without a limit nothing is cut."""
    assert len(fitted(WORKER_COLUMNS, [worker_row(view())], None).columns) == len(WORKER_COLUMNS)


@given(st.text(), st.integers(1, 30))
def test_cut_text_has_the_width_that_was_asked_for(text: str, columns: int) -> None:
    """Wide and combining characters are counted as a terminal shows them."""
    assert words.width(words.cut(words.clean(text), columns)) <= columns


@given(st.text(st.characters(codec=None)))
def test_nothing_that_a_worker_says_reaches_the_terminal_raw(text: str) -> None:
    """Control characters and half surrogates are replaced, so no record can move the cursor or break the output."""
    clean = words.clean(text)
    assert clean.isprintable()
    clean.encode()


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (age(0.4), "0s"),
        (age(59), "59s"),
        (age(90), "2m"),
        (age(7200), "2h"),
        (age(200_000), "2d"),
        (words.rate(0), "0"),
        (words.rate(8.54), "8.5"),
        (words.rate(120.4), "120"),
        (words.rate(3210), "3.2k"),
        (words.rate(32_100), "32k"),
        (words.rate("fast"), "–"),
        (words.milliseconds(1234), "1.2s"),
        (words.milliseconds(75_000), "75s"),
        (words.milliseconds(True), "–"),
        (words.gib(0.44 * GIB), "0.4"),
        (words.gib(96 * GIB), "96"),
        (words.gib(None), "–"),
        (words.percent(None), "–"),
        (words.tiers(list(QUEUES)), "all"),
        (words.tiers(["tier-under-3B"]), "<3B"),
        (words.tiers(["tier-3-7B", "tier-30B-plus"]), "3-7B 30B+"),
        (words.tiers(["celery"]), "–"),
        (counted(1, "slot"), "1 slot"),
    ],
)
def test_figures_read_as_people_say_them(shown: str, expected: str) -> None:
    """Short, with a unit, and a dash where nothing is known."""
    assert shown == expected


def rendered(fleet: FleetState, width: int, height: int | None = None, **options: Any) -> list[str]:
    """The lines of the overview on a terminal without colours."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(screen.overview(fleet, width, height, **options))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_the_screen_sums_up() -> None:
    """The first line has the fleet's totals; a dead worker's slots do not count."""
    lines = rendered(state(view(), view("dead@lab", leased=False, busy={})), 120)
    assert lines[0] == "2 workers, 3 of 18 slots busy, 1234 tokens/s, 0 requests waiting"


def test_a_low_terminal_shows_as_many_workers_as_fit() -> None:
    """Nothing scrolls away: the rest is counted, and --once shows all."""
    fleet = state(*(view(f"mac-{number:03}@lab") for number in range(200)))
    lines = rendered(fleet, 100, 24)
    assert len(lines) <= 24
    assert any("more: --once shows them all" in line for line in lines)
    assert len(rendered(fleet, 100)) > 200


def test_an_empty_screen_has_its_warnings() -> None:
    """Without workers the overview still says what to do."""
    lines = rendered(state(unreadable=[Unreadable("x@y", "garbage")]), 100)
    assert any("celery -A tasks worker" in line for line in lines)
    assert any("x@y unreadable: garbage" in line for line in lines)


def test_markup_in_a_record_stays_text() -> None:
    """What looks like rich's markup is shown, not obeyed."""
    assert any("[red]x" in line for line in rendered(state(view(models=["[red]x"])), 200))


class Keys:
    """A keyboard on which these are typed, one at each look; then somebody interrupts."""

    def __init__(self, *typed: str) -> None:
        self._typed = list(typed)

    def key(self, timeout_s: float) -> str:
        if not self._typed:
            raise KeyboardInterrupt
        return self._typed.pop(0)


def live(keys: Keys, read: Callable[[], FleetState], *requests: OpenRequest) -> str:
    """All that a live view has shown, on a terminal of 100 columns."""
    console = Console(file=io.StringIO(), width=100, height=24, force_terminal=True, color_system=None)
    view_ = LiveView(console, read, lambda: requests, refresh_s=0.0)
    with suppress(KeyboardInterrupt):
        view_.run(cast("Keyboard", keys))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_live_view_outlives_an_outage() -> None:
    """While Redis is away the last state stays, with a line that says how old it is."""
    answers: list[Any] = [state(view()), BrokerUnavailable("reading: away"), state(view("back@lab"))]

    def read() -> FleetState:
        answer = answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        assert isinstance(answer, FleetState)
        return answer

    shown = live(Keys("", ""), read)
    before, _, after = shown.partition("warning: shown as of 0s ago: reading: away")
    assert "mac@lab" in before
    assert "back@lab" in after


def test_keys_change_what_is_shown() -> None:
    """r shows the requests, w the workers again, q ends it; the last line says which there are."""
    running = OpenRequest("83d19131-6b0c", "running", "qwen3-4b", "tier-3-7B", "mac@lab", 12.0, 240)
    shown = live(Keys("r", "w", "q", "r"), lambda: state(view()), running)
    workers, requests, again = shown.partition("83d19131-6b0c")[0], shown, shown.rpartition("83d19131-6b0c")[2]
    assert "q quit   r requests" in workers
    assert re.search(r"83d19131-6b0c +running +mac@lab +qwen3-4b +12s +240 +20", requests)
    assert "q quit   w workers and queues" in requests
    assert "q quit   r requests" in again


def test_where_something_waits_there_is_colour() -> None:
    """A queue with requests is yellow, one without is not; slots are a bar."""
    waits = QueueView("tier-3-7B", "3-7B", depth=7, oldest_s=9.0, workers=1, slots=8, busy=2)
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system="standard")
    console.print(screen.overview(state(view(), queues=[waits]), 120, 30))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert re.search(r"\x1b\[33m +7 +\x1b\[0m", text)
    assert "██░░░░░░ 2/8" in text
    assert "\x1b[1;33m7 requests waiting" in text
    console.print(screen.overview(state(view()), 120, 30))
    assert "tokens/s, 0 requests waiting\x1b[0m" in console.file.getvalue()


def test_redis_and_recent_failures() -> None:
    """Redis' memory is in the first line; the last failures of all workers are at the end, the newest first."""
    kept = [
        {"age_s": 100.0, "model": "a", "code": "engine_failed", "reason": "it died"},
        {"age_s": 2.0, "model": "b", "code": "invalid_request", "reason": ""},
        "garbage",
    ]
    fleet = state(view(metrics={"failures": kept}), redis_bytes=13 << 20, redis_most_bytes=4 * GIB)
    lines = rendered(fleet, 100, 30)
    assert lines[0].endswith("0 requests waiting, Redis 13 MB of 4.0 GB")
    assert rendered(fleet, 60, 30)[0].endswith("…")
    assert lines[-2:] == ["  5s ago  mac@lab b  invalid_request", "  2m ago  mac@lab a  engine_failed: it died"]
    assert [failure["code"] for failure in fleet.as_json()["failures"]] == ["invalid_request", "engine_failed"]


def test_a_narrow_terminal_shows_the_whole_reason_of_a_failure() -> None:
    """Its lines are folded, and counted where a low terminal has to leave workers out; a pipe gets one line."""
    reason = "the model needs 13.5 GB and this machine gives 6.4 GB to all models: use a smaller one, or another quantisation"
    kept = [{"age_s": 2.0, "model": "qwen3-4b", "code": "out_of_memory", "reason": reason}]
    fleet = state(*(view(f"mac-{n}@lab", metrics={"failures": kept}) for n in range(30)))
    shown = rendered(fleet, 80, 24)
    failures = shown[shown.index("recent failures") + 1 :]
    assert " ".join(" ".join(failures).split()).count(f"out_of_memory: {reason}") == 3
    assert max(len(line) for line in failures) <= 80
    assert len(shown) <= 24
    assert f"  5s ago  mac-0@lab qwen3-4b  out_of_memory: {reason}" in list(plain.lines(fleet))


def test_many_requests_fit_a_low_terminal() -> None:
    """Those that do not fit are counted."""
    found = [OpenRequest(f"id-{n}", "waiting", None, "tier-3-7B", None, 1.0, 0) for n in range(100)]
    console = Console(file=io.StringIO(), width=80, color_system=None)
    console.print(screen.request_list(state(view()), found, 80, 24))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert len(lines) <= 24
    assert re.search(r"id-0 +waiting +tier-3-7B +\(default\)", console.file.getvalue())
    assert any(re.fullmatch(r"… and \d+ more", line) for line in lines)


@pytest.mark.parametrize(
    ("part", "whole", "drawn"),
    [
        (0, 10, "░░░░░░░░ 0/10"),
        (1, 60, "█░░░░░░░ 1/60"),
        (59, 60, "███████░ 59/60"),
        (5, 5, "████████ 5/5"),
        (0, 0, "0/0"),
    ],
)
def test_a_bar_shows_the_least_and_the_last(part: int, whole: int, drawn: str) -> None:
    """One busy slot of many is seen, and so is the last free one."""
    assert words.bar(part, whole) == drawn


def test_details_show_everything() -> None:
    """One worker in full: engines, percentiles, counters."""
    text = "\n".join(worker_lines(view(reason="because", status="degraded")))
    for expected in (
        "degraded: because",
        "tier-3-7B 3/8",
        "Apple M3 Max, 40 GPU cores, metal",
        "40 of 64 GB",
        "p95 85ms",
        "7 succeeded, 1 failed",
        "qwen3-4b ready, 4.0 of 8.0 GB, 3 running, 0 waiting, 120 tokens/s",
        "big failed: no such file",
    ):
        assert expected in text
    assert list(worker_lines(view(metrics={}, queues=[], engines=[])))


def test_the_departed_have_last_words() -> None:
    """A record out of the history says how and when its worker went."""
    text = "\n".join(
        departed_lines({"node": "a@b", "departed": "dead", "departed_at": 940.0, "status": "online"}, 1000.0)
    )
    assert "dead" in text
    assert "1m ago" in text
    assert list(departed_lines({}, 0.0))


def test_the_state_is_json() -> None:
    """Programs get the records whole, with ages and conditions."""
    values = json.loads(json.dumps(state(view(leased=False), swept_s=None).as_json()))
    (worker,) = values["workers"]
    assert (worker["node"], worker["condition"], worker["beat_age_s"]) == ("mac@lab", "silent", 3.0)
    assert values["sweep"] == {"age_s": None, "by": "beat"}
    assert values["queues"][0]["queue"] == "tier-3-7B"
