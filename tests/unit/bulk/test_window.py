"""How many requests a job may have in Redis, and in which order lines go out."""

from __future__ import annotations

from typing import Any

from tasks.bulk.ahead import Ahead
from tasks.bulk.line import BadLine, Line
from tasks.bulk.window import LEAST, PER_SLOT, Fleet, Window
from tasks.errors import InvalidRequest, UnknownModel
from tasks.models.routing import QueueCapacity


def window(slots: int, bound: int) -> Window:
    found = Window(lambda: Fleet({"q": QueueCapacity(2, slots)}, {"q": bound}, 1_000), lambda: 0.0)
    found.look()
    return found


def test_it_follows_the_slots() -> None:
    """A few for each live slot, and never more than half of what the queue takes."""
    assert window(100, 10_000).of("q") == 100 * PER_SLOT
    assert window(100, 200).of("q") == 100
    assert window(100, 1).of("q") == 1
    assert window(1, 10_000).of("q") == LEAST
    assert window(100, 10_000).of("other") == LEAST
    assert window(1, 1).workers() == 2


def test_it_looks_now_and_then() -> None:
    """Not at each step."""
    now, looks = [0.0], []

    def read() -> Fleet:
        looks.append(1)
        return Fleet({}, {}, 1_000)

    found = Window(read, lambda: now[0])
    for _ in range(3):
        found.look()
    assert len(looks) == 1
    now[0] += 10
    found.look()
    assert len(looks) == 2


def line(number: int, **values: Any) -> Line:
    return Line(number, str(number), "plain", values)


def queue_of(line: Line) -> str:
    if line.values.get("model") == "unknown":
        raise UnknownModel("nobody has it")
    return str(line.values.get("model", "q"))


class TestAhead:
    """What is read ahead."""

    def test_lines_that_begin_alike(self) -> None:
        """They are next to each other; what is read ahead is bounded."""
        lines = [line(n, prompt=f"{'AB'[n % 2] * 100} {n}") for n in range(6)]
        ahead = Ahead(iter(lines), queue_of, 4)
        assert ahead.read() == []
        assert not ahead.exhausted
        assert [line.number for line in ahead.take("q", 9)] == [0, 2, 1, 3]
        ahead.read()
        assert [line.number for line in ahead.take("q", 9)] == [4, 5]
        assert ahead.exhausted

    def test_several_models(self) -> None:
        """Each queue has lines of its own, so that none waits for another's room."""
        ahead = Ahead(iter([line(1, prompt="a", model="m"), line(2, prompt="b")]), queue_of, 10)
        ahead.read()
        assert sorted(ahead.queues) == ["m", "q"]
        assert [line.number for line in ahead.take("q", 1)] == [2]
        assert ahead.queues == ["m"]

    def test_bad_ones(self) -> None:
        """A line that cannot be sent comes out at once, also one whose model nobody allows."""
        bad = BadLine(1, None, "plain", InvalidRequest("x"))
        ahead = Ahead(iter([bad, line(2, prompt="a", model="unknown"), line(3, prompt="b")]), queue_of, 10)
        assert [line.number for line in ahead.read()] == [1, 2]
        assert ahead.read() == []
        assert ahead.queues == ["q"]

    def test_the_rest(self) -> None:
        """What is not to be sent any more comes out page by page, in the order of reading."""
        ahead = Ahead(iter([line(n, prompt="a") for n in range(5)]), queue_of, 2)
        ahead.read()
        ahead.put_back(line(9, prompt="again"))
        pages = [[line.number for line in ahead.rest(3)] for _ in range(3)]
        assert pages == [[9, 0, 1], [2, 3, 4], []]
        assert ahead.exhausted
