"""The parameters of ``rerank``: forms of documents, bounds, and what every error says."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tasks.client.request.prompt import MAX_PROMPT_BYTES
from tasks.client.request.reranking import MAX_DOCUMENTS, RERANKING
from tasks.client.sending.redaction import redact
from tasks.errors import InvalidRequest

RIGHT: dict[str, Any] = {"query": "q", "documents": ["a", "b"]}


def parse(values: dict[str, Any], previous: Any = None) -> Any:
    return RERANKING.parse(previous, values, {})


def test_documents_are_texts_or_objects_with_a_text() -> None:
    """Both forms that other services take mean the same, and a chain's answer is the query."""
    assert parse({"query": "q", "documents": ["a", {"text": "b"}]}).documents == ("a", "b")
    assert parse({"documents": ["a"]}, previous={"text": "asked"}).query == "asked"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"query": ""}, "query=<str>: is empty; give the text"),
        ({"query": ["q"]}, "query=<list>: no text; give the text"),
        ({"query": "a\ud800"}, "query has '\\ud800', one half of a character, at 1"),
        ({"documents": []}, "documents=<list>: no list with texts; give a list of 1 to 2048 texts"),
        ({"documents": "a"}, "documents=<str>: no list with texts"),
        ({"documents": ["a", ""]}, "documents[1] is empty; give some text"),
        ({"documents": ["a", 5]}, "documents[1] is a int; give some text"),
        ({"documents": [{"title": "a"}]}, "documents[0] is a dict; give some text, or an object with nothing but text"),
        ({"documents": ["a"] * (MAX_DOCUMENTS + 1)}, f"{MAX_DOCUMENTS + 1} documents; the limit is {MAX_DOCUMENTS}"),
        ({"query": "a" * (MAX_PROMPT_BYTES // 2)}, f"{MAX_PROMPT_BYTES + 2} bytes in all, the query counted with each"),
        ({"top_n": 0}, "top_n=0: input should be greater than or equal to 1; use 1 or more"),
        ({"top_n": True}, "top_n=True: input should be a number"),
        ({"top_k": 3}, "top_k=3: not a field of rerank: use top_n"),
    ],
)
def test_a_wrong_value_is_named_with_its_remedy(values: dict[str, Any], said: str) -> None:
    """The error has the field, what is wrong with it, and what to give instead."""
    with pytest.raises(InvalidRequest, match=re.escape(said)):
        parse({**RIGHT, **values})


def test_monitors_see_no_word_of_it() -> None:
    """What events and logs show has counts and lengths alone."""
    assert redact({"query": "secret", "documents": ["text"], "model": "m"}) == (
        "{model='m', query=<6 characters>, documents=<1 documents, 8 characters>}"
    )


@pytest.mark.parametrize("name", ["query", "documents"])
def test_both_are_needed(name: str) -> None:
    """A request without one of them says which."""
    with pytest.raises(InvalidRequest, match=f"{name} is missing; give"):
        parse({key: value for key, value in RIGHT.items() if key != name})


def test_a_query_beside_an_answer_before_it_is_refused() -> None:
    """A chain gives the query once."""
    with pytest.raises(InvalidRequest, match="query is set, and a task before this one has an answer"):
        parse(RIGHT, previous={"text": "asked"})
