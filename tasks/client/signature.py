"""The parameters of ``generate`` for ``help``, a notebook's ``?`` and :func:`inspect.signature`."""

from __future__ import annotations

from inspect import Parameter, Signature
from typing import Any


class KeywordSignature:
    """A task's ``__signature__``: made when somebody looks at it, since pydantic is most of an import's time."""

    def __get__(self, task: Any, owner: type | None = None) -> Signature:
        from tasks.client.parameters import Parameters, ParameterValues

        types = ParameterValues.__annotations__
        keywords = [
            Parameter(name, Parameter.KEYWORD_ONLY, default=field.default, annotation=types[name].__forward_arg__)
            for name, field in Parameters.model_fields.items()
        ]
        previous = Parameter("previous", Parameter.POSITIONAL_ONLY, default=None)
        return Signature([previous, *keywords], return_annotation="GenerateResult")
