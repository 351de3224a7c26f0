"""``/v1/files`` and ``/v1/batches`` as OpenAI's own client uses them: real gateways, a real worker, one folder."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openai
import pytest
from openai.types import Batch, FileObject

from tasks.gateway.batches.batch import FINAL
from tasks.gateway.batches.batch import Batch as StoredBatch
from tasks.gateway.batches.batches import Batches
from tasks.gateway.records.access_key import LOCAL, AccessKey, id_of, new_key
from tasks.gateway.records.store import Store
from tasks.server.connection import connect
from tests.gateway import GatewayProcess
from tests.support import left_of_bulk, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis
    from celery import Celery
    from openai import OpenAI

    from tests.conftest import StartWorker

pytestmark = pytest.mark.xdist_group("gateway-batches")

CHAT: Any = "/v1/chat/completions"
LEASE = {"CELERY_MLX_GATEWAY_BATCH_LEASE_S": "1"}


def line(custom_id: str, url: str = CHAT, **body: Any) -> str:
    """One line of a batch's input."""
    given = {"model": "fake:1", "messages": [{"role": "user", "content": custom_id}], "max_tokens": 3, **body}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": given})


def put(client: OpenAI, *lines: str) -> str:
    """The id of a file with these lines."""
    content = "\n".join(lines).encode()
    return client.files.create(file=("requests.jsonl", content), purpose="batch").id


def begin(client: OpenAI, *lines: str, **options: Any) -> Batch:
    """A batch of these lines."""
    given: dict[str, Any] = {"endpoint": CHAT, "completion_window": "24h", **options}
    return client.batches.create(input_file_id=put(client, *lines), **given)


def ended(client: OpenAI, batch: Batch) -> Batch:
    """A batch once nothing more comes of it."""

    def look() -> Batch | None:
        found = client.batches.retrieve(batch.id)
        return found if found.status in FINAL else None

    found = wait_until(look, timeout_s=60, about="the end of a batch")
    assert found is not None
    return found


def lines_of(client: OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    """The lines of a file."""
    return [] if file_id is None else [json.loads(text) for text in client.files.content(file_id).text.splitlines()]


@pytest.fixture(scope="module")
def gateway(shared_worker: StartWorker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """A gateway and a worker with a fast fake model."""
    shared_worker("-c", "8", env={"CELERY_MLX_MODELS": "fake:1", "CELERY_MLX_HEARTBEAT_S": "0.2"})
    env = {**LEASE, "CELERY_MLX_GATEWAY_FILE_MIB": "1", "CELERY_MLX_GATEWAY_FILES_MIB": "1"}
    with GatewayProcess(tmp_path_factory.mktemp("gateway") / "log", env=env) as made:
        yield made


def test_the_flow_of_openai(gateway: GatewayProcess) -> None:
    """Upload, create, poll, fetch: answers and errors come in two files, each line once, and all objects have OpenAI's shape."""
    client = gateway.openai()
    good = [line(f"good-{n}") for n in range(20)]
    batch = begin(client, *good, line("bad", top_p=7), line("none", model="none"), metadata={"job": "nightly"})
    assert batch.status == "validating"
    done = ended(client, batch)
    Batch.model_validate(done.model_dump(), strict=True)
    assert (done.status, done.metadata, done.errors) == ("completed", {"job": "nightly"}, None)
    assert done.request_counts is not None
    assert done.request_counts.model_dump() == {"total": 22, "completed": 20, "failed": 2}
    assert done.usage is not None
    assert done.usage.output_tokens == 60
    answers, errors = lines_of(client, done.output_file_id), lines_of(client, done.error_file_id)
    assert sorted(answer["custom_id"] for answer in answers) == sorted(f"good-{n}" for n in range(20))
    assert all(answer["response"]["body"]["object"] == "chat.completion" for answer in answers)
    assert {error["custom_id"]: error["response"]["status_code"] for error in errors} == {"bad": 400, "none": 404}
    assert client.batches.list(limit=1).data[0].id == batch.id
    files = client.files.list(purpose="batch_output").data
    assert {done.output_file_id, done.error_file_id} <= {file.id for file in files}
    FileObject.model_validate(files[0].model_dump(), strict=True)
    assert client.files.delete(done.input_file_id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(done.input_file_id)
    with pytest.raises(openai.ConflictError, match="completed"):
        client.batches.cancel(batch.id)


def test_vectors(gateway: GatewayProcess) -> None:
    """A batch of ``/v1/embeddings`` has their vectors."""
    client = gateway.openai()
    body = {"model": "fake:1:dimensions=3", "input": ["one", "two"]}
    given = json.dumps({"custom_id": "v", "method": "POST", "url": "/v1/embeddings", "body": body})
    (answer,) = lines_of(client, ended(client, begin(client, given, endpoint="/v1/embeddings")).output_file_id)
    assert [len(item["embedding"]) for item in answer["response"]["body"]["data"]] == [3, 3]


@pytest.mark.parametrize(
    ("lines", "codes"),
    [
        (["\n"], {"empty_file": None}),
        (["{", "[]"], {"invalid_json_line": 2}),
        ([line("a"), line("a")], {"duplicate_custom_id": 2}),
        ([line("a", url="/v1/completions", prompt="x")], {"mismatched_endpoint": 1}),
        ([line("a", url="/v1/responses")], {"invalid_request": 1}),
        (["{}"], {"invalid_request": 1}),
    ],
)
def test_an_input_that_is_wrong(gateway: GatewayProcess, lines: list[str], codes: dict[str, int | None]) -> None:
    """The batch fails before anything is sent, and says which line is wrong with what."""
    client = gateway.openai()
    failed = ended(client, begin(client, *lines))
    Batch.model_validate(failed.model_dump(), strict=True)
    assert failed.status == "failed"
    assert failed.errors is not None
    assert {error.code: error.line for error in failed.errors.data or ()} == codes


def test_what_is_refused(gateway: GatewayProcess) -> None:
    """A form without a file or for another purpose, too large a file, no such file or window: each with its field."""
    client = gateway.openai()
    with pytest.raises(openai.BadRequestError, match="purpose"):
        client.files.create(file=b"{}", purpose="fine-tune")
    with pytest.raises(openai.BadRequestError, match="expires_after"):
        client.files.create(file=b"{}", purpose="batch", expires_after={"anchor": "created_at", "seconds": 1})
    with pytest.raises(openai.APIStatusError, match="more than 1 MiB") as large:
        client.files.create(file=b"x" * (2**20 + 1), purpose="batch")
    assert large.value.status_code == 413
    client.files.create(file=b"x" * 700_000, purpose="batch")
    with pytest.raises(openai.APIStatusError, match="have no room") as full:
        client.files.create(file=b"x" * 700_000, purpose="batch")
    assert full.value.status_code == 413
    for file in client.files.list(purpose="batch"):
        client.files.delete(file.id)
    with pytest.raises(openai.BadRequestError, match="completion_window"):
        client.batches.create(input_file_id="file-1", endpoint=CHAT, completion_window="soon")  # type: ignore[arg-type]
    for wrong in ("file-1", "file-../../etc", f"file-{'0' * 32}"):
        with pytest.raises(openai.NotFoundError):
            client.batches.create(input_file_id=wrong, endpoint=CHAT, completion_window="24h")
    with gateway.http() as http:
        assert http.post("/v1/files", json={"purpose": "batch"}).json()["error"]["code"] == "invalid_form"
        assert http.post("/v1/files", files={"other": b"x"}).json()["error"]["param"] == "file"
        assert http.get("/v1/files", params={"limit": "many"}).status_code == 400


def answered(client: openai.OpenAI, batch: Batch) -> int:
    """How many of its lines have an answer."""
    counts = client.batches.retrieve(batch.id).request_counts
    return counts.completed if counts else 0


def test_a_batch_that_is_cancelled(gateway: GatewayProcess, shared_redis: redis.Redis) -> None:
    """It ends as ``cancelled`` with what was answered, its file is in use until then, and nothing of it stays in Redis."""
    client = gateway.openai()
    batch = begin(client, line("quick"), *(line(f"l{n}", model="fake:40", max_tokens=4_000) for n in range(6)))
    wait_until(lambda: answered(client, batch), timeout_s=60, about="an answer")
    with pytest.raises(openai.BadRequestError, match="cancel that first"):
        client.files.delete(batch.input_file_id)
    assert client.batches.cancel(batch.id).status == "cancelling"
    cancelled = ended(client, batch)
    assert cancelled.status == "cancelled"
    assert cancelled.cancelled_at
    assert [line["custom_id"] for line in lines_of(client, cancelled.output_file_id)] == ["quick"]
    job = batch.id.removeprefix("batch_")
    wait_until(lambda: not shared_redis.keys(f"*bulk-{job}-*-meta"), about="its requests' end")


def test_a_batch_whose_time_is_over(gateway: GatewayProcess) -> None:
    """Lines that are left at the deadline are in the error file as ``batch_expired``; the batch is ``expired``."""
    client = gateway.openai()
    now = int(time.time())
    late = StoredBatch(
        id=f"batch_{uuid.uuid4().hex}",
        owner=LOCAL.id,
        endpoint=CHAT,
        input_file_id=put(client, line("a"), line("b")),
        completion_window="1m",
        created_at=now - 61,
        expires_at=now - 1,
        output_ttl_s=3_600,
    )
    Batches(Path(gateway.files) / "batches", kept_s=3_600).write(late)
    expired = ended(client, client.batches.retrieve(late.id))
    assert (expired.status, expired.output_file_id) == ("expired", None)
    errors = {line["custom_id"]: line["error"]["code"] for line in lines_of(client, expired.error_file_id)}
    assert errors == {"a": "batch_expired", "b": "batch_expired"}


def test_keys_see_their_own(gateway: GatewayProcess, shared_app: Celery) -> None:
    """Files and batches of another key are not there; a model that it may not use fails the batch; its tokens are counted."""
    store = Store(connect(shared_app))
    secrets = [new_key(), new_key()]
    for secret in secrets:
        store.add_key(secret, AccessKey(id=id_of(secret), name="test", models=("fake:1",)))
    mine, other = (gateway.openai(secret) for secret in secrets)
    try:
        batch = ended(mine, begin(mine, line("a")))
        with pytest.raises(openai.NotFoundError):
            other.batches.retrieve(batch.id)
        with pytest.raises(openai.NotFoundError):
            other.files.content(batch.output_file_id or "")
        assert not list(other.files.list())
        assert not list(other.batches.list())
        refused = ended(mine, begin(mine, line("a", model="fake:40")))
        assert [error.code for error in (refused.errors and refused.errors.data) or ()] == ["model_not_allowed"]
        wait_until(lambda: store.usage(id_of(secrets[0]))["completion_tokens"] == 3)
    finally:
        for secret in secrets:
            store.revoke_key(id_of(secret))


def test_a_batch_outlives_its_gateways(gateway: GatewayProcess, shared_redis: redis.Redis, tmp_path: Path) -> None:
    """``kill -9`` of the gateway that drives a batch, and SIGTERM to the next: another goes on, and each line is there once."""
    del gateway  # its worker
    env = {**LEASE, "CELERY_MLX_GATEWAY_FILES": str(tmp_path / "files")}
    ids = [f"line-{n}" for n in range(60)]

    def wait_for(client: OpenAI, count: int) -> None:
        wait_until(
            lambda: client.batches.retrieve(batch.id).request_counts.completed >= count,  # type: ignore[union-attr]
            timeout_s=60,
            about=f"{count} answers",
        )

    with GatewayProcess(tmp_path / "first", env=env) as first:
        client = first.openai()
        batch = begin(client, *(line(custom_id, model="fake:20", max_tokens=20) for custom_id in ids))
        wait_for(client, 5)
        first.kill()
    with GatewayProcess(tmp_path / "second", env=env) as second:
        wait_for(second.openai(), 20)
    with GatewayProcess(tmp_path / "third", env=env) as third:
        client = third.openai()
        done = ended(client, batch)
        assert sorted(line["custom_id"] for line in lines_of(client, done.output_file_id)) == sorted(ids)
    assert (done.status, done.error_file_id) == ("completed", None)
    wait_until(lambda: left_of_bulk(shared_redis, batch.id.removeprefix("batch_")) == [])
