"""``task_always_eager`` and ``.apply()``: one request, here and now, on an engine of this process and without Redis."""

from __future__ import annotations

import atexit
import threading
import uuid
from typing import TYPE_CHECKING, Any

from tasks.errors import EngineFailed, ModelLoadFailed, UnknownModel, error_for
from tasks.hardware import detect
from tasks.journal.claim_answer import ClaimAnswer
from tasks.messages.engine import StepOutput
from tasks.messages.journal import Claim, End, Error
from tasks.messages.load import LoadFailed, Ready
from tasks.models.footprint import local_source
from tasks.worker.attempts.works import work_of
from tasks.worker.capacity import Capacity
from tasks.worker.engines.configs import Configs
from tasks.worker.engines.process import EngineGone, EngineProcess
from tasks.worker.slots import Slots
from worker_config.catalogue import ModelNotAllowed, catalogue_of

if TYPE_CHECKING:
    from tasks.client.answer import Answer
    from tasks.generate import GenerateTask
    from tasks.worker.attempts.attempt import Attempt
    from worker_config.catalogue import ModelEntry
    from worker_config.settings import Settings

_engines: dict[str, tuple[EngineProcess, Ready]] = {}
_lock = threading.Lock()


def run(task: GenerateTask, previous: Any, values: dict[str, Any]) -> Answer:
    """Answer one request.

    Raises:
        GenerationError: it cannot be answered.
    """
    settings, work = task.settings, work_of(task.name)
    try:
        entry = catalogue_of(settings).resolve(str(values.get("model") or settings.default_model))
    except ModelNotAllowed as error:
        raise UnknownModel(str(error)) from None
    parameters = work.form.parse(previous, values, entry.defaults)
    with _lock:
        process, ready = _engine(entry, settings)
        claim = Claim(attempt=1, worker="eager")
        answer = ClaimAnswer(
            kind="claimed", attempt=1, crashes=0, entries=[claim], items=[], owner="eager", nonce="", queued_ms=0.0
        )
        attempt: Attempt = work.attempt(f"eager-{uuid.uuid4()}", answer, entry.name)
        try:
            process.send(work.message(attempt, parameters, entry, ready))
            outcome = _compute(process, attempt)
        except EngineGone as error:
            _drop(entry.name)
            raise EngineFailed(str(error)) from None
        except BaseException:
            # An interrupt may have cut a message in two, and what is left of this answer is nobody's.
            _drop(entry.name)
            raise
    if isinstance(outcome, Error):
        raise error_for(outcome.code)(outcome.message)
    result: Answer = work.answer(attempt, parameters, outcome, "eager")
    return result


def _compute(process: EngineProcess, attempt: Attempt) -> End | Error:
    while True:
        output = process.receive()
        if isinstance(output, StepOutput):
            for event in output.events:
                if event.task_id != attempt.task_id:
                    continue
                entry = attempt.take(event)
                if isinstance(entry, End | Error):
                    return entry


def _engine(entry: ModelEntry, settings: Settings) -> tuple[EngineProcess, Ready]:
    """The engine of a model: started at its first request, ended with this process."""
    if entry.name not in _engines:
        configs = Configs(settings, Capacity(detect(settings), Slots({}, total=1), budget_bytes=0))
        process = EngineProcess.start(configs.of(entry, local_source(entry)))
        atexit.register(process.close)
        try:
            _engines[entry.name] = process, _loaded(process)
        except BaseException:
            _end(process)
            raise
    return _engines[entry.name]


def _drop(name: str) -> None:
    """End the engine of a model; the next request starts another."""
    process, _ = _engines.pop(name)
    _end(process)


def _end(process: EngineProcess) -> None:
    process.close()
    atexit.unregister(process.close)


def _loaded(process: EngineProcess) -> Ready:
    try:
        while not isinstance(message := process.receive(), Ready):
            if isinstance(message, LoadFailed):
                raise error_for(message.code)(message.message)
    except EngineGone as error:
        killed = error.exitcode is not None and error.exitcode < 0
        kind = EngineFailed if killed else ModelLoadFailed
        raise kind(f"model {process.config.model!r} cannot be loaded: {error}") from None
    return message
