"""The messages between a worker and an engine process, over one private pipe.

A worker sends :class:`EngineConfig` once, then work (:class:`Submit`, :class:`Embed` or :class:`Rerank`), :class:`Abort`,
:class:`Resize` and :class:`Shutdown`; an engine answers :class:`Loading` while it loads, then :class:`Ready` or
:class:`LoadFailed` once, and after that one :class:`StepOutput` for each step, for the whole batch, :class:`Preparing` for
requests that are made again, and :class:`Resized` once it keeps to a new bound.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from tasks.messages.embedding import Embed, Embedded, Rerank
from tasks.messages.load import LoadFailed, Loading, Ready
from tasks.messages.quick import quick

if TYPE_CHECKING:
    from tasks.messages.answer import FinishReason, Kind
    from tasks.messages.constraint import Constraint
    from tasks.messages.tools import Tools

Isolation: TypeAlias = Literal["", "suspects", "alone"]


@dataclass(slots=True, frozen=True, kw_only=True)
class EngineConfig:
    """The first message to an engine: which model it serves, and within which bounds.

    ``model`` is the name that people use, ``source`` a local folder or a hub id, ``revision`` the hub's branch, tag or
    commit; a folder that came from the hub has its commit there. A model called ``fake:STEP_MS`` needs no source
    (:mod:`tasks.engine.fake`). ``prefill_step_tokens`` bounds the prompt tokens, over all sequences, that are computed
    between two decode steps. ``prompt_cache_bytes`` 0 keeps no prompts. Weights, running batch and prompt cache stay within
    ``memory_budget_bytes``; ``None`` means no bound. ``context_tokens`` takes the place of the model's own context,
    and ``chat_template`` names one of its templates. ``adapter`` is a LoRA adapter's folder or hub id.
    Without ``drafts`` each row gets one token a step. With ``try_each_load`` findings of earlier loads are not used.
    ``urgent_rows`` is how many urgent requests may join the batch beyond ``max_batch``, each beside one of batch work.
    ``threads`` are those of the BLAS on a CPU, unless the environment says how many; 0 leaves that to the BLAS.
    ``cores`` are those that it may use; with none it has the ones of the thread that starts it.
    """

    model: str
    source: str = ""
    revision: str | None = None
    max_batch: int = 8
    urgent_rows: int = 0
    prefill_step_tokens: int = 256
    prompt_cache_bytes: int = 0
    memory_budget_bytes: int | None = None
    context_tokens: int | None = None
    chat_template: str | None = None
    adapter: str | None = None
    trust_remote_code: bool = False
    log_level: str = "INFO"
    drafts: bool = True
    try_each_load: bool = False
    threads: int = 0
    cores: tuple[int, ...] = ()


@quick
@dataclass(slots=True, frozen=True, kw_only=True)
class Sampling:
    """The way to draw the tokens of one request. Bounds are checked before a request gets here.

    ``temperature`` 0 is greedy; ``top_k`` 0, ``min_p`` 0 and ``top_p`` 1 switch their filter off. ``seed`` makes draw k a
    function of (seed, k) alone. ``logprobs`` asks for the chosen token's log-probability, ``top_logprobs`` for that many
    alternatives (0–20). ``logit_bias`` maps token ids to additive biases.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    repetition_context_size: int = 20
    logit_bias: dict[int, float] = field(default_factory=dict)
    logprobs: bool = False
    top_logprobs: int = 0


@dataclass(slots=True, frozen=True, kw_only=True)
class Resume:
    """The place of an earlier attempt.

    ``ids`` are the tokens that the journal holds. ``characters`` counts, by kind, the text that their chunks said in all
    (what the detokeniser or the stop matcher still held back is in ``ids`` and not in any text), and ``calls`` the calls of
    functions whose names they said. ``revision`` and ``prompt_hash`` must be met again; for that ``rendering`` says what the
    chat template wrote, if the journal has it.
    """

    ids: list[int]
    characters: dict[Kind, int]
    revision: str
    prompt_hash: str
    rendering: str = ""
    calls: int = 0


@quick
@dataclass(slots=True, frozen=True, kw_only=True)
class Submit:
    """Generate. Exactly one of ``messages`` and ``prompt`` is set; ``max_tokens`` ``None`` means what the context leaves.

    ``reasoning_effort`` goes to the chat template, if it knows such a thing. ``tools`` are what the model may call; they are for
    ``messages`` alone.
    ``allow_control_tokens`` says that the text of a control token in a message is that token.
    ``constraint`` bounds the answer, and ``thinking_budget`` the tokens of the thought.
    ``isolate`` keeps a request that may have killed an engine apart: ``"suspects"`` shares its batch with other suspects
    only, ``"alone"`` with nobody. ``again`` says that an earlier attempt was made: the engine says when it prepares this one
    (:class:`Preparing`). ``gives_way`` says that it is batch work, which urgent requests go before.
    """

    task_id: str
    messages: list[dict[str, Any]] | None
    prompt: str | None
    max_tokens: int | None
    stop: tuple[str, ...] = ()
    sampling: Sampling = Sampling()
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    reasoning_effort: str | None = None
    allow_control_tokens: bool = False
    constraint: Constraint | None = None
    thinking_budget: int | None = None
    tools: Tools | None = None
    resume: Resume | None = None
    isolate: Isolation = ""
    again: bool = False
    gives_way: bool = False
    op: Literal["generate"] = "generate"

    @property
    def is_bounded(self) -> bool:
        """Whether a grammar says which tokens may come."""
        return self.constraint is not None or self.thinking_budget is not None


@dataclass(slots=True, frozen=True)
class Abort:
    """End a request within one step; it answers :class:`Finished` with this reason, or nothing if it is unknown."""

    task_id: str
    reason: FinishReason = "cancelled"


@dataclass(slots=True, frozen=True)
class Resize:
    """Stay within so many bytes from now on, instead of :attr:`EngineConfig.memory_budget_bytes`; what runs may end first.

    ``promised_bytes`` is what the engine will be given once other engines have come down to their share.
    """

    memory_budget_bytes: int
    promised_bytes: int = 0


@dataclass(slots=True, frozen=True)
class Shutdown:
    """End the process, without finishing running requests."""


@quick
@dataclass(slots=True, frozen=True)
class Preparing:
    """A request that is made again is rendered and tokenised from now on, or no longer: a death meanwhile may be its doing."""

    task_id: str
    done: bool


@quick
@dataclass(slots=True, frozen=True)
class Started:
    """The prompt was accepted and tokenised.

    ``prompt_hash`` is a hash of the prompt's token ids, ``rendering`` what its chat template wrote around the messages
    (:mod:`tasks.engine.text.rendering`). ``revision`` is what a worker that resumes the request has to have too: the model's,
    and where the answer is constrained the grammar engine's. ``warnings`` say what of a constraint is not enforced.
    """

    task_id: str
    prompt_tokens: int
    cached_tokens: int
    prompt_hash: str
    rendering: str = ""
    revision: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(slots=True, frozen=True)
class TokenLogprob:
    """A token's log-probability (natural logarithm) and its likeliest alternatives, best first."""

    id: int
    token: str
    logprob: float
    top: tuple[tuple[int, str, float], ...] = ()


@quick
@dataclass(slots=True, frozen=True)
class Tokens:
    """Tokens ``index`` … ``index + len(ids) - 1``, and text of one kind.

    ``text`` may lag: half a character, half a stop string and half a marker are held back. Of the kind ``tool_call``, ``call``
    numbers the calls of the answer, and the first text of a call has the function's ``name``.
    """

    task_id: str
    index: int
    ids: list[int]
    text: str
    logprobs: list[TokenLogprob] | None = None
    kind: Kind = "content"
    call: int | None = None
    name: str = ""


@quick
@dataclass(slots=True, frozen=True)
class Finished:
    """A request's end; ``completion_tokens`` counts from the first attempt's first token.

    ``warnings`` say, for people, what of the answer is not as it was asked for.
    """

    task_id: str
    finish_reason: FinishReason
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    warnings: tuple[str, ...] = ()


@dataclass(slots=True, frozen=True)
class Failed:
    """A request that cannot be answered; the others go on. ``code`` is a wire code of :mod:`tasks.errors`."""

    task_id: str
    code: str
    message: str


@dataclass(slots=True, frozen=True)
class Resized:
    """From now on the engine stays within the bytes that the last :class:`Resize` named."""

    memory_budget_bytes: int


Event: TypeAlias = Started | Tokens | Embedded | Finished | Failed


@quick
@dataclass(slots=True, frozen=True, kw_only=True)
class StepOutput:
    """All that one step brought, in order, and the engine's state after it.

    ``step`` counts decode steps since the start (a step decodes one token for each row of the batch); ``prefilled`` are the
    prompt tokens that were computed since the last message. ``active_bytes`` and the two after it are MLX's own figures.
    """

    step: int
    events: list[Event]
    running: int
    waiting: int
    prefilled: int = 0
    active_bytes: int | None = None
    cache_bytes: int | None = None
    peak_bytes: int | None = None


#: The orders to an engine; each model takes one of them.
Work: TypeAlias = Submit | Embed | Rerank
ToEngine: TypeAlias = EngineConfig | Work | Abort | Resize | Shutdown
FromEngine: TypeAlias = Loading | Ready | LoadFailed | Preparing | StepOutput | Resized
