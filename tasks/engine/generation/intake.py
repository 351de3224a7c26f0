"""Turns a worker's messages into tokenised requests, off the stepping thread."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from queue import SimpleQueue
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

from tasks.engine.failure import is_panic
from tasks.engine.generation.sequence import Request, prompt_hash
from tasks.engine.text.length import LONG_CHARACTERS, tokens_left
from tasks.engine.text.rendering import words_of
from tasks.errors import CannotResume, GenerationError, InvalidRequest
from tasks.messages.embedding import Embed, Rerank
from tasks.messages.engine import Abort, Failed, Preparing, Resize, Submit

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.engine.generation.runner import ModelRunner
    from tasks.messages.engine import Isolation, Work

logger = logging.getLogger(__name__)

#: Tokenised work, with which a loop computes.
Prepared = TypeVar("Prepared")
Item: TypeAlias = Request | Abort | Failed | Resize

#: A burst that has not come in by then is not waited for.
MOST_GATHER_S = 0.05
BURST_FACTOR = 5


class Intake(Generic[Prepared]):
    """Takes messages in on one thread, prepares requests on three others, or on that of an idle engine, and hands them over.

    Long prompts and constraints have a thread each, beside the one for short requests: a grammar may take a second to compile.
    What may have killed an engine is prepared on the stepping thread, once it may join the batch: beside others a death would
    count against them.
    """

    def __init__(self) -> None:
        self._short: SimpleQueue[Work] = SimpleQueue()
        self._long: SimpleQueue[Work] = SimpleQueue()
        self._constrained: SimpleQueue[Work] = SimpleQueue()
        self._uids = itertools.count()
        self._changed = threading.Condition()
        self._ready: list[Prepared | Abort | Failed | Resize] = []
        #: Requests that are not tokenised yet, each with the abort that came after it.
        self._pending: dict[str, Abort | None] = {}
        #: Requests that are prepared apart from others, and when they came (monotonic seconds).
        self._apart: deque[tuple[Work, float]] = deque()
        self._prepare: Callable[[int, Work], Prepared] | None = None
        self._tell: Callable[[Preparing], None] = lambda _: None
        #: Whether the stepping thread is idle, and the work that came then, which it prepares itself.
        self._is_idle = False
        self._for_idle: Work | None = None

    def receive(self, message: Work | Abort | Resize) -> None:
        """Take a message in; only requests queue behind other requests' tokenising."""
        with self._changed:
            if isinstance(message, Abort):
                self._receive_abort(message)
            elif isinstance(message, Resize):
                self._ready.append(message)
            elif message.isolate:
                self._apart.append((message, time.monotonic()))
            else:
                self._hand_on(message)
            self._changed.notify_all()

    def _receive_abort(self, abort: Abort) -> None:
        for kept in tuple(self._apart):
            if kept[0].task_id == abort.task_id:  # its end says how long its prompt is
                self._apart.remove(kept)
                self._hand_on(kept[0])
        if abort.task_id in self._pending:
            self._pending[abort.task_id] = abort
        else:
            self._ready.append(abort)

    def start(
        self, prepare: Callable[[int, Work], Prepared], tell: Callable[[Preparing], None] = lambda _: None
    ) -> None:
        """Begin to tokenise.

        Args:
            prepare: what a loaded model has for that: it makes work of a message, which gets this number.
            tell: has the worker know what is prepared, before that begins.
        """
        self._prepare, self._tell = prepare, tell
        queues = {"intake": self._short, "intake-long": self._long, "intake-constrained": self._constrained}
        for name, queue in queues.items():
            threading.Thread(target=self._tokenise, args=(queue,), name=name, daemon=True).start()

    def _hand_on(self, work: Work) -> None:
        """Have a request prepared. The first short one that comes to an idle engine costs no hand-over to another thread."""
        self._pending[work.task_id] = None
        queue = self._queue_of(work)
        if self._is_idle and queue is self._short:
            self._is_idle, self._for_idle = False, work
        else:
            queue.put(work)

    def _queue_of(self, work: Work) -> SimpleQueue[Work]:
        if isinstance(work, Submit) and (work.is_bounded or work.tools is not None):
            return self._constrained
        return self._long if _characters(work) > LONG_CHARACTERS else self._short

    def prepare_apart(self, allows: Callable[[Isolation], bool]) -> None:
        """Prepare, on the calling thread, the requests that were kept apart and are allowed beside those that run."""
        while self._apart:  # costs nothing to ask
            with self._changed:
                if not self._apart or not allows(self._apart[0][0].isolate):
                    return
                work, _ = self._apart.popleft()
                self._pending[work.task_id] = None
            self._tokenise_one(work)

    @property
    def apart_waits_s(self) -> float:
        """For how long the first request that is kept apart has waited; 0 if there is none."""
        if not self._apart:
            return 0.0
        with self._changed:
            return time.monotonic() - self._apart[0][1] if self._apart else 0.0

    @property
    def has_ready(self) -> bool:
        """Whether :meth:`collect` would bring something now; costs nothing to ask."""
        return bool(self._ready)

    def collect(
        self, gather_s: float | None = None, most: int | None = None
    ) -> list[Prepared | Abort | Failed | Resize]:
        """Collect all that is ready, in order of arrival.

        With ``gather_s`` (the engine is idle) wait until there is something, and for the rest of its burst: until
        nothing is being tokenised and nothing new came for ``gather_s``, at most ``MOST_GATHER_S``. What has brought more
        than one request is a burst, and is given longer pauses. One of ``most`` requests is whole: no more can join the batch.
        """
        if gather_s is not None and (work := self._first()) is not None:
            self._tokenise_one(work)
        with self._changed:
            if gather_s is not None and not self._apart:
                self._gather(gather_s, most)
            items, self._ready = self._ready, []
        return items

    def _first(self) -> Work | None:
        """Wait until something is ready; or the work that the calling thread prepares, as it has nothing else to do."""
        with self._changed:
            self._is_idle = self._prepare is not None
            self._changed.wait_for(lambda: self._ready or self._apart or self._for_idle is not None)
            self._is_idle = False
            work, self._for_idle = self._for_idle, None
            return work

    def _gather(self, quiet_s: float, most: int | None) -> None:
        deadline = time.monotonic() + MOST_GATHER_S
        while quiet_s and (most is None or len(self._ready) < most) and (left_s := deadline - time.monotonic()) > 0:
            if self._pending:
                self._changed.wait(left_s)
                continue
            pause_s = quiet_s if len(self._ready) == 1 else BURST_FACTOR * quiet_s
            if not self._more_comes(min(pause_s, left_s)):
                return

    def _more_comes(self, within_s: float) -> bool:
        known = len(self._ready)
        return self._changed.wait_for(lambda: bool(self._pending) or len(self._ready) > known, within_s)

    def _tokenise(self, queue: SimpleQueue[Work]) -> None:
        while True:
            self._tokenise_one(queue.get())

    def _tokenise_one(self, work: Work) -> None:
        assert self._prepare is not None
        if work.again:
            self._tell(Preparing(work.task_id, done=False))
        item = _try(self._prepare, next(self._uids), work)
        if work.again:
            self._tell(Preparing(work.task_id, done=True))
        with self._changed:
            self._ready.append(item)
            if (abort := self._pending.pop(work.task_id, None)) is not None:
                self._ready.append(abort)
            self._changed.notify_all()


def _characters(work: Work) -> int:
    """Return the approximate number of characters of a prompt."""
    if isinstance(work, Embed):
        return sum(map(len, work.inputs))
    if isinstance(work, Rerank):
        return len(work.query) * len(work.documents) + sum(map(len, work.documents))
    if work.prompt is not None:
        return len(work.prompt)
    return sum(map(len, words_of(work.messages or [])))


def _try(prepare: Callable[[int, Work], Prepared], uid: int, work: Work) -> Prepared | Failed:
    try:
        return prepare(uid, work)
    except GenerationError as error:
        return Failed(work.task_id, error.code, str(error))
    except BaseException as error:  # one bad request must not end the thread that all others need
        if not (isinstance(error, Exception) or is_panic(error)):
            raise
        logger.exception("request %s could not be prepared", work.task_id)
        return Failed(work.task_id, GenerationError.code, f"the request could not be prepared: {error!r}")


def preparer(runner: ModelRunner) -> Callable[[int, Work], Request]:
    """Return the function that prepares work for a model that generates."""

    def made(uid: int, work: Work) -> Request:
        if isinstance(work, Embed):
            raise InvalidRequest(
                "model: it generates text, and no file of its folder says how a text becomes one vector (modules.json): use "
                "generate, or a model that was trained for embeddings"
            )
        if isinstance(work, Rerank):
            raise InvalidRequest(
                "model: it generates text, and its config.json names no head with one label: use generate, or a cross-encoder"
            )
        return prepare(uid, work, runner)

    return made


def prepare(uid: int, submit: Submit, runner: ModelRunner) -> Request:
    """A request with its prompt tokenised and an earlier attempt's tokens taken over.

    Raises:
        InvalidRequest: the model cannot take this prompt.
        ContextExceeded: prompt and ``max_tokens`` do not fit the context.
        CannotResume: the earlier attempt's model or prompt was another.
    """
    facts = runner.facts
    prompt = runner.encode(submit)
    if not prompt.ids:
        raise InvalidRequest("prompt: has no tokens; give the model something to continue")
    grammar = runner.grammar(submit, prompt)
    request = Request(
        uid=uid,
        submit=submit,
        prompt=prompt.ids,
        prompt_hash=prompt_hash(prompt.ids),
        limit=tokens_left(len(prompt.ids), submit.max_tokens, facts.context_tokens),
        end_ids=facts.end_ids,
        assembler=runner.assembler(submit, prompt, grammar),
        grammar=grammar,
        revision=facts.revision if grammar is None else f"{facts.revision}+{grammar.engine}",
        rendering=prompt.rendering,
    )
    if submit.resume is not None:
        _resume(request)
    return request


def _resume(request: Request) -> None:
    resume = request.submit.resume
    assert resume is not None
    for what, before, now in (
        ("model revision", resume.revision, request.revision),
        ("prompt hash", resume.prompt_hash, request.prompt_hash),
    ):
        if before != now:
            raise CannotResume(f"the earlier attempt's {what} was {before!r}, this worker's is {now!r}")
    request.resume()
