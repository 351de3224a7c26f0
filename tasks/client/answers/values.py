"""Results of requests whose answer is JSON: what it says, as an instance of the model that the request had."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.result import ResultBase

from tasks.client.answers.answer_type import instance
from tasks.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping


class ValueResult(ResultBase):
    """A result that may have a value beside its text."""

    #: The type, such as a pydantic model, that the request had as its ``response_format``, where this process sent it.
    response_model: Any = None

    def get(self, *args: Any, **options: Any) -> Any:
        """Celery's ``get``. Where the request had a type, ``answer["parsed"]`` is a value of it.

        Raises:
            pydantic.ValidationError: a validator of the type's own refuses the answer; :attr:`result` has it.
        """
        answer = super().get(*args, **options)
        if self.response_model is not None and answer.get("parsed") is not None:
            answer = {**answer, "parsed": _value(self.response_model, answer)}
        return answer

    def parsed(self, model: Any = None, timeout: float | None = None) -> Any:
        """Wait for the answer, and return what its JSON says; ``None`` where it was cut off.

        Args:
            model: a pydantic model, or another type, of which a value is returned. It need not be said where the request had
                one, and was sent by this process.
            timeout: seconds to wait.

        Raises:
            InvalidRequest: the request had no ``response_format`` of JSON.
            pydantic.ValidationError: a validator of the type's own refuses the answer.
        """
        answer = super().get(timeout=timeout)
        if "parsed" not in answer:
            raise InvalidRequest("parsed: the request had no response_format of JSON; give it one, or use get()")
        kind = self.response_model if model is None else model
        return answer["parsed"] if kind is None or answer["parsed"] is None else _value(kind, answer)


def _value(kind: Any, answer: Mapping[str, Any]) -> Any:
    return instance(kind, answer["parsed"], answer.get("text") or "")
