"""The task ``rerank`` scores documents for a query. It is sent as ``embed`` is.

Another application includes this module beside ``tasks.generate``, or instead of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack, cast

from tasks.client.request.signature import KeywordSignature
from tasks.embed import EmbedTask
from tasks.names import RERANK
from tasks.roles import declared, run_body

if TYPE_CHECKING:
    from tasks.client.answers.answer import Ranking
    from tasks.client.request.form import Form
    from tasks.client.request.reranking import ParameterValues
    from tasks.client.result import RerankResult


class RerankTask(EmbedTask):
    """Sends requests as ``embed`` does, with other parameters and another answer."""

    abstract = True
    __signature__ = KeywordSignature(".reranking", "RerankResult")
    instead_of_call = (
        "rerank cannot be called: use rerank.delay(query=…, documents=[…]).get(); rerank.apply(kwargs={…}) in tests "
        "without Redis"
    )
    instead_of_sequence = "map, starmap and chunks make one call after another: send a group of rerank.s(…)"
    instead_of_bulk = (
        "rerank has no bulk: send a group of rerank.s(…), or give lines with the url /v1/rerank to generate.bulk(…)"
    )

    @__signature__.of
    def delay(self, *previous: Any, **parameters: Unpack[ParameterValues]) -> RerankResult:  # type: ignore[override]
        """Send a request: ``help(rerank)`` has the parameters, :meth:`apply_async` the errors and Celery's options."""
        return cast("RerankResult", self.apply_async(previous, dict(parameters)))

    @__signature__.of
    async def adelay(  # type: ignore[override]
        self, *previous: Any, **parameters: Unpack[ParameterValues]
    ) -> RerankResult:
        """Do as :meth:`delay` without blocking the event loop. Cancelling the call takes the request back."""
        return cast("RerankResult", await self.aapply_async(previous, dict(parameters)))

    @property
    def form(self) -> Form[Any]:
        """The form of the task's requests."""
        from tasks.client.request.reranking import RERANKING

        return RERANKING

    def AsyncResult(self, task_id: str, **options: Any) -> RerankResult:  # noqa: N802  (Celery's name)
        """Return the result of a request that this process or another one sent."""
        from tasks.client.result import RerankResult

        return RerankResult(task_id, backend=self.backend, task_name=self.name, app=self.app, **options)


def run(task: RerankTask, previous: Any = None, /, **values: Any) -> Ranking:
    """Score documents for a query. ``rerank.delay(query="…", documents=["…"], model=…).get()["results"][0]`` is the best one's.

    ``rerank.s(...)`` is a signature for ``group``, ``chain`` and ``chord``. ``rerank.apply(kwargs={...})`` answers in this
    process, without Redis, for tests. docs/embeddings.md has the bounds of the parameters.
    """
    return cast("Ranking", run_body(task, previous, values))


run.__name__ = run.__qualname__ = "rerank"  # the name in help()

rerank: RerankTask = declared(run, RERANK, RerankTask)
