"""Every syntax of calls that mlx-lm knows, in golden files: the same calls and text, however the model's text is cut."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from tasks.engine.text.piece import Piece, joined
from tasks.engine.tools.form import ToolForm, find_form
from tasks.engine.tools.functions import Functions
from tasks.engine.tools.splitter import Splitter
from tasks.engine.tools.syntaxes import SYNTAXES
from tasks.messages.tools import Function, Tools

GOLDEN = Path(__file__).parent / "golden"
TOOLS = Tools(
    functions=(
        Function(
            name="weather",
            parameters={
                "type": "object",
                "properties": {
                    "city": {"type": "string"},
                    "days": {"type": "integer"},
                    "detail": {"$ref": "#/$defs/detail"},
                    "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                },
                "required": ["city"],
                "$defs": {
                    "detail": {
                        "type": "object",
                        "properties": {
                            "wind": {"type": "boolean"},
                            "hours": {"type": "array", "items": {"type": "integer"}},
                        },
                    }
                },
            },
        ),
        Function(name="send", parameters={"type": "object", "properties": {"text": {"type": "string"}}}),
        Function(name="ping"),
    )
)
ANSWERS: list[tuple[str, dict[str, Any]]] = [
    (path.stem, case) for path in sorted(GOLDEN.glob("*.json")) for case in json.loads(path.read_text(encoding="utf-8"))
]
CASES = [pytest.param(kind, case, id=f"{kind}: {case['case']}") for kind, case in ANSWERS]


def form_of(kind: str, *, tokens: bool = True) -> ToolForm:
    """The form of a model whose vocabulary has a token for each marker, or for none."""
    special = {name: 1000 + number for number, name in enumerate(SYNTAXES[kind].markers)} if tokens else {}
    form = find_form(kind, special, {})
    assert form is not None
    return form


FUNCTIONS = Functions(TOOLS)


def split(
    form: ToolForm,
    parts: list[str],
    functions: Functions = FUNCTIONS,
    *,
    sound: bool = False,
    either: bool = False,
) -> tuple[list[Piece], Splitter]:
    """The pieces of an answer that comes in these parts."""
    splitter = Splitter(form, functions, sound=sound, either=either)
    pieces = chain.from_iterable(map(splitter.push, parts))
    return joined([*pieces, *splitter.finish()]), splitter


def calls_of(pieces: list[Piece]) -> list[dict[str, Any]]:
    """The calls in the pieces; each has its name once, and first."""
    found: dict[int, dict[str, Any]] = {}
    for piece in pieces:
        if piece.call is not None:
            assert bool(piece.name) == (piece.call not in found)
            call = found.setdefault(piece.call, {"name": piece.name, "arguments": ""})
            call["arguments"] += piece.text
    assert list(found) == list(range(len(found)))
    return [{"name": call["name"], "arguments": json.loads(call["arguments"])} for call in found.values()]


def content_of(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces if piece.kind == "content")


def test_every_parser_of_mlx_lm_has_a_file() -> None:
    """The files are those of mlx-lm's parsers, and of the two families whose templates alone it has."""
    from mlx_lm import tool_parsers

    parsers = {path.stem for path in Path(tool_parsers.__path__[0]).glob("[a-z]*.py")}
    files = {path.stem for path in GOLDEN.glob("*.json")}
    assert files == set(SYNTAXES) == parsers | {"harmony", "deepseek_v32"}


@pytest.mark.parametrize("tokens", [True, False], ids=["tokens", "text"])
@pytest.mark.parametrize(("kind", "case"), CASES)
def test_every_split(kind: str, case: dict[str, Any], tokens: bool) -> None:
    """Calls, text and warnings are those of the file, and no marker is in the text, at whichever character the text is cut."""
    form = form_of(kind, tokens=tokens or kind == "harmony")
    text = form.marked(case["text"])
    whole, splitter = split(form, [text])
    assert calls_of(whole) == case["calls"]
    assert splitter.calls == len(case["calls"])
    if "content_has" in case:
        assert case["content_has"] in content_of(whole)
    else:
        assert content_of(whole) == case.get("content", "")
    assert len(splitter.warnings) == len(case.get("warnings", []))
    for warning, has in zip(splitter.warnings, case.get("warnings", []), strict=True):
        assert has in warning
    for marker in (SYNTAXES[kind].start, SYNTAXES[kind].end, *form.names.values()):
        assert not marker or marker not in content_of(whole)
    cuts = range(1, len(text)) if tokens else ()
    for parts in (list(text), *([text[:at], text[at:]] for at in cuts)):
        pieces, again = split(form, parts)
        assert pieces == whole
        assert again.warnings == splitter.warnings


@pytest.mark.parametrize("kind", sorted(set(SYNTAXES) - {"harmony", "deepseek_v32"}))
def test_mlx_lm_says_the_same(kind: str) -> None:
    """A plain call is what mlx-lm's own parser makes of it."""
    from importlib import import_module

    parser = import_module(f"mlx_lm.tool_parsers.{kind}")
    case = json.loads((GOLDEN / f"{kind}.json").read_text(encoding="utf-8"))[0]
    body = case["text"].removeprefix(parser.tool_call_start).removesuffix(parser.tool_call_end or "\0")
    functions = [function.for_template() for function in TOOLS.functions]
    parsed = parser.parse_tool_call(body, functions)
    found = parsed if isinstance(parsed, list) else [parsed]
    assert [{"name": call["name"], "arguments": call["arguments"]} for call in found] == case["calls"]


SOUND = [
    pytest.param(kind, case, id=f"{kind}: {case['case']}")
    for kind, case in ANSWERS
    if kind in ("json_tools", "mistral", "kimi_k2") and not case.get("warnings")
]


@pytest.mark.parametrize(("kind", "case"), SOUND)
def test_every_split_and_every_cut_of_streamed_arguments(kind: str, case: dict[str, Any]) -> None:
    """Where a grammar makes sure of calls, arguments come in parts that joined are the whole; a cut-off call is a beginning."""
    form = form_of(kind)
    text = form.marked(case["text"])
    whole, splitter = split(form, [text], sound=True)
    assert calls_of(whole) == case["calls"]
    assert content_of(whole) == case.get("content", "")
    assert splitter.warnings == []
    streaming = Splitter(form, FUNCTIONS, sound=True)
    parts = [piece for character in text for piece in streaming.push(character) if piece.call is not None]
    assert len(parts) >= 2 * len(case["calls"])
    for at in range(1, len(text)):
        assert split(form, [text[:at], text[at:]], sound=True)[0] == whole
        begun, _ = split(form, list(text[:at]), sound=True)
        said = ["".join(piece.text for piece in pieces if piece.call is not None) for pieces in (whole, begun)]
        assert said[0].startswith(said[1])
        shown = content_of(begun)
        assert not any(
            marker in shown for marker in (SYNTAXES[kind].start, SYNTAXES[kind].end, *form.names.values()) if marker
        )


@pytest.mark.parametrize(("kind", "case"), CASES)
def test_every_cut(kind: str, case: dict[str, Any]) -> None:
    """Wherever an answer is cut off, its calls are the first of the whole answer's, as they are there, and no marker is shown."""
    form = form_of(kind, tokens=kind == "harmony")
    text = form.marked(case["text"])
    for at in range(1, len(text)):
        pieces, _ = split(form, [text[:at]])
        calls, shown = calls_of(pieces), content_of(pieces)
        assert calls == case["calls"][: len(calls)]
        assert not any(marker in shown for marker in (SYNTAXES[kind].start, SYNTAXES[kind].end) if marker)


def test_a_marker_that_is_cut_off_is_no_text_where_there_has_to_be_a_call() -> None:
    """A grammar allows no text then, so what could begin a marker does; where the model decides, it may be text."""
    required = Functions(replace(TOOLS, choice="required"))
    form = form_of("json_tools", tokens=False)
    for begun in ("\n", "<", "<tool_"):
        assert split(form, [begun], required, sound=True)[0] == []
        assert content_of(split(form, [begun], sound=True)[0]) == begun


def test_data_has_no_call_in_it() -> None:
    """Where an answer is calls or data, a marker in the data's texts is text, wherever it is cut; a call is a call."""
    form = form_of("json_tools", tokens=False)
    call = '<tool_call>\n{"name": "ping", "arguments": {}}\n</tool_call>'
    for text, content, calls in ((data := f'{{"a": {json.dumps(call)}}} ', data, 0), (f"\n{call}\n{call}", "", 2)):
        for at in range(len(text)):
            pieces, splitter = split(form, [text[:at], text[at:]], either=True)
            assert (content_of(pieces), splitter.calls, splitter.warnings) == (content, calls, [])
