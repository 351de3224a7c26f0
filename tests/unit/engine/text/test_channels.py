"""What a model thinks and what it answers, for each family of markers, however tokens cut the text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.engine.text.formats import AROUND_ANSWERS, TOKENS, Format, find_format
from tasks.engine.text.headers import MOST_CHARACTERS

if TYPE_CHECKING:
    from tasks.engine.text.channels import Channels

HARMONY = ("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>", "<|call|>", "<|constrain|>")
MUSE = ("<|start|>", "<|message|>", "<|eom|>", "<|eot|>")
XTML = ("<|open|>", "<|close|>", "<|sep|>", "<|end_of_msg|>")
SOLAR = ("<|begin|>", "<|think|>", "<|end|>", "<|content|>")
GEMMA = ("<|channel>", "<channel|>")
THINK = TOKENS[0]


def format_of(*names: str, template: str = "") -> Format:
    """The format of a vocabulary with these added tokens."""
    return find_format({name: 1000 + number for number, name in enumerate(names)}, template)


def marked(form: Format, text: str) -> str:
    """The text with tokens where it names them."""
    for name, mark in form.names.items():
        text = text.replace(name, mark)
    return text


def run(channels: Channels, parts: list[str]) -> tuple[str, str]:
    """The reasoning and the content of an answer that comes in these parts."""
    said = {"reasoning": "", "content": ""}
    for pieces in (*map(channels.push, parts), channels.finish()):
        for piece in pieces:
            said[piece.kind] += piece.text
    return said["reasoning"], said["content"]


CASES = [
    # names of tokens, template, end of the prompt, answer, reasoning, content
    *(
        pytest.param(pair, "", "", "{}hm so{}YES".format(*pair), "hm so", "YES", id=pair[0].strip("<>[]|◁▷"))
        for pair in TOKENS
    ),
    pytest.param(THINK, "", "assistant\n<think>\n", "hm</think>\n\nYES", "hm", "YES", id="the template opened it"),
    pytest.param(THINK, "", "<think>\n\n</think>\n\n", "YES", "", "YES", id="the template opened and closed it"),
    pytest.param(THINK, "", "<think>\nOK, ", "hm</think>YES", "hm", "YES", id="the template began to think"),
    pytest.param(THINK, "", "<think>", "<think>hm</think>YES", "hm", "YES", id="opened twice"),
    pytest.param(THINK, "", "<think>", "hm", "hm", "", id="cut off in its thoughts"),
    pytest.param(THINK, "", "", "YES", "", "YES", id="no thought"),
    pytest.param(THINK, "", "", "Y</think>ES", "", "YES", id="nothing to close"),
    pytest.param(THINK, "", "", "\n<think>\nhm\n</think>\n\n  YES \n", "\nhm\n", "YES \n", id="white space"),
    pytest.param(THINK, "", "", "<think>a</think>B\n<think>c</think>\nD", "ac", "B\nD", id="several thoughts"),
    pytest.param(THINK, "", "", "B<think>c</think> D", "c", "B D", id="a thought between two words"),
    pytest.param(THINK, "", "", "<think></think>YES", "", "YES", id="an empty thought"),
    pytest.param((), "<think> </think>", "", "<think>hm</think>YES", "hm", "YES", id="text that the template names"),
    pytest.param((), "<think> </think>", "x\n<think>\n", "hm</think>YES", "hm", "YES", id="text, opened"),
    pytest.param((), "<think> </think>", "", " \n<think>hm</think>\nYES", "hm", "YES", id="text behind white space"),
    pytest.param((), "<think> </think>", "", "<think>a</think>\n<think>b</think>C", "ab", "C", id="text, two thoughts"),
    pytest.param((), "<think>\n", "x\n<think>\n", "hm</think>YES", "hm", "YES", id="text, opened and never closed"),
    pytest.param((), "split('</think>')", "", "<think>hm</think>YES", "hm", "YES", id="text that the template cuts off"),
    pytest.param(
        (), "Here is my thought process: Here is my response:", "",
        "Here is my thought process:\nhm\nHere is my response:\nYES", "\nhm\n", "YES", id="sentences",
    ),
    pytest.param(
        (*THINK, "<mm:think>", "</mm:think>"), "", "in <mm:think></mm:think>. ai\n<mm:think>", "hm</mm:think>YES", "hm", "YES",
        id="MiniMax M3, opened",
    ),
    pytest.param(
        (*THINK, "<mm:think>", "</mm:think>"), "", "in <mm:think></mm:think>. ai\n", "<mm:think>hm</mm:think>YES", "hm", "YES",
        id="MiniMax M3, as it likes",
    ),
    pytest.param(
        (*THINK, "<think_fast>", "</think_fast>"), "", "assistant\n<think_fast>", "hm</think_fast>\n\nYES", "hm", "YES", id="K2",
    ),
    pytest.param(THINK, "", "<|Assistant|></think>", "YES", "", "YES", id="DeepSeek 3.1, not to think"),
    pytest.param(
        TOKENS[4], "", "", "<seed:think>a<seed:cot_budget_reflect>b</seed:cot_budget_reflect></seed:think>YES",
        "a<seed:cot_budget_reflect>b</seed:cot_budget_reflect>", "YES", id="Seed, with a budget",
    ),
    pytest.param(
        (), "<think></think> <response></response>", "", "<think>hm</think>\n<response>\nYES</response>", "hm", "YES",
        id="Granite 3.3",
    ),
    pytest.param(
        (), "<think></think> <response></response>", "", "It is </r or <response>.", "", "It is </r or <response>.",
        id="Granite 3.3, text that is none of it",
    ),
    pytest.param(
        (), "'<think>' '</think>' '<answer>' '</answer>'", "<|extra_0|>",
        "<think>\nhm</think>\n<answer>\nYES\n</answer>", "\nhm", "YES\n", id="Hunyuan",
    ),
    pytest.param(
        (), "Here are my reasoning steps:\n [BEGIN FINAL RESPONSE] [END FINAL RESPONSE]", "Here are my reasoning steps:\n",
        "hm\n[BEGIN FINAL RESPONSE]\nYES[END FINAL RESPONSE]", "hm\n", "YES", id="Apriel",
    ),
    pytest.param(
        (), "<|begin_of_thought|> <|end_of_thought|> <|begin_of_solution|> <|end_of_solution|>", "",
        "<|begin_of_thought|>hm<|end_of_thought|>\n\n<|begin_of_solution|>\nYES<|end_of_solution|>", "hm", "YES",
        id="OpenThinker",
    ),
    pytest.param(
        SOLAR, "", "<|end|><|begin|>assistant", "<|think|>hm<|end|><|begin|>assistant<|content|>YES", "hm", "YES", id="Solar",
    ),
    pytest.param(
        SOLAR, "", "<|end|><|begin|>assistant", "<|think|>a<|end|><|begin|>assistant<|think|>b<|end|><|content|>YES<|end|>",
        "ab", "YES", id="Solar, two thoughts",
    ),
    pytest.param(SOLAR, "", "<|end|><|begin|>assistant", "<|content|>YES", "", "YES", id="Solar without a thought"),
    pytest.param(
        (*THINK, *AROUND_ANSWERS), "", "", "<think>hm</think>\n<response>\nYES</response>", "hm", "YES", id="around answers",
    ),
    pytest.param(AROUND_ANSWERS, "", "", "<answer>YES</answer>", "", "<answer>YES</answer>", id="tokens without thoughts"),
    pytest.param((), "<think> </think>", "", "Say <think>.", "", "Say <think>.", id="text in mid-answer is text"),
    pytest.param((), "<think> </think>", "", "<thin ice", "", "<thin ice", id="text that is none after all"),
    pytest.param((), "<think> </think>", "", "<thi", "", "<thi", id="half a marker of text at the end"),
    pytest.param((), "<think> </think>", "", "\n ", "", "\n ", id="white space alone"),
    pytest.param((), "", "", "<think>hm</think>YES", "", "<think>hm</think>YES", id="a model that knows no markers"),
    pytest.param(
        GEMMA, "", "", "<|channel>thought\nhm<channel|>YES", "\nhm", "YES", id="gemma",
    ),
    pytest.param(GEMMA, "", "", "<|channel>thou", "", "", id="gemma, cut off in its marker"),
    pytest.param(
        XTML, "", "<|open|>think<|sep|>",
        "hm<|close|>think<|sep|><|open|>response<|sep|>YES<|close|>response<|sep|><|close|>message<|sep|>",
        "hm", "YES", id="xtml",
    ),
    pytest.param(
        HARMONY, "", "<|end|><|start|>assistant",
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>YES<|return|>",
        "hm", "YES", id="harmony",
    ),
    pytest.param(
        HARMONY, "", "<|start|>assistant",
        "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary<|message|>b<|end|>"
        "<|start|>assistant<|channel|>final<|message|>C<|return|>",
        "ab", "C", id="harmony, a channel that is not for the user",
    ),
    pytest.param(
        HARMONY, "", "<|start|>assistant",
        " to=functions.f<|channel|>commentary <|constrain|>json<|message|>{}<|call|>", "{}", "", id="harmony, a call",
    ),
    pytest.param(
        HARMONY, "", "<|start|>assistant<|channel|>final<|message|>", "YES", "", "YES", id="harmony, the channel prompted",
    ),
    pytest.param(HARMONY, "", "<|start|>assistant", "<|channel|>analy", "", "", id="harmony, cut off in a header"),
    pytest.param(HARMONY, "", "<|start|>assistant", "Hello there", "", "Hello there", id="harmony without a header"),
    pytest.param(HARMONY, "", "<|start|>assistant", "<|message|>YES", "", "YES", id="harmony without a channel"),
    pytest.param(HARMONY, "", "Once", " upon<|end|>", "", " upon", id="harmony, raw text"),
    pytest.param(
        HARMONY, "", "<|start|>assistant", "<|channel|>analysis<|message|>hm<|end|>YES", "hm", "YES", id="harmony, no start",
    ),
    pytest.param(
        HARMONY, "", "<|start|>assistant", "<|channel|>" + "y" * (MOST_CHARACTERS + 1), "", "y" * (MOST_CHARACTERS + 1),
        id="harmony, an endless header",
    ),
    pytest.param(
        MUSE, "", "<|start|>assistant ", "to=self<|message|>hm<|eom|><|start|>assistant to=user<|message|>YES<|eot|>",
        "hm", "YES", id="muse",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("names", "template", "tail", "answer", "reasoning", "content"), CASES)
def test_each_family(
    names: tuple[str, ...], template: str, tail: str, answer: str, reasoning: str, content: str
) -> None:
    """The thought and the answer come apart and no marker is seen, at once, by character, and cut in two at each place."""
    form = format_of(*names, template=template)
    text = marked(form, answer)
    for parts in ([text], list(text), *([text[:at], text[at:]] for at in range(len(text)))):
        assert run(form.channels(tail), parts) == (reasoning, content), parts


@pytest.mark.parametrize(
    "names", [THINK, GEMMA, HARMONY, MUSE, SOLAR, XTML, ()], ids=lambda names: names[0] if names else "text"
)
@settings(deadline=None)
@given(data=st.data())
def test_no_cut_changes_anything(names: tuple[str, ...], data: st.DataObject) -> None:
    """Whatever a model says, markers where none should be among it, how it is cut does not matter, and no mark is shown."""
    form = format_of(*names, template="" if names else "<think></think>")
    words = st.sampled_from(
        ["hm", " ", "\n", "to=self", "final", "analysis", "thought", "<", "think", *names, "<think>", "</think>"]
    )
    text = marked(form, "".join(data.draw(st.lists(words, max_size=12))))
    tail = data.draw(
        st.sampled_from(["", "<think>\n", "<|start|>assistant", "<|open|>think<|sep|>", "<|channel>thought"])
    )
    whole = run(form.channels(tail), [text])
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)))))
    parts = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert run(form.channels(tail), parts) == whole
    "".join(whole).encode()  # a mark is a lone surrogate, which cannot be encoded


def test_a_replay_stands_where_the_first_attempt_stood() -> None:
    """In mid-thought, in mid-marker and in mid-header, what follows is the same for who saw the text live."""
    form = format_of(*HARMONY)
    text = marked(form, "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>YES")
    for at in range(len(text)):
        live, again = form.channels("<|start|>assistant"), form.channels("<|start|>assistant")
        for char in text[:at]:
            live.push(char)
        again.push(text[:at])
        assert again.kind == live.kind
        assert run(again, [text[at:]]) == run(live, list(text[at:]))


@pytest.mark.parametrize(
    ("names", "template", "stop", "answer", "reasoning"),
    [
        (THINK, "", "</think>", "<think>hm</think>YES", "hm"),
        ((), "<think></think>", "</think>", "<think>hm</think>YES", "hm"),
        (HARMONY, "", "<|end|>", "<|channel|>analysis<|message|>hm<|end|>YES", "hm"),
    ],
)
def test_a_stop_string_that_is_a_marker(
    names: tuple[str, ...], template: str, stop: str, answer: str, reasoning: str
) -> None:
    """Who asks to stop where the thought ends gets the thought, and nothing after it."""
    form = format_of(*names, template=template)
    channels = form.channels("", (stop,))
    assert run(channels, list(marked(form, answer))) == (reasoning, "")
    assert channels.stopped
    assert channels.push("more") == []


def test_the_kind_of_what_comes_next() -> None:
    """A token without text counts as what the model is at: a thought from its opening marker to its closing one."""
    form = format_of(*THINK)
    channels = form.channels()
    kinds = []
    for part in ("<think>", "hm", "</think>", "YES"):
        channels.push(marked(form, part))
        kinds.append(channels.kind)
    assert kinds == ["reasoning", "reasoning", "content", "content"]


def test_tokens_go_before_text() -> None:
    """Where the vocabulary has the markers as tokens, the same characters in other tokens are text."""
    form = format_of(*THINK, template="<think></think>")
    assert run(form.channels(), ["<think>", "x", "</think>"]) == ("", "<think>x</think>")
