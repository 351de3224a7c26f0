"""The parameters of ``embed``: OpenAI's, the kind of the texts, and what every task of this project takes."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypedDict

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from tasks.client.request.chaining import require_free, text_of
from tasks.client.request.explain import refuse_unknown, shown_name, validated
from tasks.client.request.fields import MAX_COUNT, Deadline, Extra, Flag, KeepAlive, ModelName, no_truth, whole_text
from tasks.client.request.form import Form
from tasks.client.request.plain import is_left_out, plain
from tasks.client.request.prompt import MAX_PROMPT_BYTES
from tasks.errors import InvalidRequest

#: As many inputs as OpenAI takes in one request.
MAX_INPUTS = 2048
#: The longest vectors of any model are some thousands of numbers.
MAX_DIMENSIONS = 65_536
#: Fields that other clients send, and what to do instead.
INSTEAD = {
    "messages": "use input, with texts",
    "prompt": "use input, with texts",
    "texts": "use input",
    "inputs": "use input",
    "prompt_name": "use input_type",
    "task": "use input_type",
    "truncate": "texts are never cut; send shorter pieces",
    "truncate_prompt_tokens": "texts are never cut; send shorter pieces",
    "normalize": "the model's own files say whether vectors have the length 1; leave it out",
    "add_special_tokens": "the model's tokenizer says which are added; give token ids to add none",
    "embedding_types": "use encoding_format, float or base64",
    "max_tokens": "nothing is generated; leave it out",
    "temperature": "nothing is generated; leave it out",
}

Input = str | tuple[int, ...]


def _inputs(value: Any) -> tuple[Input, ...]:
    """OpenAI's four forms as one: a text, a list of texts, the tokens of one input, a list of such."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list | tuple) or not value:
        raise PydanticCustomError("input", "no text, and no list with texts")
    if all(_is_token(token) for token in value):
        value = [value]
    if len(value) > MAX_INPUTS:
        raise PydanticCustomError(
            "input", f"{len(value)} inputs; the limit is {MAX_INPUTS}; send several requests, as a group"
        )
    inputs = tuple(_input(place, item) for place, item in enumerate(value))
    size = sum(len(item.encode()) if isinstance(item, str) else 4 * len(item) for item in inputs)
    if size > MAX_PROMPT_BYTES:
        raise PydanticCustomError(
            "input", f"{size} bytes in all; the limit is {MAX_PROMPT_BYTES}; send several requests, as a group"
        )
    return inputs


def _input(place: int, value: Any) -> Input:
    if isinstance(value, str) and value:
        return whole_text(value, f"input[{place}]")
    if isinstance(value, list | tuple) and value and all(map(_is_token, value)):
        return tuple(value)
    fault = "is empty" if value in ("", [], ()) else f"is a {type(value).__name__}"
    raise PydanticCustomError("input", f"input[{place}] {fault}; give some text, or the ids of its tokens")


def _is_token(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT


class Parameters(BaseModel):
    """The parameters of ``embed``. A field's description says what to do about a wrong value."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)

    input: Annotated[
        tuple[Input, ...],
        BeforeValidator(_inputs),
        Field(description=f"give one text, or a list of 1 to {MAX_INPUTS} texts or lists of token ids"),
    ]
    model: ModelName = None
    dimensions: Annotated[
        Annotated[int, Field(ge=1, le=MAX_DIMENSIONS)] | None,
        BeforeValidator(no_truth),
        Field(description="use 1 or more, up to the length of the model's vectors, or leave it out"),
    ] = None
    encoding_format: Annotated[Literal["float", "base64"], Field(description="use float or base64")] = "float"
    input_type: Annotated[
        Annotated[str, Field(min_length=1, max_length=64)] | None,
        Field(description="use the name of one of the model's prompts, such as query or document, or leave it out"),
    ] = None
    deadline: Deadline = None
    keep_alive_s: KeepAlive = None
    require_worker: Flag = False
    metadata: Extra = Field(default_factory=dict)


class ParameterValues(TypedDict, total=False):
    """The same fields, for the signature of ``embed.delay``."""

    input: str | list[str] | list[int] | list[list[int]]
    model: str
    dimensions: int
    encoding_format: Literal["float", "base64"]
    input_type: str
    deadline: float
    keep_alive_s: float
    require_worker: bool
    metadata: dict[str, Any]


def normalise(values: dict[str, Any]) -> dict[str, Any]:
    """The keywords as they are sent: plain JSON, without ``None``; ``user`` goes into ``metadata``.

    Raises:
        InvalidRequest: a value is no data, or nested too deeply.
    """
    given = {str(name): plain(value, shown_name(str(name))) for name, value in values.items() if not is_left_out(value)}
    if "user" in given and isinstance(given.get("metadata", {}), dict):
        given["metadata"] = {"user": given.pop("user"), **given.get("metadata", {})}
    return given


def check(values: dict[str, Any], defaults: dict[str, Any]) -> Parameters:
    """Check keywords that have been normalised.

    Raises:
        InvalidRequest: the message names the first wrong field, its value and the remedy.
    """
    refuse_unknown(values, Parameters.model_fields, "embed", INSTEAD)
    if "input" not in values:
        raise InvalidRequest(f"input is missing; {Parameters.model_fields['input'].description}")
    return validated(Parameters, {**defaults, **values})


def with_previous(previous: Any, values: dict[str, Any]) -> dict[str, Any]:
    """The keywords with the answer of the task before in a chain as their input; a chord's answers are several.

    Raises:
        InvalidRequest: it is no text, or there is an input already.
    """
    if previous is None:
        return values
    require_free("input", values)
    texts = [text_of(answer) for answer in previous] if isinstance(previous, list | tuple) else [text_of(previous)]
    return {**values, "input": texts}


#: The form of ``embed``.
EMBEDDING: Form[Parameters] = Form(Parameters.model_fields, normalise, check, with_previous)
