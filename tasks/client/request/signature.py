"""The parameters of a task for ``help``, a notebook's ``?`` and :func:`inspect.signature`."""

from __future__ import annotations

from importlib import import_module
from inspect import Parameter, Signature
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Method = TypeVar("Method", bound=Callable[..., Any])


class KeywordSignature:
    """A task's ``__signature__``: made when somebody looks at it, since pydantic is most of an import's time.

    Args:
        module: the module of this package whose ``Parameters`` and ``ParameterValues`` the task takes.
        result: the name of the class that ``delay`` returns.
    """

    def __init__(self, module: str, result: str) -> None:
        self._module = module
        self._result = result

    def __get__(self, task: Any, owner: type | None = None) -> Signature:
        return self.made()

    def of(self, method: Method) -> Method:
        """Decorate a method that takes the same parameters."""
        method.__signature__ = _MethodSignature(self)  # type: ignore[attr-defined]
        return method

    def made(self) -> Signature:
        """The signature of the task."""
        module = import_module(self._module, __package__)
        types = module.ParameterValues.__annotations__
        keywords = [
            Parameter(
                name,
                Parameter.KEYWORD_ONLY,
                default=Parameter.empty if field.is_required() else field.get_default(call_default_factory=True),
                annotation=types[name].__forward_arg__,
            )
            for name, field in module.Parameters.model_fields.items()
        ]
        previous = Parameter("previous", Parameter.POSITIONAL_ONLY, default=None)
        return Signature([previous, *keywords], return_annotation=self._result)


class _MethodSignature(Signature):
    """The signature of a method that takes a task's parameters. :mod:`inspect` wants an instance, so this one is made late."""

    __slots__ = ("_task",)

    def __init__(self, task: KeywordSignature) -> None:
        super().__init__()
        self._task = task

    @property
    def parameters(self) -> Mapping[str, Parameter]:  # type: ignore[override]
        """``self``, and the parameters of the task."""
        return self._whole().parameters

    def replace(self, **changes: Any) -> Signature:  # type: ignore[override]
        """See :class:`Signature`; :mod:`inspect` leaves out ``self`` by it."""
        return self._whole().replace(**changes)

    def _whole(self) -> Signature:
        made = self._task.made()
        own = Parameter("self", Parameter.POSITIONAL_ONLY)
        return made.replace(parameters=[own, *made.parameters.values()])
