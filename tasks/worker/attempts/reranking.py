"""The work of ``rerank`` on a worker: an ``embed`` whose vectors are one number long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.client.answers.answer import Ranking
from tasks.client.request.reranking import RERANKING
from tasks.messages.embedding import Rerank
from tasks.worker.attempts.embedding import EmbedAttempt, numbers

if TYPE_CHECKING:
    from tasks.client.request.reranking import Parameters
    from tasks.messages.journal import End
    from tasks.messages.load import Ready
    from worker_config.catalogue import ModelEntry


class RerankAttempt(EmbedAttempt):
    """An attempt at scores."""

    made = "scores"


class Reranking:
    """See :class:`tasks.worker.attempts.work.Work`."""

    form = RERANKING
    attempt = RerankAttempt

    def message(self, attempt: RerankAttempt, given: Parameters, _entry: ModelEntry, _ready: Ready | None) -> Rerank:
        """The query and the documents."""
        return Rerank(
            task_id=attempt.task_id,
            query=given.query,
            documents=given.documents,
            isolate=attempt.isolate,
            again=attempt.number > 1,
        )

    def answer(self, attempt: RerankAttempt, given: Parameters, end: End, worker: str) -> Ranking:
        """Return the best documents in the shape of other rerankers, with the fields of every answer here."""
        assert attempt.embedded is not None
        scores = numbers(attempt.embedded.vectors)
        best = sorted(range(len(scores)), key=lambda place: -scores[place])[: given.top_n]
        answer = Ranking(
            model=attempt.model,
            results=[_result(place, scores[place], given) for place in best],
            usage=end.usage,
            timing=end.timing,
            worker=worker,
            attempt=end.attempt,
        )
        if end.warnings:
            answer["warnings"] = end.warnings
        return answer


def _result(place: int, score: float, given: Parameters) -> dict[str, Any]:
    result: dict[str, Any] = {"index": place, "relevance_score": score}
    if given.return_documents:
        result["document"] = {"text": given.documents[place]}
    return result
