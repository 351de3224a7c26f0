"""docs/openai.md says what becomes of each field of OpenAI's, and lists the gateway's metrics: both are made of the code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from openai.types import completion_create_params
from openai.types.chat import completion_create_params as chat_params
from openai.types.responses import response_create_params

from tasks.client.request.compatibility import IGNORED
from tasks.gateway.answers.metrics import METRICS
from tasks.gateway.endpoints import chat, completions, responses
from tasks.gateway.endpoints.fields import CHAT, COMPLETIONS, RESPONSES, passed, treatment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tasks.gateway.endpoints.order import Order

PAGE = Path(__file__).parents[4] / "docs/openai.md"
#: The fields of OpenAI's that each endpoint gets.
ENDPOINTS: Mapping[str, tuple[Any, Mapping[str, str]]] = {
    "/v1/chat/completions": (chat_params.CompletionCreateParamsBase, CHAT),
    "/v1/completions": (completion_create_params.CompletionCreateParamsBase, COMPLETIONS),
    "/v1/responses": (response_create_params.ResponseCreateParamsBase, RESPONSES),
}
INPUTS = {"messages", "model", "prompt", "input"}
ORDER = ("answered", "ignored", "refused")


def fields_table() -> str:
    """Each endpoint's fields: those that are answered, those that are ignored, those that are refused."""
    lines = []
    for path, (params, shaped) in ENDPOINTS.items():
        lines += [f"**`{path}`**", "", "| field | | |", "|---|---|---|"]
        names = sorted(
            {*params.__annotations__, "stream"} - {"messages", "model", "prompt", "input"}
            | set(shaped) - {"prompt", "input"}
        )
        rows = [(name, *treatment(name, shaped)) for name in names]
        lines += [f"| `{name}` | {kind} | {about} |" for name, kind, about in sorted(rows, key=_order)]
        lines.append("")
    return "\n".join(lines)


def _order(row: tuple[str, str, str]) -> tuple[int, str]:
    return ORDER.index(row[1]), row[0]


def metrics_table() -> str:
    """Every metric of the gateway's own."""
    rows = [f"| `{metric.full_name}` | {metric.kind} | {metric.labels} | {metric.about} |" for metric in METRICS]
    return "\n".join(["| metric | kind | labels | |", "|---|---|---|---|", *rows, ""])


def renewed(text: str) -> str:
    """The page with its tables as the code gives them."""
    for name, table in (("fields", fields_table()), ("metrics", metrics_table())):
        before, _, rest = text.partition(f"<!-- {name} -->\n")
        _, _, after = rest.partition(f"<!-- /{name} -->")
        text = f"{before}<!-- {name} -->\n{table}<!-- /{name} -->{after}"
    return text


def test_the_page_is_what_the_code_gives() -> None:
    """Whoever changes a field renews the page: python -m tests.unit.gateway.endpoints.test_fields_page."""
    text = PAGE.read_text(encoding="utf-8")
    assert text == renewed(text)


@pytest.mark.parametrize(
    ("parse", "asked"),
    [
        (chat.parse, {"messages": [{"role": "user", "content": "hello"}], "n": 2}),
        (completions.parse, {"prompt": ["hello", "world"]}),
        (responses.parse, {"input": "hello"}),
    ],
)
def test_a_cache_key_is_passed_on(parse: Callable[[Mapping[str, Any], str], Order], asked: Mapping[str, Any]) -> None:
    """Every request that comes of a body has it, so that all of them look for the same worker."""
    order = parse({**asked, "prompt_cache_key": "conversation-17"}, "fake:1")
    assert {values["prompt_cache_key"] for values in order.values} == {"conversation-17"}


@pytest.mark.parametrize("shaped", [CHAT, COMPLETIONS, RESPONSES])
def test_what_is_passed_on_is_all_that_is_not_read_here(shaped: Iterable[str]) -> None:
    """Ignored fields go nowhere; an unknown one goes on, to be refused with its name."""
    body = dict.fromkeys([*shaped, *IGNORED, "unknown", "temperature"], 1)
    kept = set(passed(body, dict.fromkeys(shaped, ""), {}))
    assert {"unknown", "temperature"} <= kept
    assert not kept & (set(IGNORED) | {"n", "stream", "stream_options"})


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
