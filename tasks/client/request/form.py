"""The form of a task's requests. For producers it is the only difference between the tasks of this project."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Common(Protocol):
    """Parameters of every task."""

    @property
    def model(self) -> str | None:
        """The model's name; ``None`` for the default one."""

    @property
    def deadline(self) -> float | None:
        """Unix seconds after which nobody wants the answer."""

    @property
    def keep_alive_s(self) -> float | None:
        """How long the model's engine may idle afterwards."""

    @property
    def require_worker(self) -> bool:
        """Whether a live worker has to serve the model's tier."""


Given = TypeVar("Given", bound=Common)


def _none(field: str, value: Any) -> NoReturn:
    raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Form(Generic[Given]):
    """One task's parameters.

    Args:
        fields: their names.
        normalise: the keywords as they are sent.
        check: what they mean, with a model's defaults for what was left out.
        with_previous: the keywords with the answer of the task before in a chain.
        prompts: the fields of which one has the prompt, where ``check_prompt`` can check it by itself.
        check_prompt: the value of such a field as it is sent.
    """

    fields: Mapping[str, Any]
    normalise: Callable[[dict[str, Any]], dict[str, Any]]
    check: Callable[[dict[str, Any], dict[str, Any]], Given]
    with_previous: Callable[[Any, dict[str, Any]], dict[str, Any]]
    prompts: tuple[str, ...] = ()
    check_prompt: Callable[[str, Any], Any] = _none

    def parse(self, previous: Any, values: dict[str, Any], defaults: Mapping[str, Any]) -> Given:
        """The checked parameters out of a message's keywords, on a worker.

        Args:
            previous: the answer of the task before.
            values: the keywords.
            defaults: the model's own, of whichever tasks.

        Raises:
            InvalidRequest: the message names the first wrong field, its value and the remedy.
        """
        known = {name: value for name, value in defaults.items() if name in self.fields}
        return self.check(self.normalise(self.with_previous(previous, values)), known)
