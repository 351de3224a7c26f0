"""``task_always_eager`` and ``.apply()``: one request, here and now, on an engine of this process and without Redis."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from tasks.errors import UnknownModel, error_for
from tasks.journal.claim_answer import ClaimAnswer
from tasks.messages.engine import StepOutput
from tasks.messages.journal import Claim, End, Error
from tasks.worker.attempts.works import work_of
from tasks.worker.eager_engines import EagerEngines
from worker_config.catalogue import ModelNotAllowed, catalogue_of

if TYPE_CHECKING:
    from tasks.client.answers.answer import Answer
    from tasks.generate import GenerateTask
    from tasks.worker.attempts.attempt import Attempt
    from tasks.worker.engines.process import EngineProcess

#: Those of this process.
ENGINES = EagerEngines()


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
    claim = Claim(attempt=1, worker="eager")
    answer = ClaimAnswer(
        kind="claimed", attempt=1, crashes=0, entries=[claim], items=[], owner="eager", nonce="", queued_ms=0.0
    )
    attempt: Attempt = work.attempt(f"eager-{uuid.uuid4()}", answer, entry.name)
    with ENGINES.having(entry, settings) as (process, ready):
        process.send(work.message(attempt, parameters, entry, ready))
        outcome = _compute(process, attempt)
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
