"""The parameters of ``rerank``: those of Cohere, Jina and vLLM, and what every task of this project takes."""

from __future__ import annotations

from typing import Annotated, Any, TypedDict

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from tasks.client.request.chaining import require_free, text_of
from tasks.client.request.embedding import normalise
from tasks.client.request.explain import refuse_unknown, validated
from tasks.client.request.fields import Deadline, Extra, Flag, KeepAlive, ModelName, no_truth, whole_text
from tasks.client.request.form import Form
from tasks.client.request.prompt import MAX_PROMPT_BYTES
from tasks.errors import InvalidRequest

#: As many documents as ``embed`` takes inputs.
MAX_DOCUMENTS = 2048
#: Fields that other clients send, and what to do instead.
INSTEAD = {
    "texts": "use documents",
    "passages": "use documents",
    "input": "use query and documents",
    "messages": "use query and documents",
    "prompt": "use query and documents",
    "top_k": "use top_n",
    "rank_fields": "documents are texts; put the fields together into one",
    "max_chunks_per_doc": "documents are not split; send shorter pieces",
    "max_tokens_per_doc": "a document is cut where the model's context ends; send shorter pieces",
    "truncate_prompt_tokens": "a document is cut where the model's context ends; send shorter pieces",
    "max_tokens": "nothing is generated; leave it out",
    "temperature": "nothing is generated; leave it out",
}


def _query(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise PydanticCustomError("query", "is empty" if value == "" else "no text")
    return whole_text(value, "query")


def _documents(value: Any) -> tuple[str, ...]:
    """Texts, each alone or as the ``text`` of an object."""
    if not isinstance(value, list | tuple) or not value:
        raise PydanticCustomError("documents", "no list with texts")
    if len(value) > MAX_DOCUMENTS:
        raise PydanticCustomError(
            "documents", f"{len(value)} documents; the limit is {MAX_DOCUMENTS}; send several requests, as a group"
        )
    return tuple(_document(place, document) for place, document in enumerate(value))


def _document(place: int, value: Any) -> str:
    text = value["text"] if isinstance(value, dict) and value.keys() == {"text"} else value
    if isinstance(text, str) and text:
        return whole_text(text, f"documents[{place}]")
    fault = "is empty" if text == "" else f"is a {type(text).__name__}"
    raise PydanticCustomError(
        "documents", f"documents[{place}] {fault}; give some text, or an object with nothing but text"
    )


class Parameters(BaseModel):
    """The parameters of ``rerank``. A field's description says what to do about a wrong value."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)

    query: Annotated[str, BeforeValidator(_query), Field(description="give the text that documents are scored for")]
    documents: Annotated[
        tuple[str, ...],
        BeforeValidator(_documents, json_schema_input_type=list[str | dict[str, str]]),
        Field(description=f"give a list of 1 to {MAX_DOCUMENTS} texts"),
    ]
    model: ModelName = None
    top_n: Annotated[
        Annotated[int, Field(ge=1)] | None,
        BeforeValidator(no_truth),
        Field(description="use 1 or more, or leave it out for all documents"),
    ] = None
    return_documents: Flag = False
    deadline: Deadline = None
    keep_alive_s: KeepAlive = None
    require_worker: Flag = False
    metadata: Extra = Field(default_factory=dict)


class ParameterValues(TypedDict, total=False):
    """The same fields, for the signature of ``rerank.delay``."""

    query: str
    documents: list[str] | list[dict[str, str]]
    model: str
    top_n: int
    return_documents: bool
    deadline: float
    keep_alive_s: float
    require_worker: bool
    metadata: dict[str, Any]


def check(values: dict[str, Any], defaults: dict[str, Any]) -> Parameters:
    """Check keywords that have been normalised.

    Raises:
        InvalidRequest: the message names the first wrong field, its value and the remedy.
    """
    refuse_unknown(values, Parameters.model_fields, "rerank", INSTEAD)
    for name in ("query", "documents"):
        if name not in values:
            raise InvalidRequest(f"{name} is missing; {Parameters.model_fields[name].description}")
    given = validated(Parameters, {**defaults, **values})
    documents = sum(len(text.encode()) for text in given.documents)
    # The query is computed with each document.
    size = documents + len(given.query.encode()) * len(given.documents)
    if size > MAX_PROMPT_BYTES:
        raise InvalidRequest(
            f"documents: {size} bytes in all, the query counted with each; the limit is {MAX_PROMPT_BYTES}; send several "
            "requests, as a group"
        )
    return given


def with_previous(previous: Any, values: dict[str, Any]) -> dict[str, Any]:
    """The keywords with the answer of the task before in a chain as their query.

    Raises:
        InvalidRequest: it is no text, or there is a query already.
    """
    if previous is None:
        return values
    require_free("query", values)
    return {**values, "query": text_of(previous)}


#: What ``rerank`` takes.
RERANKING: Form[Parameters] = Form(Parameters.model_fields, normalise, check, with_previous)
