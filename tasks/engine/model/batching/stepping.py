"""Chooses how the rows of a batch are stepped: in a way that the model allows and that pays on this device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.engine.model.drafting.drafts import Drafts, bound_step
from tasks.engine.model.drafting.worth import Worth

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlx.nn.layers.base import Module

    from tasks.engine.model.selftest import BatchSupport
    from tasks.engine.sampling.sampler import BatchSampler
    from tasks.messages.load import Batching


@dataclass(slots=True, frozen=True, kw_only=True)
class Stepping:
    """The choices of one engine.

    Args:
        batching: how rows are computed beside each other.
        ahead: whether the device works on its own. MLX's CPU backend does so for a few operations only: there, a step that
            is launched before the last one is read delays its tokens by nearly a whole step, and gains nothing.
        slots: whether padded rows lie in slots (:mod:`tasks.engine.model.batching.slots`).
        drafts: whether a step may have several tokens of a row. That needs slots, and the last step read before the next one.
        make_worth: makes a judge of whether steps have drafts.
    """

    batching: Batching = "padded"
    ahead: bool = False
    slots: bool = False
    drafts: bool = True
    make_worth: Callable[[], Worth] = Worth

    @classmethod
    def of(cls, support: BatchSupport, *, on_gpu: bool, drafts: bool) -> Stepping:
        """The choices for a model on this device. On a GPU nothing gains by slots."""
        return cls(batching=support.batching, ahead=on_gpu, slots=support.slots and not on_gpu, drafts=drafts)

    def make_drafts(self, sampler: BatchSampler, model: Module) -> Drafts | None:
        """The drafts of a batch; ``None`` where steps have none."""
        if not (self.slots and self.drafts) or self.ahead:
            return None
        return Drafts(sampler, self.make_worth, bound_step(model))
