"""The embedding loop, turned by hand over the fake model: counts are exact, and nothing depends on time."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tasks.engine.embedding.batching import take_batch
from tasks.engine.embedding.embedder import Row
from tasks.engine.embedding.fake import FakeEmbedder, fake_vector
from tasks.engine.embedding.loop import EmbeddingLoop
from tasks.engine.embedding.texts import Texts, prepare_texts
from tasks.engine.generation.intake import Intake, preparer
from tasks.engine.generation.runner import OutOfDeviceMemory
from tasks.errors import InvalidRequest
from tasks.messages.embedding import Embed, Embedded
from tasks.messages.engine import Abort, EngineConfig, Failed, Finished, Resize, Resized, Started, Submit
from tests.support import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from tasks.messages.engine import Event, Isolation, StepOutput

DIMENSIONS = 6


class Rows(FakeEmbedder):
    """The fake model with steps of many rows; it notes the lengths of each step's, and may run out of memory."""

    def __init__(self, *, most_tokens: int = 1000, most_rows: int = 1000) -> None:
        super().__init__(EngineConfig(model=f"fake:0:dimensions={DIMENSIONS}"), lambda: None)
        self.most_tokens, self.most_rows = most_tokens, most_rows
        self.steps: list[list[int]] = []

    def step_tokens(self, memory_budget_bytes: int | None) -> int:
        return self.most_tokens if memory_budget_bytes is None else memory_budget_bytes

    def embed(self, rows: Sequence[Row]) -> NDArray[np.float32]:
        if len(rows) > self.most_rows or any(len(row.ids) > 50 for row in rows):
            raise OutOfDeviceMemory("no memory left")
        self.steps.append([len(row.ids) for row in rows])
        return super().embed(rows)


class Loop:
    """A loop whose turns the test makes, behind a real intake."""

    def __init__(self, embedder: Rows | None = None) -> None:
        self.embedder = embedder or Rows()
        self.intake: Intake[Texts] = Intake()
        self.intake.start(partial(prepare_texts, model=self.embedder))
        self.events: list[Event] = []
        self.resized: list[int] = []
        self.loop = EmbeddingLoop(self.embedder, self.intake, self._take)

    def _take(self, output: StepOutput | Resized) -> None:
        if isinstance(output, Resized):
            self.resized.append(output.memory_budget_bytes)
        else:
            self.events += output.events

    def embed(self, task_id: str, *inputs: str, **fields: Any) -> None:
        before = len(self.intake._ready)
        self.intake.receive(Embed(task_id=task_id, inputs=inputs, **fields))
        wait_until(lambda: len(self.intake._ready) > before)

    def finish(self, *task_ids: str) -> None:
        for _ in range(50):
            if set(task_ids) <= {event.task_id for event in self.events if not isinstance(event, Started)}:
                return
            self.loop.turn()
        raise AssertionError(self.events)

    def last(self, task_id: str) -> Event:
        return [event for event in self.events if event.task_id == task_id][-1]

    def vectors(self, task_id: str) -> NDArray[np.float32]:
        event = self.last(task_id)
        assert isinstance(event, Embedded), event
        return np.frombuffer(event.vectors, "<f4").reshape(-1, event.dimensions)


def words(count: int, start: int = 0) -> str:
    return " ".join(f"w{n}" for n in range(start, start + count))


def test_each_input_gets_its_vector_in_the_order_of_the_inputs() -> None:
    """Rows are sorted by length for their steps, over all requests, and the vectors stand where their inputs stood."""
    loop = Loop(Rows(most_tokens=10))
    loop.embed("one", words(2), words(5), words(1))
    loop.embed("two", words(4, 9), words(2, 9))
    loop.finish("one", "two")
    assert loop.embedder.steps == [[5, 4], [2, 2, 1]]
    for task_id, texts in (("one", (words(2), words(5), words(1))), ("two", (words(4, 9), words(2, 9)))):
        expected = [fake_vector(row.ids, DIMENSIONS) for row in loop.embedder.rows(texts, None, None)]
        np.testing.assert_array_equal(loop.vectors(task_id), expected)


def test_a_small_request_does_not_wait_for_a_large_one() -> None:
    """Requests lead in turn: one input that comes behind hundreds ends while those still run."""
    loop = Loop(Rows(most_tokens=10))
    loop.embed("large", *[words(5)] * 40)
    loop.embed("small", words(2))
    loop.finish("small")
    assert "large" not in {event.task_id for event in loop.events if isinstance(event, Embedded)}
    assert len(loop.embedder.steps) == 2


def test_dimensions_keep_the_first_numbers_at_length_one() -> None:
    """Shortened vectors are the beginnings of whole ones, scaled; longer ones than the model's are refused."""
    loop = Loop()
    loop.embed("short", "a b", dimensions=2)
    loop.embed("long", "a b", dimensions=DIMENSIONS + 1)
    loop.finish("short", "long")
    whole = fake_vector(loop.embedder.rows(("a b",), None, None)[0].ids, DIMENSIONS)[:2]
    np.testing.assert_allclose(loop.vectors("short")[0], whole / np.linalg.norm(whole), rtol=1e-6)
    refused = loop.last("long")
    assert isinstance(refused, Failed)
    assert refused.message.startswith(f"dimensions={DIMENSIONS + 1}: the model's vectors have {DIMENSIONS}")


def test_an_aborted_request_ends_and_the_others_go_on() -> None:
    """Whether it has begun or waits; nothing more of it is computed."""
    loop = Loop(Rows(most_tokens=5))
    loop.embed("goes", *[words(5)] * 3)
    loop.embed("stays", words(3))
    loop.loop.turn()
    loop.intake.receive(Abort("goes"))
    loop.finish("goes", "stays")
    assert isinstance(loop.last("goes"), Finished)
    assert loop.embedder.steps == [[5], [3]]


def test_a_suspect_shares_its_steps_with_suspects_only() -> None:
    """A request that may have killed an engine has no step beside others, and the one alone runs alone."""
    loop = Loop()
    loop.embed("plain", words(1))
    apart: list[tuple[int, str, Isolation]] = [
        (3, "suspect", "suspects"),
        (2, "other", "suspects"),
        (4, "alone", "alone"),
    ]
    for count, task_id, isolate in apart:
        loop.intake.receive(Embed(task_id=task_id, inputs=(words(count),), isolate=isolate))
    loop.finish("plain", "suspect", "other", "alone")
    assert sorted(loop.embedder.steps) == [[1], [3, 2], [4]]


def test_a_step_that_does_not_fit_is_halved_and_a_text_that_never_fits_ends_in_an_error() -> None:
    """Rows are put back when memory runs out; all that fit get their vectors."""
    loop = Loop(Rows(most_rows=2))
    loop.embed("many", *(words(4, n) for n in range(8)))
    loop.embed("huge", words(51))
    loop.finish("many", "huge")
    assert [len(step) for step in loop.embedder.steps] == [2, 2, 2, 2]
    assert len(loop.vectors("many")) == 8
    failed = loop.last("huge")
    assert isinstance(failed, Failed)
    assert (failed.code, failed.message[:18]) == ("out_of_memory", "input[0]: 51 token")


def test_numbers_that_are_none_end_their_request_alone() -> None:
    """A vector with NaN is never given out; the request of the other step gets its own."""
    loop = Loop(Rows(most_tokens=1))
    loop.embed("damaged", "!nan")
    loop.embed("sound", "a")
    loop.finish("damaged", "sound")
    failed = loop.last("damaged")
    assert isinstance(failed, Failed)
    assert "not finite" in failed.message
    assert len(loop.vectors("sound")) == 1


def test_another_budget_is_kept_to_at_once() -> None:
    """Between steps nothing is held, so the engine agrees immediately, and the next step has the new size."""
    loop = Loop()
    loop.intake.receive(Resize(8))
    loop.embed("task", *[words(4)] * 4)
    loop.finish("task")
    assert loop.resized == [8]
    assert [len(step) for step in loop.embedder.steps] == [2, 2]


def test_a_model_does_one_kind_of_work() -> None:
    """An embedding model refuses to generate, and a model that generates refuses to embed, each with the remedy."""
    embedder = Rows()
    submit = Submit(task_id="t", messages=None, prompt="a", max_tokens=1)
    with pytest.raises(InvalidRequest, match="generates nothing: use embed"):
        prepare_texts(0, submit, embedder)
    with pytest.raises(InvalidRequest, match=r"it generates text, .* use generate"):
        preparer(object())(0, Embed(task_id="t", inputs=("a",)))  # type: ignore[arg-type]


def texts_of(*lengths: int) -> Texts:
    rows = [Row([0] * length) for length in lengths]
    work = Embed(task_id="t", inputs=())
    return Texts(uid=0, work=work, rows=rows, dimensions=1, normalised=False, revision="")


def test_rows_of_a_batch_are_near_each_other_in_length() -> None:
    """The longest row of the first request leads; longer rows of others wait for their own lead, and padding stays small."""
    first, second = texts_of(3, 9, 8), texts_of(100, 7, 1)
    batch = take_batch([first, second], 27)
    assert [owner.length(place) for owner, place in batch] == [9, 8, 7]
    assert ([first.length(n) for n in first.pending], [second.length(n) for n in second.pending]) == ([3], [1, 100])


@pytest.mark.parametrize(("most_tokens", "rows"), [(9, 1), (20, 2), (30, 2), (45, 4)])
def test_threads_get_as_many_rows_as_each_other(most_tokens: int, rows: int) -> None:
    """With two threads, a step has one row, or an even number of them."""
    assert len(take_batch([texts_of(9, 9, 9, 9, 9)], most_tokens, 2)) == rows
