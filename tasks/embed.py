"""The task ``embed`` makes vectors of texts. It is sent, routed and cancelled as ``generate`` is; its answer does not stream.

Another application includes this module beside ``tasks.generate``, or instead of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, Unpack, cast

from celery import Task

from tasks.client.request.signature import KeywordSignature
from tasks.errors import InvalidRequest
from tasks.generate import GenerateTask
from tasks.names import EMBED
from tasks.roles import declared, run_body

if TYPE_CHECKING:
    from tasks.client.answers.answer import Vectors
    from tasks.client.request.embedding import ParameterValues
    from tasks.client.request.form import Form
    from tasks.client.result import EmbedResult


class EmbedTask(GenerateTask):
    """Sends requests as ``generate`` does, with other parameters and another answer."""

    abstract = True
    __signature__ = KeywordSignature(".embedding", "EmbedResult")
    instead_of_call = (
        "embed cannot be called: use embed.delay(input=[…]).get(); embed.apply(kwargs={…}) in tests without Redis"
    )
    instead_of_sequence = (
        "map, starmap and chunks make one call after another: give all texts to one embed.delay(input=[…])"
    )
    instead_of_bulk = (
        "embed has no bulk: give all texts to one embed.delay(input=[…]), or lines with the url /v1/embeddings to "
        "generate.bulk(…)"
    )

    @__signature__.of
    def delay(self, *previous: Any, **parameters: Unpack[ParameterValues]) -> EmbedResult:  # type: ignore[override]
        """Send a request: ``help(embed)`` has the parameters, :meth:`apply_async` the errors and Celery's options."""
        return cast("EmbedResult", self.apply_async(previous, dict(parameters)))

    @__signature__.of
    async def adelay(  # type: ignore[override]
        self, *previous: Any, **parameters: Unpack[ParameterValues]
    ) -> EmbedResult:
        """Do as :meth:`delay` without blocking the event loop. Cancelling the call takes the request back."""
        return cast("EmbedResult", await self.aapply_async(previous, dict(parameters)))

    def _refuse_bulk(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse ``bulk`` and ``abulk``: those of ``generate`` would generate from the texts."""
        raise InvalidRequest(self.instead_of_bulk)

    bulk = abulk = _refuse_bulk

    def apply(self, args: Any = None, kwargs: dict[str, Any] | None = None, **options: Any) -> Any:
        """Answer in this process, without Redis, for a program's tests."""
        from tasks.client.request.options import checked
        from tasks.client.sending.request import arguments

        checked(options, self.form.fields)
        return Task.apply(self, *arguments(args, kwargs), **options)

    @property
    def form(self) -> Form[Any]:
        """The form of the task's requests."""
        from tasks.client.request.embedding import EMBEDDING

        return EMBEDDING

    def AsyncResult(self, task_id: str, **options: Any) -> EmbedResult:  # noqa: N802  (Celery's name)
        """Return the result of a request that this process or another one sent."""
        from tasks.client.result import EmbedResult

        return EmbedResult(task_id, backend=self.backend, task_name=self.name, app=self.app, **options)


def run(task: EmbedTask, previous: Any = None, /, **values: Any) -> Vectors:
    """Make vectors of texts. ``embed.delay(input=["one", "two"], model=…).get()["data"][0]["embedding"]`` is the first one's.

    ``embed.s(...)`` is a signature for ``group``, ``chain`` and ``chord``. ``embed.apply(kwargs={...})`` answers in this process,
    without Redis, for tests. docs/embeddings.md has the bounds of the parameters.
    """
    return cast("Vectors", run_body(task, previous, values))


run.__name__ = run.__qualname__ = "embed"  # the name in help()

embed: EmbedTask = declared(run, EMBED, EmbedTask)
