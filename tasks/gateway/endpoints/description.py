"""The gateway as OpenAPI describes it: its paths, and the fields of their bodies, out of the models that check them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks import __version__
from tasks.bulk.line import PATHS
from tasks.client.request.compatibility import IGNORED
from tasks.client.request.embedding import Parameters as EmbeddingParameters
from tasks.client.request.parameters import Parameters
from tasks.client.request.reranking import Parameters as RerankingParameters
from tasks.gateway.endpoints.fields import NOT_CHAT, NOT_COMPLETIONS, NOT_RESPONSES
from tasks.gateway.endpoints.order import MAX_CHOICES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic import BaseModel

_REF = "#/components/schemas/{model}"
_TEXT, _WHOLE, _FLAG, _OBJECT = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}, {"type": "object"}
#: The fields of each endpoint that the gateway itself reads; all others are parameters of ``generate``.
CHAT: Mapping[str, Any] = {
    "n": {"type": "integer", "minimum": 1, "maximum": MAX_CHOICES},
    "stream": _FLAG,
    "stream_options": {
        "type": "object",
        "properties": {"include_usage": _FLAG, "include_obfuscation": _FLAG},
        "additionalProperties": False,
    },
    "service_tier": {"enum": ["auto", "default", "flex", "priority"]},
    "max_completion_tokens": {"type": "integer", "minimum": 1},
    "user": _TEXT,
}
RESPONSES: Mapping[str, Any] = {
    "background": _FLAG,
    "include": {"type": "array", "items": _TEXT},
    "input": {"anyOf": [_TEXT, {"type": "array", "items": _OBJECT, "minItems": 1}]},
    "instructions": _TEXT,
    "max_output_tokens": {"type": "integer", "minimum": 1},
    "reasoning": {"type": "object", "properties": {"effort": _TEXT}},
    "text": {"type": "object", "properties": {"format": _OBJECT, "verbosity": _TEXT}},
    "tool_choice": {"anyOf": [_TEXT, _OBJECT]},
    "tools": {"type": "array", "items": _OBJECT},
    "top_logprobs": {"type": "integer", "minimum": 0, "maximum": 20},
    "truncation": {"const": "disabled"},
    **{name: CHAT[name] for name in ("service_tier", "stream", "stream_options", "user")},
}
COMPLETIONS: Mapping[str, Any] = {
    **{name: CHAT[name] for name in ("n", "stream", "stream_options", "user")},
    "prompt": {"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": MAX_CHOICES}]},
    "logprobs": {"type": "integer", "minimum": 0, "maximum": 20},
}
BATCH: Mapping[str, Any] = {
    "completion_window": {"type": "string", "pattern": "^[1-9][0-9]{0,4}[mhd]$"},
    "endpoint": {"enum": [*PATHS]},
    "input_file_id": _TEXT,
    "metadata": {"type": "object", "additionalProperties": _TEXT},
    "output_expires_after": {"type": "object", "properties": {"anchor": {"const": "created_at"}, "seconds": _WHOLE}},
}
_FORM = {
    "type": "object",
    "properties": {"file": {"type": "string", "format": "binary"}, "purpose": {"enum": ["batch"]}},
    "required": ["file", "purpose"],
}
_ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {"message": _TEXT, "type": _TEXT, "param": {"type": ["string", "null"]}, "code": _TEXT},
            "required": ["message", "type", "param", "code"],
        }
    },
    "required": ["error"],
}
#: The media types of answers that are not JSON.
_MEDIA = {"/": "text/html", "/metrics": "text/plain", "/v1/files/{id}/content": "application/octet-stream"}
_QUERIES = {
    "/v1/responses/{id}": ("stream", "starting_after"),
    "/v1/chat/completions/{id}": ("stream",),
    "/v1/files": ("after", "limit", "order", "purpose"),
    "/v1/batches": ("after", "limit"),
}


def describe(routes: Iterable[tuple[str, str, str]]) -> dict[str, Any]:
    """OpenAPI's document of these routes: the method, the path, and what it is for."""
    paths: dict[str, dict[str, Any]] = {}
    schemas: dict[str, Any] = {"Error": _ERROR}
    bodies = _bodies(schemas)
    for method, path, about in routes:
        path_ = path.replace(":path}", "}")
        operation: dict[str, Any] = {"summary": about, "responses": _answers(path_, streams=path_ in bodies)}
        parameters = _parameters(method, path_)
        if parameters:
            operation["parameters"] = parameters
        if method == "POST" and path_ in bodies:
            operation["requestBody"] = {"required": True, "content": bodies[path_]}
        paths.setdefault(path_, {})[method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "celery-mlx: OpenAI's interface on the queue", "version": __version__},
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{"key": []}, {}],
    }


def _bodies(schemas: dict[str, Any]) -> dict[str, Any]:
    generate, embed = _properties(Parameters, schemas), _properties(EmbeddingParameters, schemas)
    ignored: dict[str, Any] = {name: {} for name in IGNORED}

    def fields(own: Mapping[str, Any], left_out: Iterable[str], required: str) -> dict[str, Any]:
        rest = {name: schema for name, schema in generate.items() if name not in {*left_out}}
        return _json({**ignored, **rest, **own}, [required])

    return {
        "/v1/chat/completions": fields(CHAT, NOT_CHAT, "messages"),
        "/v1/completions": fields(COMPLETIONS, NOT_COMPLETIONS, "prompt"),
        "/v1/responses": fields(RESPONSES, NOT_RESPONSES, "input"),
        "/v1/embeddings": _json(embed, ["input"]),
        "/v1/rerank": _json(_properties(RerankingParameters, schemas), ["documents", "query"]),
        "/v1/batches": _json(BATCH, ["completion_window", "endpoint", "input_file_id"]),
        "/v1/files": {"multipart/form-data": {"schema": _FORM}},
    }


def _properties(model: type[BaseModel], schemas: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a model; schemas that they refer to go among the others."""
    described = model.model_json_schema(ref_template=_REF)
    schemas.update(described.pop("$defs", {}))
    found: dict[str, Any] = described["properties"]
    return found


def _json(properties: Mapping[str, Any], required: list[str]) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return {"application/json": {"schema": schema}}


def _answers(path: str, *, streams: bool) -> dict[str, Any]:
    media = _MEDIA.get(path)
    content: dict[str, Any] = {media: {}} if media else {"application/json": {"schema": _OBJECT}}
    if streams or path in _QUERIES:
        content["text/event-stream"] = {}
    error = {"application/json": {"schema": {"$ref": _REF.format(model="Error")}}}
    return {
        "200": {"description": "the answer", "content": content},
        "default": {"description": "an error in OpenAI's shape", "content": error},
    }


def _parameters(method: str, path: str) -> list[dict[str, Any]]:
    named = [part.strip("{}") for part in path.split("/") if part.startswith("{")]
    found: list[dict[str, Any]] = [{"name": name, "in": "path", "required": True, "schema": _TEXT} for name in named]
    if method == "GET":
        found += [{"name": name, "in": "query", "schema": _TEXT} for name in _QUERIES.get(path, ())]
    if method == "POST" and (path in PATHS or path == "/v1/rerank"):
        found.append({"name": "x-priority", "in": "header", "schema": {"enum": [*map(str, range(10))]}})
    return found
