"""The work of ``generate`` on a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.client.sending.request import GENERATION
from tasks.messages.engine import Submit
from tasks.worker.attempts.attempt import Attempt

if TYPE_CHECKING:
    from tasks.client.answers.answer import Answer
    from tasks.client.request.parameters import Parameters
    from tasks.messages.journal import End
    from tasks.messages.load import Ready
    from worker_config.catalogue import ModelEntry


class Generation:
    """See :class:`tasks.worker.attempts.work.Work`."""

    form = GENERATION
    attempt = Attempt

    def message(self, attempt: Attempt, given: Parameters, entry: ModelEntry, ready: Ready | None) -> Submit:
        """Prompt, sampling, and where an earlier attempt stood."""
        return Submit(
            task_id=attempt.task_id,
            messages=given.conversation(),
            prompt=given.prompt,
            max_tokens=given.max_tokens,
            stop=given.stop,
            sampling=given.sampling(ready.sampling if ready is not None else None),
            chat_template_kwargs=given.chat_template_kwargs,
            reasoning_effort=given.reasoning_effort,
            allow_control_tokens=given.allow_control_tokens,
            tools=given.called(),
            constraint=given.constraint(),
            thinking_budget=given.thinking_budget,
            resume=attempt.resume(),
            isolate=attempt.isolate,
            again=attempt.number > 1,
            gives_way=attempt.gives_way,
        )

    def answer(self, attempt: Attempt, given: Parameters, end: End, worker: str) -> Answer:
        """Text, usage and times."""
        return attempt.answer(end, worker, is_json=given.is_json)
