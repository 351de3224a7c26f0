"""The parameters of a task for ``help``, a notebook's ``?`` and :func:`inspect.signature`."""

from __future__ import annotations

from importlib import import_module
from inspect import Parameter, Signature
from typing import Any


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
        module = import_module(self._module, __package__)
        types = module.ParameterValues.__annotations__
        keywords = [
            Parameter(name, Parameter.KEYWORD_ONLY, default=field.default, annotation=types[name].__forward_arg__)
            for name, field in module.Parameters.model_fields.items()
        ]
        previous = Parameter("previous", Parameter.POSITIONAL_ONLY, default=None)
        return Signature([previous, *keywords], return_annotation=self._result)
