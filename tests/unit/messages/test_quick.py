"""Records that are pickled by their fields' values, without a look for the fields."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

from tasks.messages.engine import Finished, Sampling, Started, StepOutput, Submit, Tokens

TOKENS = Tokens("a", 3, [7, 8], "text", None, "reasoning")


@pytest.mark.parametrize(
    "record",
    [
        Submit(task_id="a", messages=None, prompt="one", max_tokens=None, sampling=Sampling(temperature=0.5, seed=3)),
        StepOutput(step=2, events=[TOKENS, Finished("a", "stop", 7, 0, 2)], running=1, waiting=0, prefilled=9),
        Started("a", 7, 0, "hash", "revision"),
    ],
)
def test_the_same_on_the_other_side(record: Any) -> None:
    """It comes out as it went in, and nobody may change it; what is pickled is the values in the order of the fields."""
    found = pickle.loads(pickle.dumps(record))  # noqa: S301  (its own)
    assert found == record
    assert list(record.__getstate__()) == [getattr(record, field.name) for field in fields(record)]
    with pytest.raises(FrozenInstanceError):
        setattr(found, fields(record)[0].name, None)
