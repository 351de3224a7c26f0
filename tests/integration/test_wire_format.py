"""Clients without this project's code: the page's own code and rules, and the example, against a real server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tasks.client.reader.reading import Stored
from tasks.client.reader.stream import follow
from tasks.errors import BrokerUnavailable
from tasks.journal.items import Append
from tasks.journal.writer import Journal, mark_cancelled
from tasks.messages.journal import End, Error, Token
from tasks.server import keys
from tasks.server.connection import connect, endpoint
from tests.support import ROOT, wait_until

if TYPE_CHECKING:
    from redis import Redis

    from tasks.demo.embedded import EmbeddedServer

PAGE = (ROOT / "docs" / "wire-format.md").read_text(encoding="utf-8")
TOKEN = Token(attempt=1, index=0, ids=[1, 2], text="Héllo 🌍")


def answer(journal: Journal, task_id: str, last: End | Error) -> None:
    journal.claim(task_id, "a@here#1")
    journal.append([Append.of(task_id, 1, TOKEN), Append.of(task_id, 2, last)])


@pytest.mark.parametrize(
    ("last", "status", "said"),
    [
        (
            End(attempt=1, index=2, finish_reason="stop", usage={"completion_tokens": 2}),
            0,
            "[stop, {'completion_tokens': 2}]",
        ),
        (Error(attempt=1, code="engine_failed", message="three times"), 1, "[engine_failed: three times]"),
    ],
)
def test_raw_reader(redis_url: str, last: End | Error, status: int, said: str) -> None:
    """The example reads a stream that begins after it did, with redis-py alone."""
    with closing(connect(redis_url)) as client:
        reader = subprocess.Popen(
            [sys.executable, "-X", "utf8", "examples/raw_redis.py", "task-1"],
            cwd=ROOT, env={**os.environ, "REDIS_URL": redis_url}, stdout=subprocess.PIPE, text=True, encoding="utf-8",
            start_new_session=True,
        )  # fmt: skip
        name = keys.stream("task-1")
        wait_until(lambda: dict(client.pubsub_numsub(name))[name.encode()] == 1, about="the example's subscription")
        answer(Journal(client), "task-1", last)
        output, _ = reader.communicate(timeout=60)
    assert output == f"{TOKEN.text}\n{said}\n"
    assert reader.returncode == status


def test_submit(redis_url: str, producer_app: Any) -> None:
    """What the page's code queues is a message that Celery takes, with its entry in the ledger."""
    code = re.search(r"<!-- submit -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    assert code
    module: dict[str, Any] = {}
    exec(code[1], module)  # noqa: S102  (the page's own code)
    with closing(connect(redis_url)) as client:
        task_id = module["submit"](client, "tier-3-7B", priority=5, prompt="Hello", model="m", max_tokens=3)
        (entry,) = [json.loads(entry) for entry in client.hgetall(keys.LEDGER).values()]
        seconds, _ = client.time()
        assert entry["queue"] == "tier-3-7B\x06\x165"
        assert abs(entry["at"] - seconds) < 60
        assert client.lindex(entry["queue"], 0) == entry["message"].encode()

        with producer_app.connection_for_read() as connection, closing(connection.SimpleQueue("tier-3-7B")) as queue:
            message = queue.get(timeout=60)
            message.ack()
        assert message.headers["id"] == message.properties["correlation_id"] == task_id
        assert message.decode()[:2] == [[], {"prompt": "Hello", "model": "m", "max_tokens": 3}]
        assert Journal(client).claim(task_id, "a@here#1").queued_ms is not None


def rules(who: str) -> list[str]:
    row = re.search(rf"^\| {who}.*?\| `(.*)` \|$", PAGE, re.MULTILINE)
    assert row
    return row[1].replace("\\|", "|").split()


def test_access_rules(redis_server: EmbeddedServer, redis_client: Redis) -> None:
    """The page's rules are enough for each role, and keep a reader from writing."""
    address = redis_server.url.rpartition("@")[2]
    clients = {}
    for role in ("reads", "cancels", "writes"):
        redis_client.execute_command("ACL", "SETUSER", role, "reset", "on", ">x", *rules(role))  # type: ignore[no-untyped-call]
        clients[role] = connect(f"redis://{role}:x@{address}")
    try:
        journal = Journal(clients["writes"])
        mark_cancelled(clients["cancels"], "task-1", running=True)
        assert journal.cancelled(["task-1"]) == {"task-1"}
        answer(journal, "task-1", End(attempt=1, index=2, finish_reason="cancelled", usage={}))
        answered = journal.claim("task-1", "b@here#1")
        assert answered.kind == "ended"
        assert journal.end_unclaimed("task-2", Error(attempt=0, code="expired", message="late")) == "ended"
        claimed = journal.claim("task-3", "a@here#1")
        redis_client.delete(keys.stream("task-3"))
        assert journal.fill("task-3", claimed.items)

        where = endpoint(f"redis://reads:x@{address}")
        assert "".join(chunk.text for chunk in follow(where, "task-1", Stored, timeout=30)) == TOKEN.text
        for role in ("reads", "cancels"):
            with pytest.raises(BrokerUnavailable, match="refuses"):
                Journal(clients[role]).claim("task-4", "a@here#1")
    finally:
        for client in clients.values():
            client.close()
