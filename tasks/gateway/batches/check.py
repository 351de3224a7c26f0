"""The check of a batch's input, before anything of it is sent: all of it is in order, or the batch fails."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tasks.bulk.ids import Ids
from tasks.bulk.line import MAX_LINE_BYTES, custom_id_of, envelope_of, parsed
from tasks.bulk.texts import texts
from tasks.errors import InvalidRequest
from tasks.gateway.order import model_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: So many errors of one file are named.
MOST_ERRORS = 100
#: As many requests as OpenAI takes in one batch.
MAX_LINES = 50_000


@dataclass(slots=True)
class Check:
    """What a file is: how many lines it has, the models that they ask, and what is wrong with it."""

    count: int = 0
    models: set[str] = field(default_factory=set)
    errors: list[dict[str, Any]] = field(default_factory=list)

    def refuse(self, code: str, message: str, line: int | None = None, param: str | None = None) -> None:
        """Note an error in OpenAI's shape."""
        if len(self.errors) < MOST_ERRORS:
            self.errors.append({"code": code, "message": message, "line": line, "param": param})


def check(path: Path, endpoint: str, allows: Callable[[str], bool]) -> Check:
    """Read a file once. Whether a line's parameters are right is found when it is answered: it fails alone then.

    Args:
        path: the file.
        endpoint: what all lines have to ask for.
        allows: whether the batch's owner may use a model.

    Raises:
        OSError: the file cannot be read.
    """
    found = Check()
    ids = Ids()
    with path.open("rb") as file:
        for number, text in texts(file):
            found.count += 1
            if text is None:
                found.refuse("line_too_long", f"more than {MAX_LINE_BYTES} bytes: make it shorter", number)
            else:
                _check_line(found, number, text, endpoint, allows, ids)
    if not found.count:
        found.refuse("empty_file", "the input file is empty: write one JSON object in each line")
    if found.count > MAX_LINES:
        found.refuse("too_many_requests", f"{found.count:,} requests: at most {MAX_LINES:,} are taken in one batch")
    return found


def _check_line(found: Check, number: int, text: bytes, endpoint: str, allows: Callable[[str], bool], ids: Ids) -> None:
    try:
        record = parsed(text)
    except InvalidRequest as error:
        found.refuse("invalid_json_line", str(error), number)
        return
    try:
        line_id = custom_id_of(record)
        url, body = envelope_of(record)
        model = model_of(body)
    except InvalidRequest as error:
        name = str(error).partition("=")[0].partition(":")[0]
        found.refuse("invalid_request", str(error), number, name)
        return
    first = ids.first(line_id, number)
    if first != number:
        found.refuse("duplicate_custom_id", f"custom_id={line_id!r:.80}: line {first} has it too", number, "custom_id")
    if url != endpoint:
        found.refuse("mismatched_endpoint", f"url={url!r:.80}: the batch's endpoint is {endpoint}", number, "url")
    if not allows(model):
        found.refuse("model_not_allowed", f"model={model!r:.80}: this API key may not use it", number, "body.model")
    found.models.add(model)
