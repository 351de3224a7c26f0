"""The protocol between the engine's loop and a model: a real one (:mod:`tasks.engine.model.mlx`) or the fake one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tasks.engine.constraint.grammar import Grammar
    from tasks.engine.generation.sequence import Assembler, Request
    from tasks.engine.text.prompt import Prompt
    from tasks.messages.engine import Submit, TokenLogprob
    from tasks.messages.load import Batching
    from tasks.messages.memory import KvSize


@dataclass(slots=True, frozen=True, kw_only=True)
class Facts:
    """The facts of a loaded model; see :class:`tasks.messages.load.Ready`."""

    revision: str
    context_tokens: int
    weights_bytes: int
    kv: KvSize
    prefill_step_tokens: int = 0
    accelerator: Literal["metal", "cuda", "cpu", "fake"]
    blas: str
    end_ids: frozenset[int]
    sampling: Mapping[str, float] = field(default_factory=dict)
    batching: Batching = "padded"
    batching_why: str = ""


@dataclass(slots=True, frozen=True)
class Draw:
    """A row's token of one step.

    It is without meaning where ``sound`` says that the row's logits were no numbers, and where its grammar has a ``fault``.
    ``complete`` says that the grammar allows nothing after it.
    """

    uid: int
    token: int
    sound: bool = True
    logprob: TokenLogprob | None = None
    complete: bool = False
    fault: str = ""


@dataclass(slots=True, frozen=True)
class Memory:
    """MLX's own figures, in bytes."""

    active_bytes: int
    cache_bytes: int
    peak_bytes: int


class OutOfDeviceMemory(Exception):
    """A step did not fit into memory. The rows of the batch are lost and have to be inserted again."""


class ModelRunner(Protocol):
    """A model with a batch of rows. ``encode``, ``assembler`` and ``grammar`` run on any thread, the rest on the stepping one."""

    facts: Facts

    @property
    def gather_s(self) -> float:
        """The seconds that an idle engine waits for more of a burst, before it starts."""
        ...

    @property
    def prefilled_tokens(self) -> int:
        """Prompt tokens computed so far, over all requests."""
        ...

    def encode(self, submit: Submit) -> Prompt:
        """The request's prompt, tokenised.

        Raises:
            tasks.errors.InvalidRequest: the model cannot take such a prompt.
        """
        ...

    def assembler(self, submit: Submit, prompt: Prompt, grammar: Grammar | None) -> Assembler:
        """A new text assembler for one request."""
        ...

    def grammar(self, submit: Submit, prompt: Prompt) -> Grammar | None:
        """Return the grammar of the request's answer; ``None`` where it has none.

        Raises:
            tasks.errors.InvalidRequest: its constraint cannot be enforced on this model.
        """
        ...

    def shares_prefill(self, request: Request) -> bool:
        """Whether a row that is being prefilled has a prefix that this request should wait for."""
        ...

    def insert(self, request: Request) -> int:
        """Add a row for prompt and ids; returns how many of its tokens need no prefill."""
        ...

    def compute_alone(self, request: Request) -> Sequence[Draw]:
        """Compute the prompt of a row that was just added, and its first token, while all others stand still.

        A long prompt gets none: it is computed by :meth:`prefill`, as those of others are. The row decodes from the next step on.
        """
        ...

    def decode(self, pause: Callable[[], None] | None = None) -> Sequence[Draw]:
        """The tokens of one step: one for each row that is prefilled, or several, in order, for some of them.

        A model that can stand still in the middle of a step calls ``pause`` there, which may add rows and compute them alone.
        """
        ...

    def prefill(self, pause: Callable[[], None] | None = None) -> Sequence[Draw]:
        """Compute a bounded number of prompt tokens; returns the first tokens of rows whose prompt is complete now.

        A row may go without one here. All rows whose prompt is complete decode next. ``pause`` is as in :meth:`decode`.
        """
        ...

    def remove(self, uids: Sequence[int], *, keep: bool) -> None:
        """Take rows out, in any state; ``keep`` puts their computed tokens into the prompt cache."""
        ...

    def limit_prompt_cache(self, most_bytes: int) -> None:
        """From now on keep no more cached prompts than this; forgets the least useful."""
        ...

    def reset(self) -> None:
        """Drop all rows and cached prompts, after a step ran out of memory."""
        ...

    def memory(self) -> Memory | None:
        """Return the memory that MLX holds; ``None`` where there is no MLX."""
        ...
