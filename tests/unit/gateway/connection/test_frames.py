"""Events as clients read them whose library has more ends of lines than the standard."""

from __future__ import annotations

import json

import httpx
import pytest

from tasks.gateway.connection import frames


@pytest.mark.parametrize("text", ["plain", "é", "a\u2028b\u2029c\x85d", "\x0b\x0c\x1c\x1d\x1e\r\n"])
def test_an_event_is_one_line_for_every_client(text: str) -> None:
    """httpx ends a line wherever ``str.splitlines`` does."""
    for written in (frames.event({"text": text}, "1:2", "name"), frames.framed(f'{{"text":{json.dumps(text)}}}')):
        lines = list(httpx.Response(200, content=written).iter_lines())
        (data,) = (line.removeprefix("data: ") for line in lines if line.startswith("data: "))
        assert json.loads(data) == {"text": text}
        assert lines[-1] == ""
