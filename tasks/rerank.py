"""The task ``rerank``: scores of documents for a query. It is an ``embed`` in all but what it takes and gives.

An application of its own includes this module beside ``tasks.generate``, or instead of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack, cast

from celery import shared_task

from tasks.client.request.signature import KeywordSignature
from tasks.embed import EmbedTask
from tasks.names import RERANK
from tasks.roles import run_body

if TYPE_CHECKING:
    from tasks.client.answers.answer import Ranking
    from tasks.client.request.form import Form
    from tasks.client.request.reranking import ParameterValues
    from tasks.client.result import RerankResult


class RerankTask(EmbedTask):
    """A request like one of ``embed``."""

    abstract = True
    __signature__ = KeywordSignature(".reranking", "RerankResult")
    instead_of_call = (
        "rerank cannot be called: use rerank.delay(query=…, documents=[…]).get(); rerank.apply(kwargs={…}) in tests "
        "without Redis"
    )
    instead_of_sequence = "map, starmap and chunks make one call after another: send a group of rerank.s(…)"

    @__signature__.of
    def delay(self, *previous: Any, **parameters: Unpack[ParameterValues]) -> RerankResult:  # type: ignore[override]
        """Send a request: ``help(rerank)`` has the parameters, :meth:`apply_async` the errors and Celery's options."""
        return cast("RerankResult", self.apply_async(previous, dict(parameters)))

    @__signature__.of
    async def adelay(  # type: ignore[override]
        self, *previous: Any, **parameters: Unpack[ParameterValues]
    ) -> RerankResult:
        """:meth:`delay` for asyncio; it never blocks the event loop. If it is cancelled, the request is taken back."""
        return cast("RerankResult", await self.aapply_async(previous, dict(parameters)))

    @property
    def form(self) -> Form[Any]:
        """The form of the task's requests."""
        from tasks.client.request.reranking import RERANKING

        return RERANKING

    def AsyncResult(self, task_id: str, **options: Any) -> RerankResult:  # noqa: N802  (Celery's name)
        """The result of a request that was sent, here or by another process."""
        from tasks.client.result import RerankResult

        return RerankResult(task_id, backend=self.backend, task_name=self.name, app=self.app, **options)


def run(task: RerankTask, previous: Any = None, /, **values: Any) -> Ranking:
    """Score documents for a query. ``rerank.delay(query="…", documents=["…"], model=…).get()["results"][0]`` is the best one's.

    ``rerank.s(...)`` is a signature for ``group``, ``chain`` and ``chord``; ``rerank.apply(kwargs={...})`` answers here, without
    Redis, for tests. The bounds of the parameters are in docs/embeddings.md.
    """
    return cast("Ranking", run_body(task, previous, values))


run.__name__ = run.__qualname__ = "rerank"  # what help() calls it

rerank: RerankTask = shared_task(run, name=RERANK, base=RerankTask, bind=True)
