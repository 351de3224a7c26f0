"""Answers that are data, through a worker: a real tiny model whose own words are noise."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import jsonschema
import pytest
from pydantic import BaseModel, Field

from benchmarks.parts.catalogue import write_catalogue
from benchmarks.parts.tiny_model import make_tiny_model
from tasks.client.request.structure import as_response_format
from tasks.errors import InvalidRequest
from tests.support import Reader, send_unchecked, wait_until

if TYPE_CHECKING:
    from celery import Celery

    from tasks.client.result import GenerateResult
    from tasks.generate import GenerateTask
    from tests.conftest import StartWorker
    from tests.support import Worker

pytestmark = pytest.mark.xdist_group("structured")
WAIT_S = 60.0
QUEUE = "structured"


class Ticket(BaseModel):
    """What a support request is about."""

    kind: Literal["bug", "question"]
    urgency: int = Field(ge=1, le=5)


@pytest.fixture(scope="module")
def node(shared_worker: StartWorker, tmp_path_factory: pytest.TempPathFactory) -> Worker:
    """A worker that serves a tiny model."""
    folder = tmp_path_factory.mktemp("structured")
    catalogue = write_catalogue(folder, {"tiny": make_tiny_model(folder / "tiny")})
    env = {"CELERY_MLX_CATALOGUE": str(catalogue), "CELERY_MLX_MODELS": "tiny", "CELERY_MLX_HEARTBEAT_S": "0.5"}
    return shared_worker("-c", "4", "-Q", QUEUE, env=env)


@pytest.fixture
def ask(shared_app: Celery, node: Worker) -> Any:
    """Sends a request to the model."""
    from tasks import generate

    task: GenerateTask = generate
    assert node

    def send(**values: Any) -> GenerateResult:
        values = {"model": "tiny", "prompt": "p", "temperature": 0, "max_tokens": 300, **values}
        return send_unchecked(task, QUEUE, **values)

    return send


def schema_format(schema: Any, **more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, **more}}


def test_a_pydantic_model(ask: Any) -> None:
    """The answer is an instance of the model, and plain data for who does not know it."""
    result = ask(response_format=as_response_format(Ticket))
    ticket = result.parsed(Ticket, timeout=WAIT_S)
    assert isinstance(ticket, Ticket)
    answer = result.get()
    assert Ticket.model_validate(answer["parsed"]) == ticket
    assert Ticket.model_validate_json(answer["text"]) == ticket
    assert answer["finish_reason"] == "stop"
    assert "warnings" not in answer


def test_every_kind(ask: Any) -> None:
    """JSON objects, choices, regular expressions and grammars beside each other and beside a free request."""
    free = ask(max_tokens=20)
    results = {
        "choice": ask(choice=["spam", "ham"]),
        "regex": ask(regex=r"[A-Z]{2}-\d{3}"),
        "grammar": ask(grammar='start: "(" NUMBER ")"\nNUMBER: /[0-9]{1,3}/'),
        "json_object": ask(response_format={"type": "json_object"}, max_tokens=40),
    }
    texts = {name: result.get(timeout=WAIT_S)["text"] for name, result in results.items()}
    assert texts["choice"] in {"spam", "ham"}
    assert len(texts["regex"]) == 6
    assert texts["grammar"].strip("()").isdigit()
    assert texts["json_object"].lstrip().startswith("{")
    assert "parsed" not in free.get(timeout=WAIT_S)
    with pytest.raises(InvalidRequest, match="no response_format of JSON"):
        free.parsed()


def test_what_is_cut_off_is_no_value(ask: Any) -> None:
    """With too few tokens the answer ends with ``length``, and there is no value of it."""
    result = ask(response_format=as_response_format(Ticket), max_tokens=5)
    answer = result.get(timeout=WAIT_S)
    assert (answer["finish_reason"], answer["parsed"]) == ("length", None)
    assert result.parsed(Ticket) is None


def test_a_stop_string_cuts_off_too(ask: Any) -> None:
    """A stop string keeps its meaning inside of JSON: what is before it is the text, and no value."""
    answer = ask(response_format=as_response_format(Ticket), stop='"kind"').get(timeout=WAIT_S)
    assert (answer["finish_reason"], answer["parsed"]) == ("stop", None)
    assert "kind" not in answer["text"]


def test_what_cannot_be_enforced(ask: Any) -> None:
    """It is an error that names the place and the remedy; with ``strict`` false it is left out, and the answer says so."""
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {"phone": {"type": "string", "format": "phone", "maxLength": 9}},
    }
    schema |= {"required": ["phone"], "additionalProperties": False}
    with pytest.raises(
        InvalidRequest, match=r"response_format: #/properties/phone: format: 'phone' is not known; leave"
    ):
        ask(response_format=schema_format(schema)).get(timeout=WAIT_S)
    answer = ask(response_format=schema_format(schema, strict=False)).get(timeout=WAIT_S)
    jsonschema.validate(answer["parsed"], schema)
    assert [warning.partition(": ")[0] for warning in answer["warnings"]] == ["#/properties/phone"]


def kill_engine(node: Worker) -> None:
    """``kill -9`` of the process that has the model."""
    pid = wait_until(lambda: (found := node.record()) and found.engines and found.engines[0].pid, about="an engine")
    assert pid
    with suppress(ProcessLookupError):  # the record may still have one that was killed before
        os.kill(pid, signal.SIGKILL)


def test_an_engine_that_is_killed_in_mid_string(ask: Any, node: Worker) -> None:
    """A greedy constrained answer goes on, on another engine, to the bytes that the undisturbed one has."""
    items = {"type": "string", "minLength": 15, "maxLength": 15}
    schema = {"type": "array", "items": items, "minItems": 16, "maxItems": 16}
    request = {"response_format": schema_format(schema), "max_tokens": 1200}
    undisturbed = Reader(ask(**request), WAIT_S)
    undisturbed.whole()
    for _ in range(5):  # on a busy machine a reader may get the first token when the last one has been made
        disturbed = Reader(ask(**request), WAIT_S)
        wait_until(partial(getattr, disturbed, "indices"), timeout_s=WAIT_S, about="a token")
        kill_engine(node)
        disturbed.whole()
        answer = disturbed.result.get(timeout=WAIT_S)
        if answer["attempt"] == 2:
            break
    assert answer["attempt"] == 2
    assert disturbed.text == undisturbed.text
    assert [token for chunk in disturbed.chunks for token in chunk.ids] == [
        token for chunk in undisturbed.chunks for token in chunk.ids
    ]
    jsonschema.validate(answer["parsed"], schema)
