"""The kinds of caches, by one contract: rows that come and go get the logits of a row alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.parts.tiny_model import make_tiny_model
from tasks.engine.model.batching.caches import Caches, JointCaches, SeparateCaches
from tasks.engine.model.batching.head import Head
from tasks.engine.model.batching.slot_layer import room
from tasks.engine.model.batching.slots import SlotCaches

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.xdist_group("mlx")

LENGTHS = (5, 1, 12, 3)


@pytest.fixture(scope="module", params=[0, 99], ids=["MLX", "numpy"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model with random weights, whose steps and prompts in slots are computed by MLX or by numpy."""
    from mlx_lm.utils import load

    from tasks.engine.model.layout.dense import apply
    from tasks.engine.model.layout.host import prepare
    from tasks.engine.model.layout.panels import Streams
    from tasks.engine.model.reference import Reference

    folder: Path = make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
    model = load(str(folder))[0]
    apply(model, {}, Streams(1), Reference(model))
    prepare(model)
    model.host_tokens, model.host_prompts = request.param, bool(request.param)
    return model


def _tokens(row: int, count: int) -> list[int]:
    return [(31 * row + 7 * n) % 250 for n in range(count)]


def _filled(model: Any, kind: type[Caches], rows: list[int]) -> Caches:
    """Rows whose first tokens are computed, those of a prompt but for the last one."""
    from mlx_lm.models.cache import make_prompt_cache

    caches = kind.merge([make_prompt_cache(model) for _ in rows])
    counts = [LENGTHS[row] - 1 for row in rows]
    for done in range(0, max(counts), 4):  # in pieces, of which the last ones are shorter
        chosen = [_tokens(row, count)[done : done + 4] for row, count in zip(rows, counts, strict=True)]
        if all(chosen):
            caches.prefill(Head(model), chosen, [])
        else:
            rest = kind.merge([caches.extract(n) for n, piece in enumerate(chosen) if piece])
            rest.prefill(Head(model), [piece for piece in chosen if piece], [])
            places = iter(range(len(rows)))
            parts = [rest.extract(next(places)) if piece else caches.extract(n) for n, piece in enumerate(chosen)]
            caches = kind.merge(parts)
    return caches


def _alone(model: Any, row: int, count: int) -> Any:
    import mlx.core as mx

    return model(mx.array([_tokens(row, count)]))[0, -1]


@pytest.mark.parametrize("kind", [JointCaches, SeparateCaches, SlotCaches])
def test_rows_that_come_and_go(model: Any, kind: type[Caches]) -> None:
    """Rows are prefilled in pieces, join, step, leave and are copied out: each has the logits of its tokens alone."""
    import mlx.core as mx

    caches = _filled(model, kind, [0, 2])
    caches.join(_filled(model, kind, [1, 3]))
    rows, lengths = [0, 2, 1, 3], {row: LENGTHS[row] for row in range(4)}

    def step() -> None:
        logits = caches.step(model, mx.array([_tokens(row, lengths[row])[-1] for row in rows]))
        for place, row in enumerate(rows):
            assert mx.allclose(logits[place], _alone(model, row, lengths[row]), atol=1e-3)
            lengths[row] += 1

    step()
    step()
    other = caches.copy()
    other.keep([3])
    caches.keep([0, 2])
    rows = [0, 1]
    step()
    caches.join(kind.merge([other.extract(0)]))
    rows = [0, 1, 3]
    step()
    assert caches.nbytes > 0


def test_several_tokens_of_some_rows_in_one_step(model: Any) -> None:
    """Rows get one, three and two tokens in a step, of which some count: their logits, and those of the next step, are right."""
    import mlx.core as mx

    caches = _filled(model, SlotCaches, [0, 1, 2])
    assert isinstance(caches, SlotCaches)
    lengths = list(LENGTHS[:3])
    for counts, accepted in (([1, 3, 2], [0, 1, 1]), ([2, 2, 2], [1, 0, 1])):
        tokens = [_tokens(row, lengths[row] + counts[row] - 1)[lengths[row] - 1 :] for row in range(3)]
        logits = caches.step_drafted(model, tokens)
        order = [(row, depth) for depth in range(3) for row in range(3) if depth < counts[row]]
        for place, (row, depth) in enumerate(order):
            assert mx.allclose(logits[place], _alone(model, row, lengths[row] + depth), atol=1e-3)
        for row, more in enumerate(accepted):
            caches.accept(row, more)
            lengths[row] += 1 + more
    logits = caches.step(model, mx.array([_tokens(row, lengths[row])[-1] for row in range(3)]))
    for row in range(3):
        assert mx.allclose(logits[row], _alone(model, row, lengths[row]), atol=1e-3)


def test_slots_are_little_longer_than_rows() -> None:
    """By less than a block where they are short, and by less than an eighth where they are long."""
    assert [room(tokens) for tokens in (1, 64, 65, 500)] == [64, 64, 128, 512]
    assert all(tokens <= room(tokens) < max(tokens + 64, tokens * 9 / 8) for tokens in range(1, 9000, 7))
