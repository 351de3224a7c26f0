"""Members of a group that ask alike: what was checked and found for one of them holds for the next ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.broker.direct import HANDLED
from tasks.client.request.plain import DATA
from tasks.client.sending.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasks.broker.submission.submission import Built
    from tasks.client.request.form import Form
    from tasks.client.submitter import Call

#: Options that may be the same for a whole group, beside those that say which member a request is.
_OPTIONS = HANDLED - {"chain", "chord"}
#: What each member has of its own.
_PLACE = "group_index"
_VALUES = DATA | {int}
_PROMPTS = (str, list)
_NOTHING_FOLLOWS = dict.fromkeys(("callbacks", "errbacks", "chain", "chord"))


class Alike(NamedTuple):
    """A member that was sent, and differs from others in its prompt and its place alone.

    Attributes:
        form: of its parameters.
        field: the parameter that is its prompt.
        given: the other parameters as they were given, which are texts and numbers.
        options: those of ``apply_async``, without the place.
        sent: all parameters, as they were sent.
        built: its message.
    """

    form: Form[Any]
    field: str
    given: dict[str, Any]
    options: dict[str, Any]
    sent: dict[str, Any]
    built: Built

    @classmethod
    def of(cls, given: Call, options: Mapping[str, Any], form: Form[Any], built: Built) -> Alike | None:
        """The member that the next ones may be like; ``None`` for a request with more than a prompt, texts and numbers.

        Args:
            given: what ``apply_async`` was given.
            options: its options.
            form: of its parameters.
            built: the message of the request.
        """
        others = dict(given.kwargs or {})
        fields = [field for field in form.prompts if others.pop(field, None) is not None]
        if (
            len(fields) != 1
            or given.args
            or given.link
            or given.link_error
            or any(built.body[2].values())
            or not _OPTIONS.issuperset(options)
            or not all(type(value) in _VALUES for value in others.values())
            or others.get("require_worker")
        ):
            return None
        return cls(form, fields[0], others, _without_place(options), built.body[1], built)

    def next(self, given: Call, options: Mapping[str, Any], task_id: str) -> Built | None:
        """The message of a further member; ``None`` if that differs in something else.

        Raises:
            InvalidRequest: its prompt is wrong.
        """
        if not isinstance(given.kwargs, dict):
            return None
        others = dict(given.kwargs)
        prompt = others.pop(self.field, None)
        if (
            type(prompt) not in _PROMPTS
            or given.args
            or given.link
            or given.link_error
            or not _is_same(others, self.given)
            or not _is_same(_without_place(options), self.options)
        ):
            return None
        values = {**self.sent, self.field: self.form.check_prompt(self.field, prompt)}
        headers = {
            **self.built.headers,
            "id": task_id,
            "root_id": options.get("root_id") or task_id,
            "group_index": options.get(_PLACE),
            "kwargsrepr": redact(values),
        }
        properties = {**self.built.properties, "correlation_id": task_id}
        return self.built._replace(body=([], values, _NOTHING_FOLLOWS), headers=headers, properties=properties)


def _without_place(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != _PLACE}


def _is_same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether both have the same values, where 1 is not ``True``."""
    if one.keys() != other.keys():
        return False
    for name, value in one.items():
        own = other[name]
        if value is not own and (type(value) is not type(own) or value != own):
            return False
    return True
