"""A request's parameters: OpenAI's names, mlx-lm's and our own; checked by the producer and again by the worker."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from tasks.client.request.compatibility import without_neutral
from tasks.client.request.conversation import tidied
from tasks.client.request.explain import refuse_unknown, shown_name, validated
from tasks.client.request.fields import (
    MAX_COUNT,
    CacheKey,
    Deadline,
    Extra,
    Flag,
    KeepAlive,
    ModelName,
    Penalty,
    RepetitionPenalty,
    Stops,
    Temperature,
    ThinkingBudget,
    TopP,
    no_number,
    no_truth,
)
from tasks.client.request.plain import DATA, is_left_out, plain
from tasks.client.request.prompt import Prompt
from tasks.client.request.structure import (
    FIELDS,
    FORMAT_HINT,
    ResponseFormat,
    as_response_format,
    check_choice,
    check_grammar,
    check_text,
    constraint_of,
)
from tasks.client.request.tools import Choice, ToolChoice, ToolList, check_tools, for_engine, tidied_tool
from tasks.errors import InvalidRequest
from tasks.messages.engine import Sampling

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasks.messages.constraint import Constraint
    from tasks.messages.tools import Tools

MAX_TOKENS_DEFAULT = 512
MAX_LOGIT_BIAS = 1024


class Parameters(Prompt):
    """The parameters of ``generate``: a prompt, and how to answer it."""

    # To make an empty dictionary takes less time than pydantic's copy of one.
    model: ModelName = None
    max_tokens: Annotated[
        int, Field(ge=1, le=MAX_COUNT, description=f"use 1 or more, or leave it out for {MAX_TOKENS_DEFAULT}")
    ] = MAX_TOKENS_DEFAULT
    temperature: Temperature = 1.0
    top_p: TopP = 1.0
    top_k: Annotated[int, Field(ge=0, le=MAX_COUNT, description="use a whole number; 0 switches it off")] = 0
    min_p: Annotated[float, Field(ge=0, le=1, description="use a number from 0 to 1; 0 switches it off")] = 0.0
    stop: Stops = ()
    seed: Annotated[
        Annotated[int, Field(ge=-(2**63), lt=2**64)] | None,
        Field(description="use a 64-bit integer, or leave it out"),
    ] = None
    logprobs: Annotated[
        bool, Field(description="use logprobs=True, with top_logprobs=0 to 20 for the number of alternatives")
    ] = False
    top_logprobs: Annotated[int, Field(ge=0, le=20, description="use 0 to 20, with logprobs=True")] = 0
    logit_bias: Annotated[
        dict[
            Annotated[int, Field(ge=0, le=MAX_COUNT)],
            Annotated[float, Field(ge=-100, le=100), BeforeValidator(no_truth)],
        ],
        Field(max_length=MAX_LOGIT_BIAS, description="give {token id: -100 to 100}; ids are whole numbers from 0"),
    ] = Field(default_factory=dict)
    presence_penalty: Penalty = 0.0
    frequency_penalty: Penalty = 0.0
    repetition_penalty: RepetitionPenalty = 1.0
    repetition_context_size: Annotated[int, Field(ge=1, le=4096, description="use 1 to 4096 tokens")] = 20
    chat_template_kwargs: Extra = Field(default_factory=dict)
    reasoning_effort: Annotated[
        Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None,
        Field(description="use none, minimal, low, medium, high or xhigh, with messages"),
    ] = None
    thinking_budget: ThinkingBudget = None
    tools: ToolList = Field(default_factory=list)
    tool_choice: ToolChoice = Choice()
    parallel_tool_calls: Flag = True
    allow_control_tokens: Flag = False
    response_format: Annotated[ResponseFormat | None, Field(description=FORMAT_HINT)] = None
    regex: Annotated[
        Annotated[str, AfterValidator(check_text)] | None, Field(description="use a regular expression as text")
    ] = None
    choice: Annotated[
        Annotated[list[str], Field(min_length=1), AfterValidator(check_choice)] | None,
        Field(description="use a list of the texts that may be answered"),
    ] = None
    grammar: Annotated[
        Annotated[str, AfterValidator(check_grammar)] | None,
        Field(description="use a grammar in Lark's notation, with the rule start"),
    ] = None
    deadline: Deadline = None
    keep_alive_s: KeepAlive = None
    require_worker: Flag = False
    prompt_cache_key: CacheKey = None
    metadata: Extra = Field(default_factory=dict)

    _truth_is_no_number = field_validator(
        *("max_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "top_logprobs", "presence_penalty"),
        *("frequency_penalty", "repetition_penalty", "repetition_context_size", "thinking_budget"),
        mode="before",
    )(no_truth)
    _number_is_no_truth = field_validator("logprobs", mode="before")(no_number)

    @model_validator(mode="after")
    def _fit_together(self) -> Parameters:
        if self.reasoning_effort is not None and self.messages is None:
            raise PydanticCustomError(
                "prompt", "reasoning_effort is for a chat template, and a prompt has none: send messages"
            )
        if self.top_logprobs and not self.logprobs:
            raise PydanticCustomError("logprobs", f"top_logprobs={self.top_logprobs} needs logprobs=True: give both")
        check_tools(self.tools, self.tool_choice, has_messages=self.messages is not None)
        return self

    @model_validator(mode="after")
    def _one_constraint(self) -> Parameters:
        given = [name for name in FIELDS if getattr(self, name) is not None]
        if len(given) > 1:
            raise PydanticCustomError("constraint", f"{' and '.join(given)} are set: give one of them")
        return self

    def conversation(self) -> list[dict[str, Any]] | None:
        """The messages as the engine gets them; ``None`` where there is a prompt."""
        return None if self.messages is None else [message.for_template() for message in self.messages]

    def constraint(self) -> Constraint | None:
        """The constraint of the answer; ``None`` where there is none."""
        return constraint_of({name: getattr(self, name) for name in FIELDS})

    @property
    def is_json(self) -> bool:
        """Whether the answer is JSON."""
        return self.response_format is not None and self.response_format.type != "text"

    def called(self) -> Tools | None:
        """The functions that the model may call; ``None`` where there are none."""
        parallel = self.parallel_tool_calls if "parallel_tool_calls" in self.model_fields_set else None
        return for_engine(self.tools, self.tool_choice, parallel=parallel)

    def sampling(self, model: Mapping[str, float] | None = None) -> Sampling:
        """The part that the engine's sampler needs.

        Args:
            model: the model's own defaults, for fields that neither the request nor the catalogue sets.
        """
        ours = {field_.name: getattr(self, field_.name) for field_ in fields(Sampling)}
        return Sampling(
            **ours | {name: value for name, value in (model or {}).items() if name not in self.model_fields_set}
        )


class ParameterValues(TypedDict, total=False):
    """The same fields, for the signature of ``generate.delay``."""

    messages: list[dict[str, Any]]
    prompt: str
    model: str
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    stop: str | list[str]
    seed: int
    logprobs: bool
    top_logprobs: int
    logit_bias: dict[int, float]
    presence_penalty: float
    frequency_penalty: float
    repetition_penalty: float
    repetition_context_size: int
    chat_template_kwargs: dict[str, Any]
    reasoning_effort: str
    thinking_budget: int
    tools: list[dict[str, Any]]
    tool_choice: str | dict[str, Any]
    parallel_tool_calls: bool
    allow_control_tokens: bool
    response_format: Any
    regex: str
    choice: list[str]
    grammar: str
    deadline: float
    keep_alive_s: float
    require_worker: bool
    prompt_cache_key: str
    metadata: dict[str, Any]


def normalise(values: dict[str, Any]) -> dict[str, Any]:
    """The keywords as they are sent: plain JSON, without ``None`` and without what changes nothing.

    Raises:
        InvalidRequest: a value is no data, or nested too deeply.
    """
    given = {str(name): plain_field(str(name), value) for name, value in values.items() if not is_left_out(value)}
    kept = without_neutral(given)
    if "messages" in kept:
        kept["messages"] = _tidied(kept["messages"])
    if isinstance(kept.get("tools"), list):
        kept["tools"] = [tidied_tool(tool) for tool in kept["tools"]]
    return kept


def _tidied(messages: Any) -> Any:
    if not isinstance(messages, list):
        return messages
    return [tidied(message, f"messages[{n}]") for n, message in enumerate(messages)]


def check_prompt(field: str, value: Any) -> Any:
    """The value of ``messages`` or ``prompt`` as it is sent, where all other parameters have been checked.

    Raises:
        InvalidRequest: it is wrong; the message is that of :func:`check`.
    """
    value = plain_field(field, value)
    if field == "messages":
        value = _tidied(value)
    validated(Prompt, {field: value})
    return value


def plain_field(name: str, value: Any) -> Any:
    """A field's value as it is sent; a type as ``response_format`` is its schema. Raises InvalidRequest for what is no data."""
    if type(value) in DATA:  # most are
        return value
    try:
        return plain(as_response_format(value) if name == "response_format" else value, shown_name(name))
    except InvalidRequest as error:
        field = Parameters.model_fields.get(name)
        raise InvalidRequest(f"{error}; {field.description}" if field else str(error)) from None


def check(values: dict[str, Any], defaults: dict[str, Any] | None = None) -> Parameters:
    """Check keywords that have been normalised.

    Args:
        values: what the producer gave.
        defaults: the model's own defaults, for what the producer left out.

    Raises:
        InvalidRequest: the message names the first wrong field, its value and the remedy.
    """
    refuse_unknown(values, Parameters.model_fields)
    return validated(Parameters, {**(defaults or {}), **values})


def parse(values: dict[str, Any], defaults: dict[str, Any] | None = None) -> Parameters:
    """:func:`normalise`, then :func:`check`; ``None`` counts as left out, as OpenAI's clients send it."""
    return check(normalise(values), defaults)
