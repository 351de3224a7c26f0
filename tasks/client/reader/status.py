"""The status of a request: one look at its journal, its queue, the fleet and its stored result."""

from __future__ import annotations

from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from redis.exceptions import RedisError

from tasks.broker.inventory.contents import contents_of, ledger_message
from tasks.broker.queues.limits import position
from tasks.messages.journal import Claim, End, Error, Release, Start, Token, decode
from tasks.messages.registry import WorkerRecord
from tasks.registry import Registry
from tasks.server import keys
from tasks.server.connection import connect, translated
from worker_config.catalogue import ModelNotAllowed, catalogue_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

    from tasks.client.reader.reading import Stored
    from tasks.messages.journal import Entry
    from tasks.server.connection import Endpoint
    from worker_config.catalogue import Catalogue
    from worker_config.settings import Settings

State: TypeAlias = Literal["unknown", "queued", "loading", "running", "ended"]
#: States of an engine in which requests wait for it.
LOADING = {"loading": "loading", "downloading": "fetching"}
#: Looking must not take long.
LOOK_S = 1.0


@dataclass(slots=True, frozen=True, kw_only=True)
class RequestStatus:
    """The status of a request; its text is one line for people.

    Attributes:
        state: ``unknown``: no request of this id is known. ``queued``: no worker has claimed it. ``loading``: it waits for its
            model, which a worker loads or fetches. ``running``: a worker has claimed it. ``ended``: nothing more comes.
        ahead: how many requests will be taken before this one, where it waits in a queue.
        wait_s: seconds that this may take; ``None`` where that is not known.
        worker: the worker that runs it or ran it, or that loads its model.
        model: the model that it waits for; ``None`` where the message cannot be seen.
        fraction: how far the load or the download is, 0 to 1, where that is known.
        attempt: the number of the last claim.
        tokens: how many tokens there are so far.
        finish_reason: how it has ended; ``None`` if it failed.
        error_code: the ``code`` of its error, if it failed.
    """

    state: State
    ahead: int | None = None
    wait_s: float | None = None
    worker: str | None = None
    model: str | None = None
    fraction: float | None = None
    attempt: int = 0
    tokens: int = 0
    finish_reason: str | None = None
    error_code: str | None = None

    def __str__(self) -> str:
        return _WORDS[self.state](self)


class CeleryState(str):
    """Celery's name of a result's state, which ``result.status`` has always been. Called, it gives a :class:`RequestStatus`."""

    __slots__ = ("_look",)
    _look: Callable[[], RequestStatus]

    def __new__(cls, name: str, look: Callable[[], RequestStatus]) -> CeleryState:
        """Make the state from its name and the function that looks for more."""
        found = super().__new__(cls, name)
        found._look = look
        return found

    def __call__(self) -> RequestStatus:
        """Return how far the request has come.

        Raises:
            BrokerUnavailable: Redis cannot be reached, or refuses this client.
        """
        return self._look()

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)


def read_status(where: Endpoint, task_id: str, stored: Callable[[], Stored], settings: Settings) -> RequestStatus:
    """Look once.

    Args:
        where: the server.
        task_id: the request.
        stored: reads Celery's result; asked where there is neither a journal nor an entry in the ledger.
        settings: the application's, which say the model of a request that names none.

    Raises:
        BrokerUnavailable: Redis cannot be reached, or refuses this client.
    """
    with closing(connect(where, timeout_s=LOOK_S, attempts=1)) as client:
        with translated(f"request {task_id}"):
            newest = _newest(client.xrevrange(keys.stream(task_id), count=1))
            beginning = _beginning(client, task_id, newest)
        found = _of_journal(newest, beginning)
        if found is None:
            found = _waiting(client, task_id, newest, settings)
    return found or _of_result(stored())


def _beginning(client: redis.Redis, task_id: str, newest: Entry | None) -> list[Entry]:
    """The first two entries of the newest attempt: its claim and, once the prompt is tokenised, its start."""
    if newest is None or isinstance(newest, End | Error):
        return []
    found: Any = client.xrange(keys.stream(task_id), f"{newest.attempt}-0", f"{newest.attempt}-1")
    return [entry for _, fields in found if (entry := decode(fields.get(b"d", b""))) is not None]


def _of_journal(newest: Entry | None, beginning: list[Entry]) -> RequestStatus | None:
    """Return the status by the journal; ``None`` where no worker has the request."""
    if newest is None or isinstance(newest, Release):
        return None
    if isinstance(newest, End):
        return RequestStatus(
            state="ended", attempt=newest.attempt, tokens=newest.index, finish_reason=newest.finish_reason
        )
    if isinstance(newest, Error):
        return RequestStatus(state="ended", attempt=newest.attempt, error_code=newest.code)
    return RequestStatus(
        state="running",
        attempt=newest.attempt,
        worker=next((entry.worker for entry in beginning if isinstance(entry, Claim)), None),
        model=next((entry.model for entry in beginning if isinstance(entry, Start)), None),
        tokens=newest.index + len(newest.ids) if isinstance(newest, Token) else 0,
    )


def _waiting(client: redis.Redis, task_id: str, newest: Entry | None, settings: Settings) -> RequestStatus | None:
    """A request that no worker has claimed, in whatever place; ``None`` where nothing is known of it."""
    attempt = newest.attempt if newest is not None else 0
    entry: Any = None
    with suppress(RedisError):  # a reader may not look into the ledger
        entry = client.hget(keys.LEDGER, task_id)
    if entry is None and newest is None:
        return None
    if entry is not None and (place := position(client, task_id)) is not None:
        return RequestStatus(state="queued", attempt=attempt, ahead=place.ahead, wait_s=place.wait_s)
    model = contents_of(ledger_message(entry)).model if entry is not None else None
    return _loading(client, model or settings.default_model, attempt, catalogue_of(settings))


def _loading(client: redis.Redis, model: str, attempt: int, catalogue: Catalogue) -> RequestStatus:
    """A request that a worker holds and has not claimed: its model is being loaded, or it is about to be claimed."""
    name = model
    with suppress(ModelNotAllowed):
        name = catalogue.resolve(model).name
    for record in Registry(client).read().records:
        for engine in record.engines if isinstance(record, WorkerRecord) else ():
            if engine.model == name and engine.state in LOADING:
                return RequestStatus(
                    state="loading", attempt=attempt, worker=record.node, model=name, fraction=engine.fraction
                )
    return RequestStatus(state="queued", attempt=attempt, model=name)


def _of_result(stored: Stored) -> RequestStatus:
    """Return the status by Celery's stored result, for a request of which there is nothing else."""
    if stored.error is not None:
        return RequestStatus(state="ended", error_code=getattr(stored.error, "code", "internal_error"))
    if stored.final:
        tokens = stored.usage["completion_tokens"] if stored.usage else 0
        return RequestStatus(state="ended", tokens=tokens, finish_reason=stored.finish_reason)
    return RequestStatus(state="unknown" if stored.absent else "queued")


def _newest(entries: Any) -> Entry | None:
    return decode(entries[0][1].get(b"d", b"")) if entries else None


def _queued(status: RequestStatus) -> str:
    if status.attempt:
        return f"its worker gave it back after attempt {status.attempt}, and no other has claimed it yet"
    if status.ahead is None:
        return "no worker has claimed it"
    wait = f", for about {status.wait_s:g} s" if status.wait_s is not None else ""
    return f"no worker has claimed it: {status.ahead} {'is' if status.ahead == 1 else 'are'} ahead of it{wait}"


def _while_loading(status: RequestStatus) -> str:
    far = f": {100 * status.fraction:.0f}%" if status.fraction is not None else ""
    return f"it waits while {status.worker} loads {status.model}{far}"


def _running(status: RequestStatus) -> str:
    worker = status.worker or "?"
    if status.tokens:
        return f"worker {worker} has sent {status.tokens} tokens"
    return f"worker {worker} has claimed it (attempt {status.attempt}), no token yet"


def _ended(status: RequestStatus) -> str:
    return f"it has ended: {status.error_code or f'{status.finish_reason}, {status.tokens} tokens'}"


_WORDS: dict[State, Callable[[RequestStatus], str]] = {
    "unknown": lambda _: "unknown: no queue, worker or result has a request of this id",
    "queued": _queued,
    "loading": _while_loading,
    "running": _running,
    "ended": _ended,
}
