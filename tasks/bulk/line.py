"""One line of a bulk job's input: a request of OpenAI's batch interface, or plain parameters of ``generate``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from tasks.client.request.compatibility import IGNORED
from tasks.client.request.embedding import EMBEDDING
from tasks.client.request.explain import refuse_unknown
from tasks.client.request.prompt import MAX_PROMPT_BYTES
from tasks.client.request.reranking import RERANKING
from tasks.client.sending.request import GENERATION
from tasks.errors import InvalidRequest
from tasks.messages.encoding import to_compact_json
from tasks.names import EMBED, GENERATE, RERANK

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasks.client.request.form import Form
    from tasks.errors import GenerationError

Shape: TypeAlias = Literal["openai", "plain"]

#: A line that is longer is not read: it fails alone.
MAX_LINE_BYTES = MAX_PROMPT_BYTES
MAX_ID_CHARACTERS = 512
#: The paths of OpenAI's interface that a line may name, and which parameter has the prompt there.
CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
#: Cohere's and Jina's path, which the gateway has, too.
RERANKS = "/v1/rerank"
PATHS = {CHAT: "messages", COMPLETIONS: "prompt", EMBEDDINGS: "input", RERANKS: "query"}
#: The tasks that answer lines, where that is not ``generate``, and their parameters.
_TASKS: dict[str, tuple[str, Form[Any]]] = {EMBEDDINGS: (EMBED, EMBEDDING), RERANKS: (RERANK, RERANKING)}
_NOT_FOR_LINES = frozenset({*IGNORED, "service_tier"})
_ENVELOPE = frozenset({"custom_id", "method", "url", "body"})


@dataclass(frozen=True, slots=True)
class Line:
    """One request. ``values`` are its parameters, checked; ``number`` counts lines from 1."""

    number: int
    id: str | None
    shape: Shape
    values: dict[str, Any]
    url: str = CHAT

    @property
    def task(self) -> str:
        """The task that answers it."""
        return _TASKS[self.url][0] if self.url in _TASKS else GENERATE

    @property
    def prompt(self) -> Any:
        """The question: a text, messages, the inputs of ``embed``, or the query and the documents of ``rerank``."""
        if self.url == RERANKS:
            return [self.values["query"], self.values["documents"]]
        return self.values.get("prompt") or self.values.get("messages") or self.values.get("input")

    @property
    def head(self) -> str:
        """The beginning of the prompt: lines that begin alike share an engine's cache of it."""
        prompt = self.prompt
        return (prompt if isinstance(prompt, str) else to_compact_json(prompt))[:1024]

    def refused(self, error: GenerationError) -> BadLine:
        """This line, which cannot be sent."""
        return BadLine(self.number, self.id, self.shape, error, self.url)


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that cannot be sent, and why. ``id`` is ``None`` where it has none that can be read."""

    number: int
    id: str | None
    shape: Shape
    error: GenerationError
    url: str = CHAT


def read_line(
    number: int, given: bytes | Mapping[str, Any], defaults: Mapping[str, Any], shape: Shape = "plain"
) -> Line | BadLine:
    """Understand one line.

    Args:
        number: counts from 1.
        given: the text of the line, or what it would say.
        defaults: parameters of all lines; what a line says itself goes before them.
        shape: what a line that cannot be read counts as.
    """
    line_id: str | None = None
    url = CHAT
    try:
        record = parsed(given) if isinstance(given, bytes) else dict(given)
        shape = shape_of(record)
        if shape == "openai":
            line_id = custom_id_of(record)
            url, values = envelope_of(record)
        else:
            line_id = _id(record.pop("id", None), "id", required=False) or str(number)
            values = record
        return Line(number, line_id, shape, _checked(url, values, defaults), url)
    except InvalidRequest as error:
        error.args = (f"line {number}: {error}", *error.args[1:])
        return BadLine(number, line_id, shape, error, url)


def _checked(url: str, values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters as they are sent, with those defaults that the line's task has.

    Raises:
        InvalidRequest: one of them is wrong.
    """
    if url in _TASKS:
        _, form = _TASKS[url]
        known: Mapping[str, Any] = {name: value for name, value in defaults.items() if name in form.fields}
    else:
        form, known = GENERATION, defaults
    sent = form.normalise({**known, **values})
    form.check(sent, {})
    return sent


def check_defaults(defaults: Mapping[str, Any]) -> None:
    """Check the names of parameters for all lines: with a wrong one each line would fail alone.

    Raises:
        InvalidRequest: no task has one of them.
    """
    fields = {
        **GENERATION.fields,
        **{name: field for _, form in _TASKS.values() for name, field in form.fields.items()},
    }
    refuse_unknown(GENERATION.normalise(dict(defaults)), fields)


def parsed(text: bytes) -> dict[str, Any]:
    """The object in the text of a line.

    Raises:
        InvalidRequest: there is none.
    """
    try:
        record = json.loads(text.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"byte {error.start + 1} is not UTF-8: convert the file to UTF-8") from None
    except (ValueError, RecursionError) as error:
        remedy = "remove the comma at its end" if text.rstrip().endswith(b",") else "write one JSON object in each line"
        raise InvalidRequest(f"not JSON ({error}): {remedy}") from None
    if not isinstance(record, dict):
        raise InvalidRequest(f"a JSON {type(record).__name__}: write one JSON object in each line")
    return record


def shape_of(record: Mapping[str, Any]) -> Shape:
    """In whose shape a line is."""
    return "openai" if _ENVELOPE & record.keys() else "plain"


def id_in(record: Mapping[str, Any]) -> str | None:
    """The id that a line gives itself, for looking for duplicates."""
    found = record.get("custom_id" if shape_of(record) == "openai" else "id")
    return None if found is None else str(found)


def _id(value: Any, name: str, *, required: bool) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if value is None and not required:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID_CHARACTERS:
        raise InvalidRequest(
            f"{name}={value!r:.60}: use text of 1 to {MAX_ID_CHARACTERS} characters, of its own for each line"
        )
    return value


def custom_id_of(record: Mapping[str, Any]) -> str:
    """The id of a line in OpenAI's shape.

    Raises:
        InvalidRequest: it has none.
    """
    return str(_id(record.get("custom_id"), "custom_id", required=True))


def envelope_of(record: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The path and the parameters of a line in OpenAI's shape.

    Raises:
        InvalidRequest: they are not there.
    """
    method, url, body = record.get("method"), record.get("url"), record.get("body")
    if method != "POST":
        raise InvalidRequest(f'method={method!r:.60}: use "POST"')
    if not isinstance(url, str) or url not in PATHS:
        raise InvalidRequest(f"url={url!r:.60}: use {' or '.join(PATHS)}")
    if not isinstance(body, dict):
        raise InvalidRequest("body: expected an object with the request's parameters")
    if body.get(PATHS[url]) is None:
        raise InvalidRequest(f"body: {url} needs {PATHS[url]}")
    return url, _as_parameters(url, body)


def _as_parameters(url: str, body: dict[str, Any]) -> dict[str, Any]:
    """A body without what its endpoint ignores, and with what the older interface says otherwise.

    A service tier says how urgent a request is: those of a job are not.
    """
    if url in _TASKS:
        return body
    values = {name: value for name, value in body.items() if name not in _NOT_FOR_LINES}
    most = values.get("logprobs")
    if url == COMPLETIONS and isinstance(most, int) and not isinstance(most, bool):
        values |= {"logprobs": True, "top_logprobs": most}
    return values
