"""Families of models through the whole product: sent, journalled, killed in mid-character, resumed elsewhere, read and stored.

Two families stand for the two kinds of vocabularies; ``FAMILIES=all`` takes all ten.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.parts.catalogue import write_catalogue
from tasks.messages.journal import Token, decode
from tasks.server import keys
from tests.families.family import CONVERSATIONS, families
from tests.support import Reader, send_unchecked

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis
    from celery import Celery

    from tasks.generate import GenerateTask
    from tests.conftest import StartWorker
    from tests.families.family import Family

QUEUE = "families"
FAMILIES = {
    name: family
    for name, family in families().items()
    if os.environ.get("FAMILIES") == "all" or name in ("gpt_oss", "phi3")
}
#: Their engines are loaded at the same time.
WAIT_S = 60.0 * len(FAMILIES)

pytestmark = [pytest.mark.xdist_group("families"), pytest.mark.timeout(3 * WAIT_S)]


def ask(task: GenerateTask, family: Family, conversation: str = "chat", **values: Any) -> Any:
    """Send a conversation that has room for the whole answer."""
    values = {"messages": CONVERSATIONS[conversation], "temperature": 0, "max_tokens": 60, **values}
    return send_unchecked(task, QUEUE, model=family.name, **values)


@pytest.fixture(scope="module")
def killed(
    shared_app: Celery, shared_redis: redis.Redis, shared_worker: StartWorker, tmp_path_factory: Any
) -> Iterator[dict[str, tuple[Reader, list[Any]]]]:
    """A reader of each family's answer, whose worker was killed in the middle of a character of all of them, and what its
    journal had then; another worker serves them by now."""
    from tasks import generate

    assert generate.app is shared_app
    folder = tmp_path_factory.mktemp("families")
    catalogue = write_catalogue(folder, {name: family.write(folder / name) for name, family in FAMILIES.items()})
    env = {
        "CELERY_MLX_CATALOGUE": str(catalogue),
        "CELERY_MLX_HEARTBEAT_S": "0.5",
        "CELERY_MLX_DEAD_AFTER_S": "10",
    }
    slots = ("-c", f"{len(FAMILIES)}", "-Q", QUEUE)
    halfway = {"TEST_DIE_AT": "half", "TEST_DIE_REQUESTS": f"{len(FAMILIES)}"}
    dying = shared_worker(*slots, env={**env, **halfway}, app="tests.dying")
    readers = {name: Reader(ask(generate, family), WAIT_S) for name, family in FAMILIES.items()}
    assert dying.wait(WAIT_S) == -signal.SIGKILL
    journals = {}
    for name, reader in readers.items():
        stored: Any = shared_redis.xrange(keys.stream(reader.result.id))
        journals[name] = [decode(fields["d"]) for _, fields in stored]
    shared_worker(*slots, "-B", "-s", str(folder / "beat"), env=env)
    yield {name: (reader, journals[name]) for name, reader in readers.items()}
    for reader in readers.values():  # another process may have this fixture too, and the tests of some families
        reader.whole()


@pytest.mark.parametrize("name", FAMILIES)
def test_killed_in_mid_character(killed: dict[str, tuple[Reader, list[Any]]], name: str) -> None:
    """What was journalled ends within a character; the reader's chunks and the result are the whole answer, each part once."""
    family, (reader, before) = FAMILIES[name], killed[name]
    written = [entry for entry in before if isinstance(entry, Token)]
    assert "".join(entry.text for entry in written if entry.kind == "content") == "Gr"
    assert not written[-1].text
    reader.whole()
    answer = reader.result.get(timeout=WAIT_S)
    for kind, text in (("reasoning", family.reasoning), ("content", family.content)):
        assert "".join(chunk.text for chunk in reader.chunks if chunk.kind == kind) == text
    assert (answer["text"], answer["reasoning"] or "") == (family.content, family.reasoning)
    assert (answer["finish_reason"], answer["attempt"]) == ("stop", 2)
    assert answer["usage"]["prompt_tokens"] == len(family.prompt_ids("chat"))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.usefixtures("killed")
def test_conversations_and_a_stop(shared_app: Celery, name: str) -> None:
    """System and developer messages reach the model by as many tokens as its authors meant; a stop string ends the answer."""
    from tasks import generate

    assert generate.app is shared_app
    family = FAMILIES[name]
    stop = family.content[-5:-1]
    results = {conversation: ask(generate, family, conversation) for conversation in ("system", "developer")}
    stopped = ask(generate, family, stop=[stop])
    for conversation, result in results.items():
        answer = result.get(timeout=WAIT_S)
        assert answer["usage"]["prompt_tokens"] == len(family.prompt_ids(conversation))
        assert (answer["text"], answer["reasoning"] or "") == (family.content, family.reasoning)
    answer = stopped.get(timeout=WAIT_S)
    assert (answer["text"], answer["finish_reason"]) == (family.content.partition(stop)[0], "stop")
    assert (answer["reasoning"] or "") == family.reasoning
