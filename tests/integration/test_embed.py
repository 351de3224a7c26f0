"""``embed`` through Redis, a worker and an engine process: real tiny models, and the fake one for times and faults."""

from __future__ import annotations

import asyncio
import base64
import math
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import openai
import pytest
from celery import chain, group
from celery.exceptions import TaskRevokedError

from benchmarks.parts.catalogue import write_catalogue
from benchmarks.parts.tiny_model import make_tiny_model
from tasks.engine.embedding.fake import FakeEmbedder
from tasks.engine.embedding.pairs import PairTokens
from tasks.engine.embedding.tokens import TextTokens
from tasks.errors import DeadlineExceeded, EngineFailed, InvalidRequest, ModelLoadFailed
from tasks.messages.engine import EngineConfig
from tasks.messages.journal import Claim, End, Release, Start, decode
from tasks.models.embedding import read_recipe
from tasks.server import keys
from tests.gateway import GatewayProcess
from tests.reference_encoder import ReferenceEncoder
from tests.support import wait_until
from tests.tiny_encoder import POSITIONS, make_tiny_cross_encoder, make_tiny_encoder

if TYPE_CHECKING:
    from pathlib import Path

    import redis
    from celery import Celery
    from numpy.typing import NDArray

    from tasks.client.result import EmbedResult
    from tasks.embed import EmbedTask
    from tasks.messages.registry import EngineState
    from tests.conftest import StartWorker
    from tests.support import Worker

pytestmark = pytest.mark.xdist_group("embed")
WAIT_S = 60.0
QUEUE = "tier-under-3B"
#: A step of this model is one text.
FAKE, SLOW = "fake:1:dimensions=4", "fake:100:dimensions=4"
#: Of one test alone.
COUNTED = "fake:2:dimensions=4"
#: A request for scores, and the result that comes last.
PAIRS: dict[str, Any] = {"query": "a d", "documents": ["c", "a b"], "model": "fake:1:ranks=1"}
WORST = {"index": 0, "relevance_score": 0.0}
TEXTS = ["the cat sat on a mat", "dog", "the dog ran far"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny encoder, one that lacks its pooling, and a tiny model that generates."""
    root = tmp_path_factory.mktemp("embed")
    make_tiny_encoder(root / "encoder")
    (make_tiny_encoder(root / "bare") / "modules.json").unlink()
    make_tiny_model(root / "decoder")
    make_tiny_cross_encoder(root / "cross")
    return root


@pytest.fixture(scope="module", autouse=True)
def node(shared_worker: StartWorker, folder: Path) -> Worker:
    """One worker for them all."""
    catalogue = write_catalogue(folder, {name: folder / name for name in ("bare", "cross", "decoder", "encoder")})
    with catalogue.open("a") as file:
        file.write('prompts = { query = "query : " }\n')
    env = {"CELERY_MLX_CATALOGUE": str(catalogue), "CELERY_MLX_MODELS": FAKE, "CELERY_MLX_HEARTBEAT_S": "0.2"}
    return shared_worker("-c", "4", "-Q", QUEUE, env=env)


@pytest.fixture(scope="module")
def embed(shared_app: Celery) -> EmbedTask:
    from tasks import embed

    assert embed.app is shared_app
    return embed


def ask(task: Any, **values: Any) -> EmbedResult:
    """Sends a request past the producer's catalogue, which does not know the worker's models."""
    sent: EmbedResult = task.AsyncResult(task.app.send_task(task.name, kwargs=values, queue=QUEUE).id)
    return sent


def vectors(answer: Any) -> NDArray[np.float64]:
    assert [item["index"] for item in answer["data"]] == list(range(len(answer["data"])))
    return np.array([item["embedding"] for item in answer["data"]])


def fake_vectors(texts: list[str]) -> NDArray[np.float32]:
    fake = FakeEmbedder(EngineConfig(model="fake:0:dimensions=4"), lambda: None)
    return fake.embed(fake.rows(texts, None, None))


def entries(client: redis.Redis, task_id: str) -> list[Any]:
    stored: Any = client.xrange(keys.stream(task_id))
    return [decode(fields["d"]) for _, fields in stored]


def expected(folder: Path, texts: list[str]) -> NDArray[np.float64]:
    recipe = read_recipe(folder)
    assert recipe is not None
    means = [
        ReferenceEncoder(folder).hidden(row.ids).mean(axis=0)
        for row in TextTokens(folder, recipe, 64).rows(texts, None, "")
    ]
    return np.array([mean / np.linalg.norm(mean) for mean in means])


def test_vectors_of_a_real_encoder_in_openais_shape(embed: EmbedTask, folder: Path, node: Worker) -> None:
    """As numbers and as base64 they are what numpy computes, in the order of the inputs, with a usage of all tokens."""
    numbers, packed = (
        ask(embed, input=TEXTS, model="encoder", encoding_format=name).get(timeout=WAIT_S)
        for name in ("float", "base64")
    )
    wanted = expected(folder / "encoder", TEXTS)
    np.testing.assert_allclose(vectors(numbers), wanted, atol=1e-5)
    decoded = [np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in packed["data"]]
    np.testing.assert_array_equal(np.float32(vectors(numbers)), decoded)
    assert numbers["usage"] == {"prompt_tokens": 17, "total_tokens": 17}
    assert (numbers["object"], numbers["data"][0]["object"]) == ("list", "embedding")
    assert (numbers["model"], numbers["worker"], numbers["attempt"]) == ("encoder", node.node, 1)


def test_prompts_of_the_catalogue_and_fewer_dimensions(embed: EmbedTask, folder: Path) -> None:
    """A text of a type has that prompt before it; vectors that are cut have the length 1 again."""
    answer = ask(embed, input="dog", model="encoder", input_type="query", dimensions=5).get(timeout=WAIT_S)
    whole = expected(folder / "encoder", ["query : dog"])[0][:5]
    np.testing.assert_allclose(vectors(answer)[0], whole / np.linalg.norm(whole), atol=1e-5)


@pytest.mark.parametrize(
    ("values", "error", "said"),
    [
        ({"model": "decoder"}, InvalidRequest, r"it generates text, .* use generate"),
        (
            {"model": "bare"},
            ModelLoadFailed,
            r"no file says how the vectors of its tokens become one: add modules\.json",
        ),
        (
            {"model": "encoder", "input": ["a", "the " * 70]},
            InvalidRequest,
            rf"input\[1\]: has 72 tokens, .* {POSITIONS}",
        ),
        (
            {"model": "encoder", "input_type": "passage"},
            InvalidRequest,
            r"input_type='passage': the model has no prompt",
        ),
        ({"model": "encoder", "dimensions": 33}, InvalidRequest, r"dimensions=33: the model's vectors have 32"),
        ({"model": "encoder", "input": []}, InvalidRequest, r"input=<list>: no text, and no list with texts"),
        ({"model": FAKE, "input": "!nan"}, Exception, r"input\[0\]: the model computed numbers that are not finite"),
        ({"model": FAKE, "input": "!crash"}, EngineFailed, r"it is not tried again"),
    ],
)
def test_what_cannot_be_embedded_ends_with_one_clear_error(
    embed: EmbedTask, values: dict[str, Any], error: type[Exception], said: str
) -> None:
    """Each names what is wrong, and a request beside it is answered."""
    beside = embed.delay(input="beside", model=FAKE)
    with pytest.raises(error, match=said):
        ask(embed, **{"input": "a", **values}).get(timeout=WAIT_S)
    np.testing.assert_allclose(vectors(beside.get(timeout=WAIT_S)), fake_vectors(["beside"]), rtol=1e-6)


def test_an_encoder_generates_nothing(embed: EmbedTask) -> None:
    """A request for text is refused with the remedy."""
    from tasks import generate

    with pytest.raises(InvalidRequest, match="generates nothing: use embed"):
        ask(generate, prompt="a", model="encoder").get(timeout=WAIT_S)


def score(folder: Path, query: str, document: str) -> float:
    pair = PairTokens(folder / "cross", POSITIONS, 10_000).rows(query, [document])[0]
    return 1 / (1 + math.exp(-ReferenceEncoder(folder / "cross", "bert.").logit(pair.ids, pair.types)))


def test_a_cross_encoder_ranks_documents(folder: Path) -> None:
    """The best documents come first with the scores that numpy computes; one that is cut is named in a warning."""
    from tasks import rerank

    texts = ["dog", "the cat sat", "a mat", "far " * 70]
    documents = [texts[0], {"text": texts[1]}, *texts[2:]]
    asked = ask(rerank, query="cat", documents=documents, model="cross", top_n=3, return_documents=True)
    answer = asked.get(timeout=WAIT_S)
    scores = [score(folder, "cat", text) for text in texts]
    best = sorted(range(4), key=lambda place: -scores[place])[:3]
    assert [result["index"] for result in answer["results"]] == best
    assert [result["document"] for result in answer["results"]] == [{"text": texts[place]} for place in best]
    found = [result["relevance_score"] for result in answer["results"]]
    np.testing.assert_allclose(found, [scores[place] for place in best], atol=1e-5)
    tokens = 5 + 7 + 6 + POSITIONS
    assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    assert [warning.partition(":")[0] for warning in answer["warnings"]] == ["documents[3]"]


def test_each_kind_of_model_does_its_own_work(embed: EmbedTask) -> None:
    """Vectors of a cross-encoder, and a ranking by any other model, are one error with the remedy."""
    from tasks import rerank

    with pytest.raises(InvalidRequest, match="makes no vectors: use rerank"):
        ask(embed, input="a", model="cross").get(timeout=WAIT_S)
    for model, said in (("encoder", "ranks nothing: use embed"), ("decoder", "use generate, or a cross-encoder")):
        with pytest.raises(InvalidRequest, match=said):
            ask(rerank, query="a", documents=["b"], model=model).get(timeout=WAIT_S)


def test_in_chains_in_groups_and_with_asyncio(embed: EmbedTask) -> None:
    """An answer of ``generate`` becomes an input; a group has a result for each; ``await`` gives the answer."""
    from tasks import generate
    from tasks.engine.fake import fake_text

    chained = chain(generate.s(prompt="p", model="fake:1", max_tokens=3), embed.s(model=FAKE)).delay()
    several = group(embed.s(input=[str(n)], model=FAKE) for n in range(5)).delay()
    np.testing.assert_allclose(vectors(chained.get(timeout=WAIT_S)), fake_vectors([fake_text("p", None, 3)]), rtol=1e-6)
    found = [vectors(answer)[0] for answer in several.get(timeout=WAIT_S)]
    np.testing.assert_allclose(found, fake_vectors([str(n) for n in range(5)]), rtol=1e-6)

    async def waited() -> Any:
        return await (await embed.adelay(input="a", model=FAKE))

    np.testing.assert_allclose(vectors(asyncio.run(waited())), fake_vectors(["a"]), rtol=1e-6)


def test_the_journal_has_a_start_and_an_end_and_no_vector(embed: EmbedTask, shared_redis: redis.Redis) -> None:
    """A reader of any language sees that it has ended and what it took; the vectors are in the result alone."""
    result = embed.delay(input=["one two", "three"], model=FAKE)
    result.get(timeout=WAIT_S)
    written = entries(shared_redis, result.id)
    assert [type(entry) for entry in written] == [Claim, Start, End]
    assert (written[2].finish_reason, written[2].usage) == ("stop", {"prompt_tokens": 3, "total_tokens": 3})
    with pytest.raises(InvalidRequest, match=r"vectors do not stream: use get\(\)"):
        result.stream()


def engine_of(node: Worker, model: str = SLOW) -> EngineState | None:
    """The engine of a model, as the worker last said."""
    record = node.record()
    engines = record.engines if record is not None else []
    return next((engine for engine in engines if engine.model == model), None)


def running(node: Worker, model: str = SLOW) -> int | None:
    """The process that works slowly, once it does."""
    engine = engine_of(node, model)
    return engine.pid if engine is not None and engine.running and engine.steps else None


def test_a_cancel_stops_within_a_step(embed: EmbedTask, node: Worker, shared_redis: redis.Redis) -> None:
    """The request ends as revoked, its engine computes no more of its texts, and goes on with another request."""
    result = embed.delay(input=["w"] * 2000, model=SLOW)  # 200 s of work
    wait_until(lambda: running(node))
    result.revoke(terminate=True)
    with pytest.raises(TaskRevokedError):
        result.get(timeout=WAIT_S)
    wait_until(lambda: getattr(entries(shared_redis, result.id)[-1], "finish_reason", "") == "cancelled")
    assert len(embed.delay(input="next", model=SLOW).get(timeout=WAIT_S)["data"]) == 1
    wait_until(lambda: (engine := engine_of(node)) is not None and not engine.running, about="an idle engine")


def test_a_deadline_that_passes_is_an_error(embed: EmbedTask) -> None:
    """A part of the vectors is of no use, whether the time passes before the request runs or meanwhile."""
    begun = embed.delay(input=["w"] * 600, model=SLOW, deadline=time.time() + 1.5)
    past = embed.delay(input="w", model=FAKE, deadline=time.time() - 1)
    for result in (past, begun):
        with pytest.raises(DeadlineExceeded, match="before all vectors were computed"):
            result.get(timeout=WAIT_S)


def test_an_engine_that_is_killed_costs_an_attempt(embed: EmbedTask, node: Worker, shared_redis: redis.Redis) -> None:
    """The vectors are computed again from the first one on, by the engine that takes its place."""
    texts = [f"w{n}" for n in range(60)]
    wait_until(lambda: running(node) is None)  # an earlier test's request, as the worker last said
    result = embed.delay(input=texts, model=SLOW)
    pid = wait_until(lambda: running(node))
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    answer = result.get(timeout=WAIT_S)
    np.testing.assert_allclose(vectors(answer), fake_vectors(texts), rtol=1e-6)
    assert answer["attempt"] == 2
    assert sum(isinstance(entry, Release) and entry.crashed for entry in entries(shared_redis, result.id)) == 1


def test_it_is_counted(embed: EmbedTask, node: Worker) -> None:
    """The worker's metrics have the requests, and the tokens that were embedded, by model."""

    def counted() -> dict[str, Any]:
        record = node.record()
        assert record is not None
        found: dict[str, Any] = record.metrics["models"].get(COUNTED, {})
        return found

    embed.delay(input=["one two three"], model=COUNTED).get(timeout=WAIT_S)
    wait_until(lambda: counted().get("succeeded") == 1)
    assert counted()["prompt_tokens"] == 3


def test_clients_through_the_gateway(embed: EmbedTask, node: Worker, folder: Path, tmp_path: Path) -> None:
    """OpenAI's gets vectors and errors in its own types, and is cancelled when it leaves; ``/v1/rerank`` ranks documents."""
    assert node
    with GatewayProcess(tmp_path / "log", env={"CELERY_MLX_CATALOGUE": str(folder / "catalogue.toml")}) as gateway:
        client = gateway.openai()
        answer = client.embeddings.create(input=["a b", "c"], model=FAKE, dimensions=4, user="me")
        assert answer.usage.prompt_tokens == 3
        np.testing.assert_allclose([item.embedding for item in answer.data], fake_vectors(["a b", "c"]), rtol=1e-6)
        with pytest.raises(openai.BadRequestError, match=r"input\[1\] is empty"):
            client.embeddings.create(input=["a", ""], model=FAKE)
        with pytest.raises(openai.BadRequestError, match=r"use generate"):
            client.embeddings.create(input="a", model="fake:1")
        ranked: Any = client.post(
            "/rerank",
            cast_to=object,
            body={"model": "cross", "query": "cat", "documents": ["dog", "a mat"], "top_n": 1},
        )
        assert {*ranked} == {"id", "model", "results", "usage"}
        scores = [score(folder, "cat", text) for text in ("dog", "a mat")]
        (result,) = ranked["results"]
        assert result["index"] == int(np.argmax(scores))
        assert result["relevance_score"] == pytest.approx(max(scores), abs=1e-5)
        with pytest.raises(openai.BadRequestError, match="query is missing"):
            client.post("/rerank", cast_to=object, body={"model": "cross", "documents": ["a"]})
        with pytest.raises(openai.APITimeoutError):
            gateway.openai(timeout=1.5).embeddings.create(input=["w"] * 600, model=SLOW)
        wait_until(lambda: running(node) is None)


def test_without_redis(embed: EmbedTask) -> None:
    """``apply`` answers in this process, with the same shape and the same errors."""
    answer = embed.apply(kwargs={"input": ["a b", "c"], "model": "fake:0:dimensions=4"}).get()
    np.testing.assert_allclose(vectors(answer), fake_vectors(["a b", "c"]), rtol=1e-6)
    from tasks import rerank

    ranked = rerank.apply(kwargs={**PAIRS, "return_documents": True}).get()
    assert (ranked["results"], ranked["worker"]) == (
        [{"index": 1, "relevance_score": 0.5, "document": {"text": "a b"}}, {**WORST, "document": {"text": "c"}}],
        "eager",
    )
    with pytest.raises(InvalidRequest, match="generates nothing and makes no vectors"):
        embed.apply(kwargs={"input": ["a"], "model": PAIRS["model"]}).get()


def test_rerank_among_other_tasks(embed: EmbedTask) -> None:
    """In groups and chains ``rerank`` is a task like the others; the answer before a link is its query."""
    from tasks import generate, rerank

    together = group(rerank.s(**PAIRS), embed.s(input=["a"], model=FAKE)).apply_async().get(timeout=WAIT_S)
    assert [answer["usage"]["prompt_tokens"] for answer in together] == [7, 1]
    question = {"prompt": "x", "model": "fake:1", "max_tokens": 2}
    documents = {name: value for name, value in PAIRS.items() if name != "query"}
    following = chain(generate.s(**question), rerank.s(**documents)).apply_async().get(timeout=WAIT_S)
    assert {result["relevance_score"] for result in following["results"]} == {0.0}


def test_rerank_that_is_stopped(node: Worker) -> None:
    """A revoke and a deadline end a running ``rerank`` as they end an ``embed``, and free its engine."""
    from tasks import rerank

    many: dict[str, Any] = {"query": "q", "documents": ["w"] * 600, "model": "fake:100:ranks=1"}
    result = rerank.delay(**many)
    wait_until(lambda: running(node, many["model"]))
    result.revoke(terminate=True)
    with pytest.raises(TaskRevokedError):
        result.get(timeout=WAIT_S)
    with pytest.raises(DeadlineExceeded, match="scores"):
        rerank.delay(**many, deadline=time.time() + 1.0).get(timeout=WAIT_S)
    wait_until(lambda: running(node, many["model"]) is None)
