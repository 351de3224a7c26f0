"""``celery -A tasks gateway`` as OpenAI's own client meets it: a real gateway, a real worker, unmodified clients."""

from __future__ import annotations

import json
import resource
from contextlib import ExitStack, closing, suppress
from itertools import islice
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from openai.types import Completion, CreateEmbeddingResponse, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from benchmarks.parts.catalogue import write_catalogue
from benchmarks.parts.tiny_model import make_tiny_model
from tasks.cli.gateway import gateway as gateway_cli
from tasks.cli.keys import keys as keys_cli
from tasks.engine.fake import chat_prompt, fake_text
from tasks.gateway.connection.server import OPEN_FILES
from tasks.gateway.records.access_key import LOCAL, id_of
from tasks.messages.journal import End, decode
from tasks.server import keys
from tests.gateway import GatewayProcess, events, read_until
from tests.gateway_bodies import bodies
from tests.line import Line
from tests.support import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import redis
    from celery import Celery

    from tasks.demo.embedded import EmbeddedServer
    from tests.conftest import StartWorker

pytestmark = pytest.mark.xdist_group("gateway")

SLOTS = 8
#: A site whose pages may ask the gateway of these tests.
INVITED = "https://chat.example.org"
HELLO: list[Any] = [{"role": "user", "content": "hello"}]
TOOL = {"type": "function", "function": {"name": "look_up"}}
TOOL_CALLED = {"type": "function", "function": {"name": "look_up", "arguments": "{}"}}
#: A conversation with a call and its result, in the shapes of both of OpenAI's interfaces.
CALLED: list[Any] = [
    *HELLO,
    {"role": "assistant", "content": None, "refusal": None, "tool_calls": [{"id": "a", **TOOL_CALLED}]},
    {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "42"}]},
]
ITEMS: list[Any] = [
    {"role": "user", "content": [{"type": "input_text", "text": "hello"}]},
    {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": None},
    {
        "type": "function_call",
        "id": "fc_1",
        "call_id": "a",
        "name": "look_up",
        "arguments": "{}",
        "status": "completed",
    },
    {"type": "function_call_output", "call_id": "a", "output": [{"type": "input_text", "text": "42"}]},
]
NO_TOOL = {"type": "function", "function": {"name": "nothing"}}


def text_of(messages: list[Any], count: int, seed: int | None = None) -> str:
    """What the fake model says to a conversation."""
    return fake_text(chat_prompt(messages), seed, count)


@pytest.fixture(scope="module")
def line(session_server: EmbeddedServer) -> Iterator[Line]:
    """The gateway's way to Redis, which tests may cut; the worker has its own."""
    with Line(session_server.url) as made:
        yield made


@pytest.fixture(scope="module")
def gateway(
    shared_worker: StartWorker, line: Line, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    """A gateway and a worker with a fast fake model, and a tiny real one that it loads at the first request."""
    folder = tmp_path_factory.mktemp("gateway")
    catalogue = write_catalogue(folder, {"tiny": make_tiny_model(folder / "tiny")})
    env = {
        "CELERY_MLX_CATALOGUE": str(catalogue),
        "CELERY_MLX_GATEWAY_GRACE_S": "0.5",
        "CELERY_MLX_GATEWAY_STALL_S": "8",
    }
    shared_worker("-c", str(SLOTS), env={**env, "CELERY_MLX_MODELS": "fake:1", "CELERY_MLX_HEARTBEAT_S": "0.2"})
    with GatewayProcess(folder / "log", "--allow-origin", INVITED, env={**env, "REDIS_URL": line.url}) as made:
        yield made


def test_a_whole_answer(gateway: GatewayProcess) -> None:
    """It has OpenAI's shape, strictly; its id is the task's."""
    answer = gateway.openai().chat.completions.create(model="fake:1", messages=HELLO, max_tokens=5, user="me")
    ChatCompletion.model_validate(answer.model_dump(), strict=True)
    assert answer.choices[0].message.content == text_of(HELLO, 5)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5
    assert answer._request_id == answer.id


def test_a_stream(gateway: GatewayProcess) -> None:
    """Its chunks have OpenAI's shape, strictly; the text is whole, and the usage comes last."""
    stream = gateway.openai().chat.completions.create(
        model="fake:1", messages=HELLO, max_completion_tokens=20, stream=True, stream_options={"include_usage": True}
    )
    chunks = [ChatCompletionChunk.model_validate(chunk.model_dump(), strict=True) for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == text_of(HELLO, 20)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "length"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 20


#: What clients send that OpenAI takes, by endpoint, and the type of the answer.
REAL: list[tuple[str, type[BaseModel], list[dict[str, Any]]]] = [
    (
        "/v1/chat/completions",
        ChatCompletion,
        [
            {"logprobs": True, "top_logprobs": 2, "n": 2, "seed": 1},
            {"messages": [{"role": "developer", "content": [{"type": "text", "text": "hello"}]}, *HELLO]},
            {"messages": CALLED, "tools": [TOOL], "tool_choice": "none"},
            {"stop": None, "n": None, "logit_bias": None, "tools": None, "tool_choice": None, "response_format": None},
            {"logit_bias": {"3": -100}, "metadata": {"a": "b"}, "store": True, "service_tier": "auto", "user": None},
            {"max_tokens": None, "max_completion_tokens": 3, "modalities": ["text"], "reasoning_effort": None},
            {
                "temperature": None,
                "stream": None,
                "stream_options": None,
                "parallel_tool_calls": True,
                "functions": None,
            },
        ],
    ),
    (
        "/v1/completions",
        Completion,
        [{"prompt": ["a", "b"], "logprobs": 1, "echo": False, "suffix": None, "best_of": 1}],
    ),
    (
        "/v1/responses",
        Response,
        [
            {"input": "hello", "reasoning": {"effort": "low"}, "text": {"verbosity": "low"}, "service_tier": "auto"},
            {
                "input": "hello",
                "include": ["message.output_text.logprobs"],
                "top_logprobs": 1,
                "truncation": "disabled",
            },
            {"input": ITEMS, "tools": [{"type": "function", "name": "look_up"}], "tool_choice": "none", "store": False},
            {"input": "!think@2 hello", "max_output_tokens": 6, "previous_response_id": None, "metadata": {"a": "b"}},
        ],
    ),
    ("/v1/embeddings", CreateEmbeddingResponse, [{"model": "fake:1:dimensions=2", "input": ["a"], "user": "me"}]),
]


@pytest.mark.parametrize(("path", "shape", "bodies"), REAL, ids=[path for path, *_ in REAL])
def test_what_clients_send(gateway: GatewayProcess, path: str, shape: type[BaseModel], bodies: list[Any]) -> None:
    """It is answered in OpenAI's shape, strictly, as it comes over the wire and before any client has added to it."""
    usual: dict[str, Any] = {"model": "fake:1"}
    if path == "/v1/chat/completions":
        usual |= {"messages": HELLO}
    if path != "/v1/embeddings":
        usual |= {"max_output_tokens" if path == "/v1/responses" else "max_tokens": 3}
    with gateway.http() as http:
        for body in bodies:
            answer = http.post(path, json={**usual, **body})
            assert answer.status_code == 200, (body, answer.text)
            shape.model_validate_json(answer.content, strict=True)


class Verdict(BaseModel):
    """What the schema of a test asks for."""

    is_warm: bool


def test_a_real_model(gateway: GatewayProcess) -> None:
    """What mlx-lm computes is the same whole, streamed and as a response; a schema binds it, and OpenAI's client parses it."""
    client = gateway.openai()
    ask: dict[str, Any] = {"model": "tiny", "messages": HELLO, "max_tokens": 12, "temperature": 0}
    answer = client.chat.completions.create(**ask, logprobs=True)
    text = answer.choices[0].message.content
    assert text
    assert answer.choices[0].logprobs is not None
    assert len(answer.choices[0].logprobs.content or ()) == 12
    chunks = client.chat.completions.create(**ask, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text
    response = client.responses.create(model="tiny", input="hello", max_output_tokens=12, temperature=0)
    assert response.output_text == text
    parsed = client.chat.completions.parse(**{**ask, "max_tokens": 80}, response_format=Verdict)
    assert isinstance(parsed.choices[0].message.parsed, Verdict)


def test_several_choices(gateway: GatewayProcess) -> None:
    """``n`` choices with one seed are different ones, whole and streamed, and a prompt counts once."""
    client = gateway.openai()
    ask: dict[str, Any] = {"model": "fake:1", "messages": HELLO, "max_tokens": 6, "n": 3, "seed": 7}
    answer = client.chat.completions.create(**ask)
    expected = [text_of(HELLO, 6, seed) for seed in (7, 8, 9)]
    assert [choice.message.content for choice in answer.choices] == expected
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 18
    texts = ["", "", ""]
    for chunk in client.chat.completions.create(**ask, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == expected


def test_logprobs_and_reasoning(gateway: GatewayProcess) -> None:
    """Both are where clients look for them; what a model thinks is no content, and has no log-probabilities."""
    thinks: list[Any] = [{"role": "user", "content": "!think@4 hello"}]
    answer = gateway.openai().chat.completions.create(
        model="fake:1", messages=thinks, max_tokens=12, logprobs=True, top_logprobs=2
    )
    ChatCompletion.model_validate(answer.model_dump(), strict=True)
    message, logprobs = answer.choices[0].message, answer.choices[0].logprobs
    assert message.reasoning_content + (message.content or "") == text_of(thinks, 12)  # type: ignore[attr-defined]
    assert logprobs is not None
    assert len(logprobs.content or ()) == 8
    assert answer.usage is not None
    assert answer.usage.completion_tokens_details is not None
    assert answer.usage.completion_tokens_details.reasoning_tokens == 4


def test_completions(gateway: GatewayProcess) -> None:
    """Raw prompts, several at once, whole and streamed."""
    client = gateway.openai()
    answer = client.completions.create(model="fake:1", prompt=["red", "green"], max_tokens=4, logprobs=2)
    Completion.model_validate(answer.model_dump(), strict=True)
    assert [choice.text for choice in answer.choices] == [fake_text(color, None, 4) for color in ("red", "green")]
    assert answer.choices[0].logprobs is not None
    tokens, offsets = answer.choices[0].logprobs.tokens or [], answer.choices[0].logprobs.text_offset or []
    assert len(tokens) == 4
    assert all(answer.choices[0].text.startswith(token, at) for token, at in zip(tokens, offsets, strict=True))
    parts = [
        chunk.choices[0].logprobs
        for chunk in client.completions.create(model="fake:1", prompt="red", max_tokens=4, logprobs=2, stream=True)
    ]
    assert [at for part in parts if part is not None for at in part.text_offset or ()] == offsets
    stream = client.completions.create(model="fake:1", prompt="red", max_tokens=4, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == fake_text("red", None, 4)


def test_models(gateway: GatewayProcess) -> None:
    """What is loaded comes first; one that nobody allows is not there."""
    client = gateway.openai()
    listed = [Model.model_validate(model.model_dump(), strict=True) for model in client.models.list()]
    assert listed[0].id == "fake:1"
    assert "smollm2-135m" in {model.id for model in listed}
    assert client.models.retrieve("smollm2-135m").id == "smollm2-135m"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("acme/none")


@pytest.mark.parametrize(
    ("body", "status", "param", "code"),
    [
        ({"messages": HELLO, "temperature": -1}, 400, "temperature", "invalid_request"),
        ({"messages": HELLO, "audio": {"voice": "x"}}, 400, "audio", "invalid_request"),
        ({"messages": HELLO, "nothing_of_this_name": 1}, 400, "nothing_of_this_name", "invalid_request"),
        ({"messages": HELLO, "n": 0}, 400, "n", "invalid_request"),
        ({"messages": HELLO, "prompt_cache_key": "k" * 1_025}, 400, "prompt_cache_key", "invalid_request"),
        ({"messages": HELLO, "stream_options": {"include_usage": True}}, 400, "stream_options", "invalid_request"),
        ({"messages": [{"role": "nobody", "content": ""}]}, 400, "messages", "invalid_request"),
        ({"messages": HELLO, "model": "acme/none"}, 404, None, "model_not_found"),
        ({"messages": HELLO, "model": 5}, 400, "model", "invalid_request"),
        ({}, 400, "messages", "invalid_request"),
        ({"messages": HELLO, "prompt": "hello"}, 400, "prompt", "invalid_request"),
        ({"messages": HELLO, "tools": [TOOL], "tool_choice": NO_TOOL}, 400, "tool_choice", "invalid_request"),
    ],
)
def test_what_is_wrong_is_said(
    gateway: GatewayProcess, body: dict[str, Any], status: int, param: str | None, code: str
) -> None:
    """In OpenAI's shape, with the field; nothing is passed over."""
    with gateway.http() as http:
        answer = http.post("/v1/chat/completions", json={"model": "fake:1", "max_tokens": 3, **body})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (status, param, code), error
    assert error["type"] == "invalid_request_error"


def test_what_is_no_request(gateway: GatewayProcess) -> None:
    """A body that is not JSON, or too long, and a path that leads nowhere."""
    with gateway.http() as http:
        assert http.post("/v1/chat/completions", content=b"{").json()["error"]["code"] == "invalid_json"
        assert http.post("/v1/chat/completions", content=b"[]").status_code == 400
        large = http.post("/v1/chat/completions", content=b" " * (17 * 2**20))
        assert (large.status_code, large.json()["error"]["code"]) == (413, "request_too_large")
        assert "16 MiB" in large.json()["error"]["message"]
        packed = http.post("/v1/chat/completions", content=b"...", headers={"content-encoding": "gzip"})
        assert (packed.status_code, packed.json()["error"]["code"]) == (415, "unsupported_encoding")
        assert http.put("/v1/chat/completions").headers["allow"] == "POST"
        for answer in (http.post("/v1/nothing", json={}), http.get("/v1/chat/completions/unknown")):
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
        assert http.get("/health").json() == {"status": "ok"}
        metrics = http.get("/metrics").text
    assert 'gateway_requests_total{endpoint="/v1/chat/completions",status="413"} 1' in metrics


def request(stream: bool = False, version: str = "1.1", header: str = "") -> tuple[bytes, bytes]:
    """The head and the body of a request, as bytes."""
    body = json.dumps({"model": "fake:1", "messages": HELLO, "max_tokens": 3, "stream": stream}).encode()
    head = f"POST /v1/chat/completions HTTP/{version}\r\nhost: localhost\r\n{header}content-length: {len(body)}\r\n\r\n"
    return head.encode(), body


def test_http_as_clients_speak_it(gateway: GatewayProcess) -> None:
    """HTTP/1.0, a body that waits to be asked for, requests sent ahead, and paths with careless slashes are all answered."""
    with gateway.connect() as old:
        old.sendall(b"".join(request(stream=True, version="1.0")))
        said = read_until(old, b"never")  # it ends with the connection: HTTP/1.0 has no other way to tell
        assert said.startswith(b"HTTP/1.1 200")
        assert said.endswith(b"data: [DONE]\n\n")
    with gateway.connect() as careful:
        head, body = request(header="expect: 100-continue\r\n")
        careful.sendall(head)
        assert b" 100 " in read_until(careful, b"\r\n\r\n")
        careful.sendall(body)
        assert b" 200 " in read_until(careful, b"\r\n\r\n")
    with gateway.connect() as hasty:
        hasty.sendall(b"".join(request(stream=True)) * 2)
        assert read_until(hasty, b"data: [DONE]", times=2).count(b"HTTP/1.1 200") == 2
    with gateway.http() as http:
        for path in ("/v1/models/", "/v1//models", "//v1/models"):
            assert http.get(gateway.root + path).json()["object"] == "list", path
        assert http.head("/v1/models").status_code == 200
        wrong = http.get("/v1/chat/completions")
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "method_not_allowed")
        assert "use POST" in wrong.json()["error"]["message"]


def test_a_body_that_stalls(gateway: GatewayProcess) -> None:
    """It is refused with 408, and one whose client leaves is no error of the gateway's."""
    head, body = request()
    with gateway.connect() as gone:
        gone.sendall(head + body[:5])
    with gateway.connect() as slow:
        slow.sendall(head + body[:5])
        assert b'"code":"request_timeout"' in read_until(slow, b"}}")
    with gateway.http() as http:
        wait_until(lambda: 'completions",status="499"' in http.get("/metrics").text, about="the client that has left")
    assert "error of this program" not in gateway.log()


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux tells the limits of another process")
def test_it_may_have_many_connections(gateway: GatewayProcess) -> None:
    """A gateway that is started with the 256 open files of macOS raises its limit: each open stream takes one."""
    soft, hard = resource.prlimit(gateway.process.pid, resource.RLIMIT_NOFILE)
    assert soft == (OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard))


def test_a_priority_that_is_none(gateway: GatewayProcess) -> None:
    """It is refused, with the header's name and the bounds."""
    with gateway.http() as http:
        body = {"model": "fake:1", "messages": HELLO, "max_tokens": 1}
        answer = http.post("/v1/chat/completions", json=body, headers={"x-priority": "10"})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "x-priority: 10: use 0 (the most urgent) to 9"


def test_redis_is_away(gateway: GatewayProcess, line: Line) -> None:
    """Whatever needs Redis is 503 with Retry-After in OpenAI's shape; a stream that is open waits, and is whole in the end."""
    client = gateway.openai()
    stream = client.chat.completions.create(model="fake:40", messages=HELLO, max_tokens=60, stream=True)
    text = next(iter(stream)).choices[0].delta.content or ""
    body: dict[str, Any] = {"model": "fake:1", "messages": HELLO, "max_tokens": 1}
    with gateway.http() as http:
        line.refuse()
        try:
            answers: list[Any] = [
                http.post("/v1/chat/completions", json=body),
                http.post("/v1/chat/completions", json={**body, "stream": True}),
                http.post("/v1/embeddings", json={"model": "fake:1", "input": "hello"}),
                http.get("/v1/chat/completions/chatcmpl-0"),
                http.get("/v1/models"),
                http.get("/health"),
            ]
            assert http.get("/metrics").status_code == http.get("/").status_code == 200  # neither asks Redis
            with pytest.raises(openai.InternalServerError, match="Redis") as raised:
                client.responses.create(model="fake:1", input="hello")
        finally:
            line.heal()
    answers.append(raised.value.response)
    for answer in answers:
        assert answer.status_code == 503, answer.text
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.headers["x-should-retry"] == "true"
        error = answer.json()["error"]
        assert (error["type"], error["param"], error["code"]) == ("server_error", None, "broker_unavailable")
    text += "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert text == text_of(HELLO, 60)
    assert client.chat.completions.create(**body).choices[0].message.content == text_of(HELLO, 1)


def test_pages_of_others(gateway: GatewayProcess) -> None:
    """A page of another site, in a browser on this machine, gets nothing without a key, under whatever name it reaches it."""
    body = {"model": "fake:1", "messages": HELLO, "max_tokens": 1}
    with gateway.http() as http:
        own = http.post("/v1/chat/completions", json=body, headers={"origin": gateway.root})
        foreign = http.post("/v1/chat/completions", json=body, headers={"origin": "https://example.org"})
        renamed = http.get("/v1/models", headers={"host": "rebound.example.org"})
        invited = http.options(
            "/v1/models", headers={"origin": INVITED, "access-control-request-method": "GET", "host": gateway.root[7:]}
        )
        asked = http.get("/v1/models", headers={"origin": INVITED})
    assert [own.status_code, foreign.status_code, renamed.status_code] == [200, 403, 403]
    assert [invited.status_code, asked.status_code] == [200, 200]
    assert asked.headers["access-control-allow-origin"] == INVITED


def test_an_error_has_its_status_or_is_an_event(gateway: GatewayProcess) -> None:
    """An answer that fails has a status; a stream that has begun ends with an error, which OpenAI's client raises."""
    client = gateway.openai()

    def read(content: str) -> str:
        messages: list[Any] = [{"role": "user", "content": content}]
        stream = client.chat.completions.create(model="fake:40", messages=messages, max_tokens=100, stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in stream)

    with pytest.raises(openai.BadRequestError, match="context"):
        client.chat.completions.create(model="fake:1:context=64", messages=HELLO, max_tokens=100)
    with pytest.raises(openai.APIError, match="numbers") as raised:
        read("!nan@30")
    assert not isinstance(raised.value, openai.APIStatusError)


def test_whatever_is_sent_is_answered(gateway: GatewayProcess) -> None:
    """A body with anything in its fields is answered, or refused in OpenAI's shape; nothing is the server's fault."""
    with gateway.http(headers={"content-type": "application/json"}) as http:

        @settings(max_examples=120, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
        @given(asked=bodies())
        def ask(asked: tuple[str, Any]) -> None:
            path, body = asked
            answer = http.post(path, content=json.dumps(body).encode())
            assert answer.status_code < 500, (body, answer.text)
            if answer.status_code != 200:
                assert set(answer.json()["error"]) == {"message", "type", "param", "code"}

        ask()


def test_who_leaves_frees_its_place(gateway: GatewayProcess, shared_redis: redis.Redis) -> None:
    """Clients that close their connections, with a stream and without, leave every slot of the worker to others."""
    before = set(shared_redis.scan_iter(keys.stream("*")))
    body = {"model": "fake:40", "messages": HELLO, "max_tokens": 5000}  # 200 s of work
    with ExitStack() as connections:
        for number in range(SLOTS):
            content = json.dumps(body | {"stream": number % 2 == 0}).encode()
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n"
            connections.enter_context(closing(gateway.connect())).sendall(head.encode() + content)
        wait_until(lambda: len(set(shared_redis.scan_iter(keys.stream("*"))) - before) == SLOTS, about="full slots")
    answer = gateway.openai().chat.completions.create(model="fake:40", messages=HELLO, max_tokens=3)
    assert answer.choices[0].message.content == text_of(HELLO, 3)
    names = set(shared_redis.scan_iter(keys.stream("*"))) - before
    wait_until(lambda: all(_ends(shared_redis, name) for name in names), about="nine ends")
    ends = [end for name in names for end in _ends(shared_redis, name)]
    assert sorted(ends) == ["cancelled"] * SLOTS + ["length"]


def _ends(client: redis.Redis, name: str) -> list[str]:
    """How a journal has ended: once, or not yet."""
    found: Any = client.xrange(name)
    entries = [decode(fields["d"]) for _, fields in found]
    return [entry.finish_reason for entry in entries if isinstance(entry, End)]


@pytest.mark.parametrize("is_lost", [False, True], ids=["", "Redis lost its record"])
def test_who_comes_back_goes_on(gateway: GatewayProcess, shared_redis: redis.Redis, is_lost: bool) -> None:
    """A client whose connection breaks, and that continues with Last-Event-ID, has its whole answer: it is not cancelled."""
    body = {"model": "fake:20", "messages": HELLO, "max_tokens": 150, "stream": True}
    with gateway.http() as http, gateway.http() as again:
        with http.stream("POST", "/v1/chat/completions", json=body) as broken:
            had = list(islice(events(broken.iter_lines()), 12))
            last = had[-1][0]
            text = "".join(data["choices"][0]["delta"].get("content", "") for _, data in had)
            if is_lost:  # as one that came back older than it was
                shared_redis.delete(keys.gateway_request(last.partition(":")[0]), keys.gateway_open(LOCAL.id))
            answer = again.send(
                again.build_request("POST", "/v1/chat/completions", json=body, headers={"last-event-id": last}),
                stream=True,
            )
        # The grace has passed long before the answer is whole.
        for _, data in events(answer.iter_lines()):
            text += data["choices"][0]["delta"].get("content", "") if data != "[DONE]" else ""
        answer.close()
    assert text == text_of(HELLO, 150)
    assert not shared_redis.exists(keys.cancel(last.partition(":")[0]))


def stopped_in_the_middle(gateway: GatewayProcess) -> list[Any]:
    """The events of a stream whose gateway gets a SIGTERM after the third."""
    body = {"model": "fake:20", "messages": HELLO, "max_tokens": 600, "stream": True}
    seen = []
    with gateway.http() as http, http.stream("POST", "/v1/chat/completions", json=body) as answer:
        for _, data in events(answer.iter_lines()):
            seen.append(data)
            if len(seen) == 3:
                gateway.process.terminate()
    assert gateway.process.wait(60) == 0
    return seen


def test_a_stream_outlives_its_gateway(gateway: GatewayProcess, shared_redis: redis.Redis, tmp_path: Path) -> None:
    """``kill -9`` of a gateway in mid-stream: another one goes on after the last event, and nothing is lost or said twice.

    SIGTERM ends a stream with an error, and its request goes on, too.
    """
    del gateway  # its worker
    body = {"model": "fake:40", "messages": HELLO, "max_tokens": 300, "stream": True, "n": 2, "seed": 3}
    texts, again = ["", ""], ["", ""]
    seen = []

    def note(data: Any, into: list[str]) -> None:
        for choice in data["choices"] if data != "[DONE]" else ():
            into[choice["index"]] += choice["delta"].get("content", "")

    with (
        GatewayProcess(tmp_path / "first") as first,
        first.http() as http,
        http.stream("POST", "/v1/chat/completions", json=body) as answer,
        suppress(httpx.RemoteProtocolError),
    ):
        for event_id, data in events(answer.iter_lines()):
            seen.append(event_id)
            note(data, texts)
            if sum(map(len, texts)) > 200:
                first.kill()
    assert sum(map(len, texts)) < len(text_of(HELLO, 300, 3))
    answer_id = seen[-1].partition(":")[0]
    path = f"/v1/chat/completions/{answer_id}"
    with GatewayProcess(tmp_path / "second") as second, second.http() as http:
        headers = {"last-event-id": seen[-1]}
        with http.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
            rest = [data for _, data in events(answer.iter_lines())]
        with http.stream("GET", path, params={"stream": "true"}) as answer:
            for _, data in events(answer.iter_lines()):
                note(data, again)
        whole = http.get(path).json()
        ended = stopped_in_the_middle(second)
    for data in rest:
        note(data, texts)
    assert rest[-1] == "[DONE]"
    assert ended[-1]["error"]["code"] == "gateway_closing"
    assert not shared_redis.exists(keys.cancel(ended[0]["id"]))
    expected = [text_of(HELLO, 300, seed) for seed in (3, 4)]
    assert texts == again == [choice["message"]["content"] for choice in whole["choices"]] == expected


def waiting_places(gateway: GatewayProcess, *priorities: str) -> list[int]:
    """The positions of streams of these priorities, which are opened one after the other and wait side by side."""
    body = {"model": "fake:40", "messages": HELLO, "max_tokens": 3, "stream": True}
    with ExitStack() as stack:
        http = stack.enter_context(gateway.http())
        opened = [
            stack.enter_context(
                http.stream("POST", "/v1/chat/completions", json=body, headers={"x-priority": priority})
            )
            for priority in priorities
        ]
        return [int(answer.headers["x-queue-position"]) for answer in opened]


def test_who_waits_knows_where(gateway: GatewayProcess) -> None:
    """A stream that waits for a slot has its position in a header, and comments that OpenAI's client passes over.

    By the header ``x-priority`` it waits before those that are less urgent.
    """
    client = gateway.openai()
    # In the background: a stream that nobody reads for long is cut off, and its slot is free.
    ask: dict[str, Any] = {"model": "fake:40", "input": "hello", "max_output_tokens": 2000, "background": True}
    ahead = [client.responses.create(**ask).id for _ in range(8)]
    try:
        # Until all have a slot, which an earlier test's stream may keep for a moment.
        wait_until(
            lambda: all(client.responses.retrieve(name).status == "in_progress" for name in ahead),
            timeout_s=60,
            about="eight requests that run",
        )
        batch_work, urgent, more_batch_work = waiting_places(gateway, "9", "5", "9")
        assert (urgent, more_batch_work) == (batch_work, batch_work + 2)
        with gateway.http() as http:
            body = {"model": "fake:40", "messages": HELLO, "max_tokens": 3, "stream": True}
            with http.stream("POST", "/v1/chat/completions", json=body) as answer:
                assert answer.headers["x-queue-position"].isdigit()
                assert next(line for line in answer.iter_lines() if line.startswith(": queued position="))
    finally:
        for name in ahead:
            client.responses.cancel(name)


def test_responses(gateway: GatewayProcess) -> None:
    """Whole and streamed, thoughts and text, in OpenAI's shapes, strictly; a stream is continued from any event on."""
    client = gateway.openai()
    thinks: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "!think@4 hello"}]
    ask: dict[str, Any] = {
        "model": "fake:1",
        "instructions": "Be brief.",
        "input": "!think@4 hello",
        "max_output_tokens": 12,
        "prompt_cache_key": "greetings",
    }
    answer = client.responses.create(**ask)
    Response.model_validate(answer.model_dump(), strict=True)
    assert answer.prompt_cache_key == "greetings"
    assert [item.type for item in answer.output] == ["reasoning", "message"]
    thought = answer.output[0].content[0].text
    assert thought + answer.output_text == text_of(thinks, 12)
    assert answer.status == "incomplete"
    assert answer.usage is not None
    assert answer.usage.output_tokens_details.reasoning_tokens == 4

    events_of: Any = TypeAdapter(ResponseStreamEvent)
    seen = [
        events_of.validate_python(event.model_dump(), strict=True)
        for event in client.responses.create(**ask, stream=True)
    ]
    assert [event.type for event in seen[:3]] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
    ]
    assert seen[-1].type == "response.incomplete"
    assert seen[-1].response.output_text == answer.output_text
    numbers = [event.sequence_number for event in seen]
    assert numbers == sorted(set(numbers))
    text = "".join(event.delta for event in seen if event.type == "response.output_text.delta")
    assert text == answer.output_text
    for after in (0, numbers[3], numbers[3] + 2, numbers[-2]):
        rest = list(client.responses.retrieve(seen[0].response.id, stream=True, starting_after=after))
        assert min(event.sequence_number for event in rest) > after
        assert rest[-1].model_dump() == seen[-1].model_dump()
    middle = next(event.sequence_number for event in seen if event.type == "response.output_text.delta") + 2
    deltas = [event for event in seen if event.type == "response.output_text.delta"]
    known = "".join(event.delta[: max(0, middle - event.sequence_number + len(event.delta))] for event in deltas)
    rest = list(client.responses.retrieve(seen[0].response.id, stream=True, starting_after=middle))
    assert known + "".join(event.delta for event in rest if event.type == "response.output_text.delta") == text


def test_a_response_in_the_background(gateway: GatewayProcess) -> None:
    """It is made though nobody reads it, is looked at until it is done, and is cancelled by its id."""
    client = gateway.openai()
    begun = client.responses.create(model="fake:1", input="hello", max_output_tokens=40, background=True)
    assert begun.status == "queued"

    def done() -> Any:
        found = client.responses.retrieve(begun.id)
        return found if found.status not in ("queued", "in_progress") else None

    answer = wait_until(done, about="the response")
    assert answer.output_text == text_of(HELLO, 40)
    long = client.responses.create(model="fake:40", input="hello", max_output_tokens=4000, background=True, stream=True)
    long_id = next(iter(long)).response.id  # type: ignore[union-attr]
    long.close()
    assert client.responses.cancel(long_id).status == "cancelled"
    wait_until(lambda: client.responses.retrieve(long_id).status == "cancelled", about="the cancel")
    failed = client.responses.create(model="fake:1", input="!fail", background=True)
    wait_until(lambda: client.responses.retrieve(failed.id).status == "failed", about="the failure")
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve("resp_none")


@pytest.fixture
def keyed(gateway: GatewayProcess, shared_app: Celery) -> Iterator[Callable[..., str]]:
    """``keys make``, which gives a key; all are revoked after the test, and the gateway is open again."""
    made: list[str] = []

    def keys_command(*arguments: str) -> str:
        ended = CliRunner().invoke(keys_cli, arguments, obj=SimpleNamespace(app=shared_app))
        assert ended.exit_code == 0, ended.output
        return ended.stdout.strip()

    def make(*options: str) -> str:
        made.append(keys_command("make", f"test-{len(made)}", *options))
        return made[-1]

    make.command = keys_command  # type: ignore[attr-defined]
    yield make
    listed = {key["id"] for key in json.loads(keys_command("list", "--json"))["keys"]}
    for key_id in listed & set(map(id_of, made)):
        keys_command("revoke", key_id)
    assert keys_command("list", "--json") == '{"keys": []}'
    with gateway.http() as http:
        wait_until(lambda: http.get("/v1/models").status_code == 200, about="a gateway that needs no key")


def test_keys(gateway: GatewayProcess, keyed: Any) -> None:
    """Once there is a key, whoever asks needs one; it opens its own models and its own answers, and is counted."""
    ask: dict[str, Any] = {"model": "fake:1", "messages": HELLO, "max_tokens": 4}
    secret = keyed("--model", "fake:1", "--model", "qwen*")
    with gateway.http() as http:
        wait_until(lambda: http.get("/v1/models").status_code == 401, about="the need of a key")
    with pytest.raises(openai.AuthenticationError):
        gateway.openai("cmlx-unknown").chat.completions.create(**ask)
    client = gateway.openai(secret)
    answer = client.chat.completions.create(**ask)
    with pytest.raises(openai.PermissionDeniedError, match="may not use it"):
        client.chat.completions.create(**{**ask, "model": "fake:40"})
    assert {model.id.partition("-")[0] for model in client.models.list()} <= {"fake:1", "qwen2.5", "qwen3"}
    with gateway.http() as http:
        for key, status in ((secret, 200), (keyed(), 404)):
            found = http.get(f"/v1/chat/completions/{answer.id}", headers={"authorization": f"Bearer {key}"})
            assert found.status_code == status
    listed = json.loads(keyed.command("list", "--json"))["keys"]
    assert secret not in json.dumps(listed)

    def usage() -> list[int]:
        keys_there = json.loads(keyed.command("list", "--json"))["keys"]
        (found,) = (item["usage"] for item in keys_there if item["id"] == id_of(secret))
        return [found["requests"], found["completion_tokens"], found["prompt_tokens"]]

    wait_until(lambda: usage() == [1, 4, 2], about="the usage of one answer")


def test_a_key_that_is_revoked_ends_what_it_has_open(
    gateway: GatewayProcess, keyed: Any, shared_redis: redis.Redis
) -> None:
    """A stream ends with an error that OpenAI's client raises, and a response in the background is cancelled."""
    secret = keyed()
    client = gateway.openai(secret)
    stream = client.chat.completions.create(model="fake:40", messages=HELLO, max_tokens=5000, stream=True)
    ids = [next(iter(stream)).id]
    ids.append(client.responses.create(model="fake:40", input="hello", max_output_tokens=5000, background=True).id)
    keyed.command("revoke", id_of(secret))
    with pytest.raises(openai.APIError, match="was revoked"):
        list(stream)
    wait_until(lambda: all(shared_redis.exists(keys.cancel(id_)) for id_ in ids), about="the cancels")


def test_limits(gateway: GatewayProcess, keyed: Any, shared_redis: redis.Redis) -> None:
    """Each limit refuses with 429, a Retry-After and OpenAI's headers, and what was reserved and not used is given back."""
    ask: dict[str, Any] = {"model": "fake:1", "messages": HELLO, "max_tokens": 50}

    def refused(client: openai.OpenAI, what: str, **more: Any) -> openai.RateLimitError:
        with pytest.raises(openai.RateLimitError, match=what) as raised:
            client.chat.completions.create(**{**ask, **more})
        assert int(raised.value.response.headers["retry-after"]) >= 1
        return raised.value

    client = gateway.openai(keyed("--requests", "2"))
    first = client.chat.completions.with_raw_response.create(**ask)
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    client.chat.completions.create(**ask)
    refused(client, "2 requests a minute")

    secret = keyed("--tokens", "200")
    client = gateway.openai(secret)
    client.chat.completions.create(**ask, stop="e")
    left = wait_until(lambda: float(shared_redis.hget(keys.gateway_allowance(id_of(secret)), "tokens") or 0))
    assert left > 140
    refused(client, "200 tokens a minute", max_tokens=5000)

    client = gateway.openai(keyed("--at-once", "1"))
    stream = client.chat.completions.create(**{**ask, "model": "fake:40", "max_tokens": 4000}, stream=True)
    next(iter(stream))
    refused(client, "1 requests at once")
    stream.close()
    wait_until(lambda: not shared_redis.zcard(keys.gateway_open(id_of(client.api_key))), about="the stream's place")
    client.chat.completions.create(**ask)


def test_beyond_this_machine(shared_app: Celery) -> None:
    """A gateway that others can reach does not start without TLS, or without keys, unless it is told to."""
    runner, app = CliRunner(), SimpleNamespace(app=shared_app)
    plain = runner.invoke(gateway_cli, ["--address", "0.0.0.0"], obj=app)  # noqa: S104  (it does not listen)
    assert plain.exit_code == 1
    assert "--plain-http" in plain.output
    keyless = runner.invoke(gateway_cli, ["--address", "0.0.0.0", "--plain-http"], obj=app)  # noqa: S104
    assert keyless.exit_code == 1
    assert "keys make" in keyless.output
