"""The syntaxes of calls, by the names of mlx-lm's parsers, and two that mlx-lm has templates for and no parsers.

A marker or a part of one that is a token of the model's arrives as one character (:mod:`tasks.engine.tools.form`): the texts here
are names, which are replaced by that.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from tasks.engine.text import headers
from tasks.engine.tools import pythonic
from tasks.engine.tools.braces import Braces
from tasks.engine.tools.either import Either
from tasks.engine.tools.region import Delimited
from tasks.engine.tools.sequence import JsonCalls, JsonSyntax
from tasks.engine.tools.tagged import Tags, TagSyntax

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.engine.tools.functions import Functions
    from tasks.engine.tools.region import Region

    Make = Callable[[Callable[[str], str], Functions], Region]


@dataclass(frozen=True)
class Syntax:
    """The way in which a family of models writes calls.

    ``start`` begins a region and ``end`` ends it, where it has an end. ``tokens`` are all names in the syntax that may be tokens
    of the vocabulary. ``region`` makes a region; its first argument gives a token's character for its name, or the name itself.
    ``bare`` is how a region's own text begins, where models of the family leave out ``start``.
    """

    name: str
    start: str
    end: str
    region: Make
    tokens: tuple[str, ...] = ()
    bare: str = ""

    @property
    def markers(self) -> tuple[str, ...]:
        """All names that may be tokens."""
        return tuple(filter(None, dict.fromkeys((self.start, self.end, *self.tokens))))


_STRING = r'"(?:[^"\\]|\\.)*"'


def _unquoted(text: str) -> str:
    return str(json.loads(text))


_OBJECT = JsonSyntax(
    header=rf'\s*\{{\s*"name"\s*:\s*(?P<name>{_STRING})\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\S)',
    trailer=r"\s*\}",
    between=r"[\s,\[]*",
    any_order=True,
    unquote=_unquoted,
)


def _objects(marked: Callable[[str], str], _: Functions, *, end: str) -> Region:
    return JsonCalls(replace(_OBJECT, end=rf"[\s,]*\]?\s*{re.escape(marked(end))}"))


def _mistral(marked: Callable[[str], str], _: Functions) -> Region:
    """A list of objects, or names with arguments behind them, which may come one after another without a marker."""
    named = JsonSyntax(
        header=rf"\s*(?:{re.escape(marked('[TOOL_CALLS]'))}\s*)?(?P<name>[\w.-]+)\s*"
        rf"(?:{re.escape(marked('[CALL_ID]'))}\s*\w*\s*)?{re.escape(marked('[ARGS]'))}\s*(?=\S)"
    )
    listed = replace(_OBJECT, trailer=r'\s*(?:,\s*"id"\s*:\s*"[^"]*"\s*)?\}', end=r"[\s,]*\]")
    return Either({"[": partial(JsonCalls, listed)}, partial(JsonCalls, named))


def _kimi_k2(marked: Callable[[str], str], _: Functions) -> Region:
    begin, arguments, end, section = (
        re.escape(marked(name))
        for name in (
            "<|tool_call_begin|>",
            "<|tool_call_argument_begin|>",
            "<|tool_call_end|>",
            "<|tool_calls_section_end|>",
        )
    )
    header = rf"\s*(?:{begin})?\s*(?:functions\.)?(?P<name>[\w.-]+?)(?::\d+)?\s*{arguments}\s*(?=\S)"
    return JsonCalls(JsonSyntax(header=header, trailer=rf"\s*{end}", end=rf"\s*{section}"))


def _harmony(marked: Callable[[str], str], _: Functions) -> Region:
    """As :mod:`tasks.engine.text.headers` hands it on."""
    message, end = re.escape(marked(headers.MESSAGE)), re.escape(marked(headers.END))
    return JsonCalls(JsonSyntax(header=rf"\s*(?P<name>[\w.-]+)\s*{message}\s*(?=\S)", end=rf"\s*{end}"))


def _tags(
    marked: Callable[[str], str], functions: Functions, *, end: str, syntax: TagSyntax, tokens: tuple[str, ...] = ()
) -> Region:
    def with_marks(pattern: str) -> str:
        for token in tokens:
            pattern = pattern.replace(re.escape(token), re.escape(marked(token)))
        return pattern

    names = ("call", "argument", "close", "close_call", "json", "close_json")
    changed: dict[str, Any] = {name: with_marks(getattr(syntax, name)) for name in names}
    return Delimited(marked(end), Tags(replace(syntax, **changed), functions), closes_calls=not syntax.close_call)


def _glm(tag: str) -> TagSyntax:
    return TagSyntax(
        call=r"(?P<name>[^\s<{]+)",
        argument=rf"<{tag}arg_key>(?P<key>[^<]*)</{tag}arg_key>\s*<{tag}arg_value>",
        close=rf"</{tag}arg_value>",
        strips=True,
    )


def _tags_or_object(marked: Callable[[str], str], functions: Functions, *, end: str, syntax: TagSyntax) -> Region:
    return Either(
        {"{": partial(_objects, marked, functions, end=end)}, partial(_tags, marked, functions, end=end, syntax=syntax)
    )


def _invoke(prefix: str, more: str) -> TagSyntax:
    """``invoke`` and ``parameter``, each with a name."""
    return TagSyntax(
        call=rf"<{prefix}invoke\b[^>]*?\bname=[\"']?(?P<name>[^\"'>\s]+)[\"']?\s*>",
        argument=rf"<{prefix}parameter\b[^>]*?\bname=[\"']?(?P<key>[^\"'>\s]+)[\"']?{more}\s*>",
        close=rf"</{prefix}parameter>",
        close_call=rf"</{prefix}invoke>",
    )


_QWEN = TagSyntax(
    call=r"<function=[\"']?(?P<name>[^\"'\s<>]+)[\"']?>",
    argument=r"<parameter=[\"']?(?P<key>[^\"'\s<>]+)[\"']?>",
    close=r"</parameter>",
    close_call=r"</function>",
)
_MINICPM = TagSyntax(
    # The start marker, which is not there before the first call.
    call=r"(?:<function\s+name\s*=\s*)?[\"']?(?P<name>[^\"'<>]+?)[\"']?\s*>",
    argument=r"<param\s+name\s*=\s*[\"']?(?P<key>[^\"'<>]+?)[\"']?\s*>",
    close=r"</param>",
    strips=True,
    cdata=True,
)
_XTML_TOKENS = ("<|open|>", "<|close|>", "<|sep|>")
_OPEN, _CLOSE, _SEP = map(re.escape, _XTML_TOKENS)
_XTML = TagSyntax(
    call=rf'{_OPEN}call\b[^<]*?\btool="(?P<name>[^"]+)"[^<]*?{_SEP}',
    argument=rf'{_OPEN}argument\b(?=[^<]*?\btype="(?P<type>[^"]*)")?[^<]*?\bkey="(?P<key>[^"]*)"[^<]*?{_SEP}',
    close=rf"{_CLOSE}argument{_SEP}",
    close_call=rf"{_CLOSE}call{_SEP}",
    json=rf"{_OPEN}json\b[^<]*?{_SEP}",
    close_json=rf"{_CLOSE}json{_SEP}",
)


def _delimited_by(end: str, syntax: TagSyntax, tokens: tuple[str, ...] = ()) -> Make:
    return partial(_tags, end=end, syntax=syntax, tokens=tokens)


_CALLS = ("<tool_call>", "</tool_call>")
_LONGCAT = ("<longcat_tool_call>", "</longcat_tool_call>")
_MINIMAX = ("<minimax:tool_call>", "</minimax:tool_call>")
_ATEM = ("<atem:function_calls>", "</atem:function_calls>")
_DSML = ("<｜DSML｜function_calls>", "</｜DSML｜function_calls>")
_XTML_TOOLS = ("<|open|>tools<|sep|>", "<|close|>tools<|sep|>")
_KIMI = ("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>")
_LFM = ("<|tool_call_start|>", "<|tool_call_end|>")
_GEMMA4 = ("<|tool_call>", "<tool_call|>")
_GEMMA = ("<start_function_call>", "<end_function_call>")
_MINICPM_CALLS = ("<function name=", "</function>")


def _braces(marked: Callable[[str], str], _: Functions, *, end: str, mark: str) -> Region:
    return Delimited(marked(end), Braces(marked(mark)))


def _pythonic(marked: Callable[[str], str], _: Functions) -> Region:
    return Delimited(marked(_LFM[1]), pythonic.read)


SYNTAXES = {
    syntax.name: syntax
    for syntax in (
        Syntax("json_tools", *_CALLS, partial(_objects, end=_CALLS[1])),
        Syntax("mistral", "[TOOL_CALLS]", "", _mistral, ("[ARGS]", "[CALL_ID]")),
        Syntax(
            "kimi_k2", *_KIMI, _kimi_k2, ("<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>")
        ),
        Syntax("harmony", headers.BEGIN, headers.END, _harmony, (headers.MESSAGE,)),
        Syntax("qwen3_coder", *_CALLS, _delimited_by(_CALLS[1], _QWEN), bare="<function="),
        Syntax("glm47", *_CALLS, partial(_tags_or_object, end=_CALLS[1], syntax=_glm(""))),
        Syntax("laguna", *_CALLS, partial(_tags_or_object, end=_CALLS[1], syntax=_glm(""))),
        Syntax("longcat", *_LONGCAT, partial(_tags_or_object, end=_LONGCAT[1], syntax=_glm("longcat_"))),
        Syntax("minimax_m2", *_MINIMAX, _delimited_by(_MINIMAX[1], _invoke("", ""))),
        Syntax("muse_spark", *_ATEM, _delimited_by(_ATEM[1], _invoke("atem:", r"[^>]*?"))),
        Syntax(
            "deepseek_v32",
            *_DSML,
            _delimited_by(_DSML[1], _invoke("｜DSML｜", r"(?:\s+string=\"(?P<type>true|false)\")?")),
        ),
        Syntax("minicpm5", *_MINICPM_CALLS, _delimited_by(_MINICPM_CALLS[1], _MINICPM)),
        Syntax("kimi_k3", *_XTML_TOOLS, _delimited_by(_XTML_TOOLS[1], _XTML, _XTML_TOKENS), _XTML_TOKENS),
        Syntax("gemma4", *_GEMMA4, partial(_braces, end=_GEMMA4[1], mark='<|"|>'), ('<|"|>',)),
        Syntax("function_gemma", *_GEMMA, partial(_braces, end=_GEMMA[1], mark="<escape>"), ("<escape>",)),
        Syntax("pythonic", *_LFM, _pythonic),
    )
}
