"""The answer that ``result.get()`` returns: a dictionary whose text stays out of logs, events and Flower."""

from __future__ import annotations

from collections import UserDict
from typing import Any


class Answer(UserDict[str, Any]):
    """A finished request.

    Keys: ``text``, ``reasoning`` (what the model thought, ``None`` where it did not), ``tool_calls`` (in OpenAI's shape, ``None``
    where it called no function), ``finish_reason``, ``usage`` (``prompt_tokens``, ``cached_tokens``, ``completion_tokens``,
    ``total_tokens``, ``completion_tokens_details``), ``timing`` (``queued_ms``, ``first_token_ms``, ``total_ms``), ``logprobs``,
    ``model``, ``worker``, ``attempt``. With a ``response_format`` of JSON there is ``parsed`` (the value, ``None`` where the
    answer was cut off), and ``warnings`` where something is not as it was asked for.

    Celery writes a task's return value into its log and its events; it takes the ``repr`` of whatever is not a ``dict``.
    """

    def __repr__(self) -> str:
        usage = self.data.get("usage", {})
        return (
            f"<{usage.get('completion_tokens')} tokens of {self.data.get('model')}, "
            f"finish_reason={self.data.get('finish_reason')}>"
        )

    def __json__(self) -> dict[str, Any]:
        """For kombu's JSON encoder."""
        return self.data


class Vectors(Answer):
    """The answer of ``embed``, in OpenAI's shape.

    Keys: ``object``, ``data`` (a list of ``index`` and ``embedding``), ``model``, ``usage`` (``prompt_tokens``,
    ``total_tokens``), ``timing``, ``worker``, ``attempt``.
    """

    def __repr__(self) -> str:
        return f"<{len(self.data.get('data', ()))} vectors of {self.data.get('model')}>"


class Ranking(Answer):
    """The answer of ``rerank``, in the shape that Cohere, Jina and vLLM share.

    Keys: ``model``, ``results`` (a list of ``index`` and ``relevance_score``, the best first, and of ``document`` where that was
    asked for), ``usage`` (``prompt_tokens``, ``total_tokens``), ``timing``, ``worker``, ``attempt``; ``warnings`` where a
    document lost its end.
    """

    def __repr__(self) -> str:
        return f"<{len(self.data.get('results', ()))} scores of {self.data.get('model')}>"
