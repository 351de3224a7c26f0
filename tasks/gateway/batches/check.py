"""The check of a batch's input, before anything of it is sent: all of it is in order, or the batch fails."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tasks.bulk.ids import Ids
from tasks.bulk.line import MAX_LINE_BYTES, custom_id_of, envelope_of, parsed
from tasks.bulk.texts import texts
from tasks.errors import InvalidRequest
from tasks.gateway.endpoints.order import model_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: The most errors of one file that are named.
MOST_ERRORS = 100
#: As many requests as OpenAI takes in one batch.
MAX_LINES = 50_000


@dataclass(slots=True)
class Check:
    """The findings in a file: how many lines it has, the models that they ask, and its faults.

    Args:
        endpoint: the endpoint that all lines have to name.
        default_model: the model of lines that name none.
        allows: whether the batch's owner may use a model.
    """

    endpoint: str
    default_model: str
    allows: Callable[[str], bool]
    count: int = 0
    models: set[str] = field(default_factory=set)
    errors: list[dict[str, Any]] = field(default_factory=list)
    _ids: Ids = field(default_factory=Ids)

    def read(self, path: Path) -> None:
        """Read a file once. Whether a line's parameters are right is found when it is answered: it fails alone then.

        Raises:
            OSError: the file cannot be read.
        """
        with path.open("rb") as file:
            for number, text in texts(file):
                self.count += 1
                if text is None:
                    self._refuse("line_too_long", f"more than {MAX_LINE_BYTES} bytes: make it shorter", number)
                else:
                    self._read_line(number, text)
        if not self.count:
            self._refuse("empty_file", "the input file is empty: write one JSON object in each line")
        if self.count > MAX_LINES:
            self._refuse("too_many_requests", f"{self.count:,} requests: at most {MAX_LINES:,} are taken in one batch")

    def _read_line(self, number: int, text: bytes) -> None:
        try:
            record = parsed(text)
        except InvalidRequest as error:
            self._refuse("invalid_json_line", str(error), number)
            return
        try:
            line_id = custom_id_of(record)
            url, body = envelope_of(record)
            model = model_of(body, self.default_model)
        except InvalidRequest as error:
            name = str(error).partition("=")[0].partition(":")[0]
            self._refuse("invalid_request", str(error), number, name)
            return
        first = self._ids.first(line_id, number)
        if first != number:
            about = f"custom_id={line_id!r:.80}: line {first} has it too"
            self._refuse("duplicate_custom_id", about, number, "custom_id")
        if url != self.endpoint:
            about = f"url={url!r:.80}: the batch's endpoint is {self.endpoint}"
            self._refuse("mismatched_endpoint", about, number, "url")
        if not self.allows(model):
            about = f"model={model!r:.80}: this API key may not use it"
            self._refuse("model_not_allowed", about, number, "body.model")
        self.models.add(model)

    def _refuse(self, code: str, message: str, line: int | None = None, param: str | None = None) -> None:
        """Note an error in OpenAI's shape."""
        if len(self.errors) < MOST_ERRORS:
            self.errors.append({"code": code, "message": message, "line": line, "param": param})
