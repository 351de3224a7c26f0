"""docs/security.md has a user for each role: each can do its work, and none can do another's."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import redis

from tasks.demo.embedded import EmbeddedServer, find_server, server_version
from tasks.demo.process import GuardedProcess
from tasks.server import keys
from tests.gateway import GatewayProcess
from tests.support import ROOT, wait_until
from worker_config.settings import environment_with

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.xdist_group("acl"),
    pytest.mark.skipif((server_version(find_server()) or ()) < (7,), reason="ACLs by role need Redis 7 or Valkey"),
]
ROLES = ("producer", "gateway", "reader", "worker", "beat", "operator")
NODE = "acl@here"
MODEL = "fake:20"


def rules() -> list[str]:
    """The lines of the page."""
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- acl -->\n```text\n(.*?)```", page, re.DOTALL)
    assert found, "docs/security.md has no rules between its marks"
    return found.group(1).strip().splitlines()


class Users:
    """A server with those users."""

    def __init__(self, server: EmbeddedServer) -> None:
        self.server = server
        self.root: Any = redis.Redis.from_url(server.url, decode_responses=True)

    def url(self, role: str) -> str:
        """The URL of a role."""
        return self.server.url.replace(f":{self.server.password}@", f"{role}:PASSWORD@")

    def client(self, role: str) -> Any:
        """A client of a role."""
        return redis.Redis.from_url(self.url(role), decode_responses=True)

    def environment(self, role: str) -> dict[str, str]:
        """The environment of a process of this role."""
        return environment_with(REDIS_URL=self.url(role), CELERY_MLX_HEARTBEAT_S="0.5", CELERY_MLX_MODELS=MODEL)

    def run(self, role: str, *command: str) -> str:
        """What a program of this role prints; it has to succeed."""
        done = subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env=self.environment(role),
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, f"{command} as {role}: {done.stdout}{done.stderr}\n{self.denied()}"
        return done.stdout

    def allows(self, role: str, command: list[str]) -> bool:
        """Whether the server would run a command of a role; it does not run it."""
        return str(self.root.execute_command("ACL", "DRYRUN", role, *command)) == "OK"

    def denied(self) -> list[Any]:
        """What the server has refused so far."""
        log: Any = self.root.acl_log()
        return [(entry["username"], entry["reason"], entry["context"], entry["object"]) for entry in log]


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Users]:
    """The server, and a worker and a beat, each as its user."""
    folder = tmp_path_factory.mktemp("acl")
    with EmbeddedServer(config=rules()) as server, contextlib.ExitStack() as stack:
        users = Users(server)
        stack.callback(users.root.close)
        worker = ["worker", "-n", NODE, "-c", "2", "-Q", "tier-under-3B,celery", "-E", "-l", "INFO"]
        beat = ["beat", "-s", str(folder / "schedule"), "--pidfile=", "-l", "INFO"]
        for role, command in (("worker", worker), ("beat", beat)):
            process = GuardedProcess(
                [sys.executable, "-m", "celery", "-A", "tasks", *command],
                log=folder / f"{role}.log",
                grace_s=15,
                env=users.environment(role),
            )
            stack.callback(process.stop)
        wait_until(lambda: "online" in str(users.root.hget(keys.WORKERS, NODE)), timeout_s=90, about="a worker")
        wait_until(lambda: users.root.exists(keys.SWEEP), timeout_s=90, about="a sweep")
        yield users


PRODUCER = """
import json
from celery import chord
from tasks import generate
one = generate.delay(prompt="one", model="fake:20", max_tokens=5)
text = "".join(chunk.text for chunk in one.stream(timeout=60))
assert text == one.get(timeout=60)["text"]
short = dict(model="fake:20", max_tokens=2)
joined = chord([generate.s(prompt="a", **short), generate.s(prompt="b", **short)], generate.s(prompt="{previous}", **short))
assert joined.delay().get(timeout=60)["text"]
unrouted = generate.app.send_task("tasks.generate", kwargs=dict(prompt="x", **short), queue="celery")
assert unrouted.get(timeout=60)["text"]
later = generate.apply_async(kwargs=dict(prompt="later", **short), countdown=5)
assert later.position().wait_s
assert later.get(timeout=60)["text"]
shared = "All of them begin with this. " * 40
assert all(generate.delay(prompt=shared + end, **short).get(timeout=60)["text"] for end in ("a", "b"))
long = generate.delay(prompt="long", model="fake:20", max_tokens=5000, require_worker=True)
chunks = long.stream(timeout=60)
next(chunks)
long.position()
long.revoke(terminate=True)
assert list(chunks)[-1].finish_reason == "cancelled"
lines = list(generate.bulk(["a", "b"], **short))
assert [line.error for line in lines] == [None, None]
print(json.dumps([one.id, text]))
"""
READER = """
import sys
from tasks import generate
result = generate.AsyncResult(sys.argv[1])
assert "".join(chunk.text for chunk in result.stream(timeout=60)) == result.get(timeout=60)["text"] == sys.argv[2]
"""

#: What Flower does: it hears events, and asks who is there.
MONITOR = """
from tasks.celery import app
seen = []
def hear(event):
    seen.append(event)
    receiver.should_stop = True
with app.connection_for_read() as connection:
    receiver = app.events.Receiver(connection, handlers={"*": hear})
    receiver.capture(limit=None, timeout=30, wakeup=True)
assert seen, "no event"
assert app.control.inspect(destination=["acl@here"], timeout=60).ping(), "no answer"
"""


def ask_a_gateway(users: Users, log: Path) -> None:
    """An answer, a stream that is left, and looks at the fleet."""
    body = {"model": "fake:20", "prompt": "one", "max_tokens": 5}
    with GatewayProcess(log, env=users.environment("gateway")) as gateway, gateway.http() as http:
        assert http.post("/v1/completions", json={**body, "n": 2}).status_code == 200
        with http.stream("POST", "/v1/completions", json={**body, "stream": True, "max_tokens": 5000}) as answer:
            next(answer.iter_lines())
        wait_until(lambda: "gateway_open_answers 0" in http.get("/metrics").text, about="the end of the stream")
        line = {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": body}
        file_id = http.post("/v1/files", data={"purpose": "batch"}, files={"file": json.dumps(line)}).json()["id"]
        batch = {"input_file_id": file_id, "endpoint": "/v1/completions", "completion_window": "1h"}
        batch_id = http.post("/v1/batches", json=batch).json()["id"]
        wait_until(lambda: http.get(f"/v1/batches/{batch_id}").json()["status"] == "completed", about="a batch")
        for path in ("/v1/models", "/fleet", "/health"):
            assert http.get(path).status_code == 200, (path, users.denied())
    users.run("gateway", "-m", "celery", "-A", "tasks", "keys", "make", "somebody")
    users.run("gateway", "-m", "celery", "-A", "tasks", "keys", "list")


def test_each_role_can_do_its_work(users: Users, tmp_path: Path) -> None:
    """Sent, cancelled, chained, streamed, read, watched and steered, with nothing refused by the server."""
    task_id, text = json.loads(users.run("producer", "-c", PRODUCER))
    users.run("reader", "-c", READER, task_id, text)
    ask_a_gateway(users, tmp_path / "gateway.log")
    for command in (
        ["fleet", "--once"],
        ["fleet", "show", NODE],
        ["fleet", "drain", NODE],
        ["fleet", "resume", NODE],
        ["models"],
        ["metrics", "--once"],
        ["inspect", "-t", "60", "-d", NODE, "ping"],
        ["inspect", "-t", "60", "-d", NODE, "active"],
    ):
        users.run("operator", "-m", "celery", "-A", "tasks", *command)
    users.run("operator", "-c", MONITOR)
    # The broadcast that a producer tries at a cancel; the mark that it leaves before is enough.
    assert [denial for denial in users.denied() if denial[3] != "publish"] == []


@pytest.mark.parametrize("role", ["producer", "gateway", "reader", "operator"])
@pytest.mark.parametrize(
    "command",
    [
        ["XADD", keys.stream("somebodys"), "*", "d", "{}"],
        ["DEL", keys.stream("somebodys")],
        ["HSET", keys.WORKERS, NODE, "{}"],
        ["SET", keys.alive("somebody"), "1"],
        ["SADD", keys.OWNERS, "somebody"],
        ["HGETALL", "unrelated"],
        ["SET", "celery-task-meta-somebodys", "{}"],
        ["HSET", keys.unacked("somebody"), "t", "m"],
        ["CONFIG", "GET", "*"],
        ["FLUSHALL"],
        ["KEYS", "*"],
        ["ACL", "LIST"],
        ["CLIENT", "KILL", "TYPE", "normal"],
        ["EVAL", "return redis.call('XADD', KEYS[1], '*', 'd', '{}')", "1", keys.stream("somebodys")],
    ],
    ids=lambda command: " ".join(command)[:30],
)
def test_what_is_not_its_work(users: Users, role: str, command: list[str]) -> None:
    """Neither a producer nor a reader nor an operator writes journals, results or the registry, or administers Redis."""
    with contextlib.closing(users.client(role)) as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(*command)


@pytest.mark.parametrize("command", [["LPUSH", "tier-under-3B", "x"], ["SET", keys.cancel("x"), "running"]])
def test_a_reader_sends_and_cancels_nothing(users: Users, command: list[str]) -> None:
    """Who only reads can do no more than that."""
    with contextlib.closing(users.client("reader")) as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(*command)


@pytest.mark.parametrize("role", ["worker", "beat"])
@pytest.mark.parametrize("command", [["CONFIG", "GET", "*"], ["FLUSHALL"], ["ACL", "LIST"], ["SHUTDOWN"]])
def test_who_serves_does_not_administer(users: Users, role: str, command: list[str]) -> None:
    """A worker's or beat's password does not open Redis itself."""
    with contextlib.closing(users.client(role)) as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(*command)


READS = {"exists", "get", "hget", "hgetall", "hmget", "hvals", "mget", "xrange", "xrevrange"}
QUEUES = {
    *("eval", "evalsha", "hdel", "hexists", "hget", "hset", "llen", "lpos", "lpush", "lrem", "zadd", "zcard", "zrem"),
    "zscore",
}
SETS = {"del", "get", "set"}
JOBS = {"expire", "hdel", "hgetall", "hset", "zadd", "zrem", "zrevrange"}
#: Each kind of key, and the commands on it that a producer and a reader may use.
RIGHTS: dict[str, tuple[set[str], set[str]]] = {
    keys.stream("x"): (READS, READS),
    "celery-task-meta-x": (READS, READS),
    keys.WORKERS: (READS, READS),
    keys.alive("a@b#c"): (READS, READS),
    keys.SWEEP: (READS, READS),
    keys.LEDGER: (QUEUES, {"hexists"}),
    keys.LIMITS: (QUEUES | {"hgetall"}, set()),
    keys.bulk("x"): (JOBS, set()),
    keys.BULK_JOBS: (JOBS, set()),
    keys.stream("bulk-1"): (READS | {"del"}, READS),
    "celery-task-meta-bulk-1": (READS | {"del"}, READS),
    keys.ASIDE: (QUEUES | {"zrange"}, set()),
    keys.scheduled("tier-3-7B"): (QUEUES, set()),
    keys.request("x"): (QUEUES | SETS, set()),
    keys.cancel("x"): (SETS, set()),
    "tier-3-7B": (QUEUES, set()),
    "celery": (QUEUES, set()),
    "_kombu.binding.tier-3-7B": ({"exists", "sadd", "sismember", "smembers", "srem"}, set()),
    "celery-taskset-meta-x": (SETS | {"setex"}, set()),
    keys.AFFINITY_WORKERS: (READS, set()),
    keys.warm("x"): (READS, set()),
    keys.unacked("a@b#c"): ({"hlen"}, set()),
    keys.OWNERS: (set(), set()),
    keys.HISTORY: (set(), set()),
    "x.reply.celery.pidbox": (set(), set()),
    "unrelated": (set(), set()),
}
#: Commands without keys.
CONNECTION = {"auth", "hello", "info", "ping", "quit", "reset", "select", "time", "unsubscribe"}
PLAIN = (
    CONNECTION | {"discard", "exec", "multi", "unwatch"},
    CONNECTION,
)
REVEALING = (
    ["CLIENT", "LIST"],
    ["CLIENT", "TRACKING", "ON", "BCAST"],
    ["PUBSUB", "CHANNELS"],
    ["PSUBSCRIBE", "celery-mlx:stream:*"],
    ["PSUBSCRIBE", "*"],
    ["SUBSCRIBE", "/0.celery.pidbox"],
    ["SUBSCRIBE", keys.EVENTS],
    ["PUBLISH", "/0.celery.pidbox", "x"],
    ["PUBLISH", keys.stream("x"), "x"],
    ["OBJECT", "ENCODING", keys.stream("x")],
    ["SCRIPT", "FLUSH"],
)


@pytest.mark.parametrize(("role", "at"), [("producer", 0), ("reader", 1)])
def test_every_command_on_every_kind_of_key(users: Users, role: str, at: int) -> None:
    """Each command of the server is tried on each kind of key: what the page does not give is refused."""
    users.root.set_response_callback("COMMAND", lambda reply, **_: reply)
    plain: set[str] = set()
    allowed: dict[str, set[str]] = {key: set() for key in RIGHTS}
    for name, arity, flags, first, _, _, _, _, _, parts in users.root.execute_command("COMMAND"):
        if parts:  # a name for others, such as CLIENT
            continue
        if first == 0 and "movablekeys" not in flags:
            if users.allows(role, [name, *["1"] * (abs(arity) - 1)]):
                plain.add(name)
            continue
        for key in RIGHTS:
            # Behind a script or a destination comes the number of keys.
            words = ["x"] * (first - 1) + [key] if first else ["x", "1", key] if "noscript" in flags else ["1", key]
            words += ["1"] * (abs(arity) - 1 - len(words))
            if users.allows(role, [name, *words]):
                allowed[key].add(name)
    expected = {key: rights[at] for key, rights in RIGHTS.items()}
    assert {key: names - {"watch"} for key, names in allowed.items()} == expected
    assert plain == PLAIN[at]


@pytest.mark.parametrize("role", ["producer", "reader"])
@pytest.mark.parametrize("command", REVEALING, ids=" ".join)
def test_nothing_lists_what_others_do(users: Users, role: str, command: list[str]) -> None:
    """Neither clients, channels nor changed keys show the ids of others, and nothing steers the fleet."""
    assert not users.allows(role, command)
