"""Control tokens in messages are text, for every kind of tokenizer and whatever a template does with the messages."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.tokenizer_utils import TokenizerWrapper
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tasks.engine.text.control import WRAPPINGS, ControlTokens, unwrapped
from tasks.engine.text.prompt import TAIL_CHARACTERS, PromptEncoder
from tasks.engine.text.renamed import alternatives
from tasks.engine.text.template import ChatTemplate
from tasks.errors import InvalidRequest
from tasks.messages.engine import Submit
from tests import tiny_tokenizers

if TYPE_CHECKING:
    from collections.abc import Callable

#: Special ones and, with <think>, one that is not; <b> is added too, and no control token.
SPECIAL, MARKERS, TEXTS = ("<|user|>", "<|end|>"), ("<think>",), ("<b>", "  ")
CONTROL = (*SPECIAL, *MARKERS)
PLAIN = "{% for m in messages %}<|user|>{{ m['content'] }}<|end|>\n{% endfor %}<|user|><think>"


def unigram() -> Tokenizer:
    """T5's shape: pieces with scores; the control tokens are pieces too, as SentencePiece has them."""
    pieces = [("<unk>", 0.0), *((name, 0.0) for name in CONTROL), ("\u2581", -2.0), ("\u2581a", -1.0), ("the", -1.0)]
    made = Tokenizer(models.Unigram([*pieces, *((chr(code), -5.0) for code in range(33, 127))], unk_id=0))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    made.decoder = decoders.Metaspace(prepend_scheme="always")
    return made


def merging() -> Tokenizer:
    """A vocabulary whose merges make a control token of text."""
    made = models.BPE(
        vocab={
            text: number
            for number, text in enumerate([*map(chr, range(32, 127)), "<|", "d|", "en", "d|>", "end|>", "<|end|>"])
        },
        merges=[("<", "|"), ("d", "|"), ("e", "n"), ("d|", ">"), ("en", "d|>"), ("<|", "end|>")],
    )
    tokenizer = Tokenizer(made)
    tokenizer.add_tokens([AddedToken("\n", normalized=False)])
    return tokenizer


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "byte-level": tiny_tokenizers.byte_level,
    "byte-level, prefix": lambda: tiny_tokenizers.byte_level(prefix=True),
    "byte-level, digits": lambda: tiny_tokenizers.byte_level(digits=True),
    "sentencepiece": tiny_tokenizers.sentencepiece,
    "sentencepiece, no prefix": lambda: tiny_tokenizers.sentencepiece(prefix=False),
    "sentencepiece, metaspace": lambda: tiny_tokenizers.sentencepiece(metaspace=True),
    "sentencepiece, control pieces": lambda: tiny_tokenizers.sentencepiece(extra=CONTROL),
    "unigram": unigram,
}


@cache
def bare(kind: str) -> Tokenizer:
    """A tokenizer of this kind for which no control token is anything but text."""
    made = KINDS[kind.replace(", control pieces", "")]() if kind != "unigram" else None
    if made is None:  # the same scores without the pieces
        pieces = [("<unk>", 0.0), ("\u2581", -2.0), ("\u2581a", -1.0), ("the", -1.0)]
        made = Tokenizer(models.Unigram([*pieces, *((chr(code), -5.0) for code in range(33, 127))], unk_id=0))
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    made.add_tokens([AddedToken(text, normalized=False) for text in TEXTS])
    return made


def plain(kind: str, text: str) -> list[str]:
    """The tokens of a text that has nothing but text in it."""
    return [str(bare(kind).id_to_token(token_id)) for token_id in bare(kind).encode(text, add_special_tokens=False).ids]


@cache
def wrapper(kind: str, template: str = PLAIN) -> TokenizerWrapper:
    """The same with its control tokens, as a model's."""
    made = KINDS[kind]()
    made.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL])
    made.add_tokens([AddedToken(text, normalized=False) for text in (*MARKERS, *TEXTS)])
    fast: Any = PreTrainedTokenizerFast
    return TokenizerWrapper(fast(tokenizer_object=made, eos_token="<|end|>", chat_template=template))


def encoder(tokenizer: TokenizerWrapper) -> PromptEncoder:
    source: str = tokenizer._tokenizer.chat_template
    return PromptEncoder(tokenizer, ChatTemplate(tokenizer, source, ""), ControlTokens(tokenizer, source), 1_000_000)


def submit(*contents: str, **values: Any) -> Submit:
    messages = [{"role": "user", "content": content} for content in contents]
    return Submit(task_id="t", messages=messages, prompt=None, max_tokens=1, **values)


@pytest.mark.parametrize("first", [["<|user|>"], ["<|user|>", "<|end|>"]], ids=str)
def test_what_the_tokenizer_puts_before_a_text_comes_once(first: list[str]) -> None:
    """One token or, as with GLM, two, whether they are called ``bos_token`` or not: a rendered chat begins with them."""
    made = tiny_tokenizers.byte_level()
    made.add_special_tokens(list(SPECIAL))
    ids = [(name, made.token_to_id(name)) for name in first]
    made.post_processor = processors.TemplateProcessing(single=[*first, "$A"], special_tokens=ids)
    fast: Any = PreTrainedTokenizerFast
    begins = encoder(TokenizerWrapper(fast(tokenizer_object=made, eos_token="<|end|>", chat_template=PLAIN)))

    def asked(prompt: str) -> list[int]:
        return begins.encode(Submit(task_id="t", messages=None, prompt=prompt, max_tokens=1)).ids

    text = asked("a the")
    assert text[: len(first)] == [token_id for _, token_id in ids]
    assert asked("".join(first) + "a the") == text


@pytest.mark.parametrize(
    ("first", "last"), [([], ["<|end|>"]), (["<|user|>"], ["<|end|>"]), (["<|user|>"], ["<|tool|>"])]
)
def test_what_the_tokenizer_puts_behind_a_text_does_not_end_a_prompt(first: list[str], last: list[str]) -> None:
    """A training may leave its end token there, and BERT's files have a separator: an answer behind it would begin anew."""
    made = tiny_tokenizers.byte_level()
    made.add_special_tokens(["<|user|>", "<|end|>", "<|tool|>"])
    ids = {name: made.token_to_id(name) for name in (*first, *last)}
    made.post_processor = processors.TemplateProcessing(single=[*first, "$A", *last], special_tokens=list(ids.items()))
    fast: Any = PreTrainedTokenizerFast
    special = {"eos_token": "<|end|>", "sep_token": "<|tool|>", "chat_template": PLAIN}
    prompts = encoder(TokenizerWrapper(fast(tokenizer_object=made, **special)))

    def asked(prompt: str) -> list[int]:
        return prompts.encode(Submit(task_id="t", messages=None, prompt=prompt, max_tokens=1)).ids

    begin, text = [ids[name] for name in first], made.encode("a the", add_special_tokens=False).ids
    assert asked("a the") == begin + text
    assert asked(f"{''.join(first)}a the") == begin + text
    assert asked(f"a the{last[0]}") == [*begin, *text, ids[last[0]]]


def tokens(tokenizer: TokenizerWrapper, ids: list[int]) -> list[str]:
    return [str(tokenizer._tokenizer.convert_ids_to_tokens(token_id)) for token_id in ids]


WORDS = st.lists(st.sampled_from(["a", " a", "the", " ", "  ", "\n", "12", "<b>", "<", "|", "é", "😀"]), max_size=6)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=30)
@given(words=WORDS)
def test_ordinary_text_is_read_as_ever(kind: str, words: list[str]) -> None:
    """Without a control token in it, a conversation has the very ids that the library gives it."""
    tokenizer, text = wrapper(kind), "".join(words)
    messages = [{"role": "user", "content": text}]
    expected = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    assert encoder(tokenizer).encode(submit(text)).ids == list(expected)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=30)
@given(words=WORDS, data=st.data())
def test_control_tokens_are_read_as_text(kind: str, words: list[str], data: st.DataObject) -> None:
    """Between the template's own tokens stand the ids of a tokenizer that has no control tokens at all."""
    for name in data.draw(st.lists(st.sampled_from(CONTROL), min_size=1, max_size=3)):
        words.insert(data.draw(st.integers(0, len(words))), name)
    content, tokenizer = "".join(words), wrapper(kind)
    found = tokens(tokenizer, encoder(tokenizer).encode(submit(content)).ids)
    assert found == ["<|user|>", *plain(kind, content), "<|end|>", *plain(kind, "\n"), "<|user|>", "<think>"]


@pytest.mark.parametrize("kind", KINDS)
def test_who_means_them_gets_them(kind: str) -> None:
    """With ``allow_control_tokens`` a conversation is read as the library reads it."""
    tokenizer = wrapper(kind)
    messages = [{"role": "user", "content": "a<|end|>b"}]
    found = encoder(tokenizer).encode(submit("a<|end|>b", allow_control_tokens=True)).ids
    assert found == list(tokenizer.apply_chat_template(messages, add_generation_prompt=True))
    assert tokens(tokenizer, found).count("<|end|>") == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_raw_prompt_means_what_it_says(kind: str) -> None:
    """Control tokens in raw text are tokens: who sends it writes the template's part too."""
    tokenizer = wrapper(kind)
    found = encoder(tokenizer).encode(Submit(task_id="t", messages=None, prompt="<|user|>a<|end|>", max_tokens=1)).ids
    assert tokens(tokenizer, found)[0] == "<|user|>"
    assert tokens(tokenizer, found)[-1] == "<|end|>"


@pytest.mark.parametrize(
    ("template", "content", "text"),
    [
        ("{{ m['content'] | trim }}", " <|end|> ", "<|end|>"),
        ("{{ m['content'] | tojson }}", 'a"<|end|>', '"a\\"<|end|>"'),
        ("{{ m['content'].split('<think>')[-1] }}", "a<think>b<|end|>", "b<|end|>"),
        ("{{ m['content'].split('</x>')[0] + '|' + m['content'].split('<think>')[0] }}", "<|<think>b", "<|<think>b|<|"),
        ("{{ m['content'] | replace('a', '') }}", "<|eand|><|end|>", "<|end|><|end|>"),
        ("{{ m['content'] | upper }}", "<|end|>", "<|END|>"),
        ("{% if '<think>' in m['content'] %}yes{% endif %}", "<think>", "yes"),
        ("{% if m['content'].startswith('<think>') %}yes{% else %}no{% endif %}", "<think>", "no"),
        ("{{ m['content'][:4] }}", "a<think>", "a<th"),
    ],
)
def test_whatever_the_template_does(template: str, content: str, text: str) -> None:
    """A template that changes texts sees the control tokens in them, and makes none of them."""
    source = "{% for m in messages %}<|user|>" + template + "{% endfor %}<|end|>"
    tokenizer = wrapper("byte-level", source)
    found = tokens(tokenizer, encoder(tokenizer).encode(submit(content)).ids)
    joined = text if not text.startswith("<|end|><|end|>") else None
    if joined is not None:
        assert found == ["<|user|>", *plain("byte-level", joined), "<|end|>"]
    else:  # it was made of pieces by the template: that one is the template's own
        assert found.count("<|end|>") == 2


def test_a_vocabulary_that_makes_control_tokens_of_text() -> None:
    """What merges would make a control token of stays in the pieces that come before it."""
    made = merging()
    made.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL])
    fast: Any = PreTrainedTokenizerFast
    tokenizer = TokenizerWrapper(fast(tokenizer_object=made, chat_template="{{ messages[0]['content'] }}<|end|>"))
    found = tokens(tokenizer, encoder(tokenizer).encode(submit("a<|end|><|user|>")).ids)
    assert found == ["a", "<|", "end|>", "<|", "u", "s", "e", "r", "|", ">", "<|end|>"]


def test_every_text_of_a_message_counts() -> None:
    """Names, calls and their results are the user's words too; the name of an argument cannot be read as text."""
    source = "{% for m in messages %}<|user|>{{ m | tojson }}{% endfor %}<|end|>"
    tokenizer = wrapper("byte-level", source)
    arguments = {"x": ["<|end|>"], "role": "<|end|>", "y": {"type": "<|end|>"}}
    call = {"type": "function", "function": {"name": "f", "arguments": arguments}}
    message = {"role": "assistant", "name": "<|end|>", "content": "", "tool_calls": [call]}
    made = encoder(tokenizer)
    found = made.encode(Submit(task_id="t", messages=[message], prompt=None, max_tokens=1)).ids
    assert tokens(tokenizer, found).count("<|end|>") == 1
    call["function"] = {"name": "f", "arguments": {"<|end|>": 1}}
    with pytest.raises(InvalidRequest, match="argument"):
        made.encode(Submit(task_id="t", messages=[message], prompt=None, max_tokens=1))


@pytest.mark.parametrize(
    ("value", "template", "text"),
    [
        (["<|end|>"], "{{ x }}", "['<|end|>']"),
        ({"y": "\\<|end|>"}, "{{ x | string }}", "{'y': '\\\\<|end|>'}"),
        (["<|end|>"], "{{ x | tojson(ensure_ascii=True) }}", '["<|end|>"]'),
    ],
    ids=str,
)
def test_a_template_that_escapes_what_it_does_not_know(value: Any, template: str, text: str) -> None:
    """A list that is printed as Python prints it, and JSON in ASCII: a control token in them is text alone."""
    source = (
        "{% for m in messages %}<|user|>{% set f = m['tool_calls'][0]['function'] %}{% set x = f['arguments']['x'] %}"
    )
    tokenizer = wrapper("byte-level", source + "{{ f['name'] }}" + template + "{% endfor %}<|end|>")
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": value}}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    found = encoder(tokenizer).encode(Submit(task_id="t", messages=[message], prompt=None, max_tokens=1)).ids
    assert tokens(tokenizer, found) == ["<|user|>", *plain("byte-level", "f" + text), "<|end|>"]


def test_private_characters_in_a_message() -> None:
    """What stands around a control token is no character of the message; a message with all of them is refused."""
    tokenizer = wrapper("byte-level")
    made = encoder(tokenizer)
    text = f"{WRAPPINGS[0].start}<|end|>{WRAPPINGS[0].end}"
    found = tokens(tokenizer, made.encode(submit(text)).ids)
    assert found[1:-4] == plain("byte-level", text)
    escaped = repr(text)
    assert tokens(tokenizer, made.encode(submit(escaped)).ids)[1:-4] == plain("byte-level", escaped)
    with pytest.raises(InvalidRequest, match="U\\+F0000"):
        made.encode(submit("<|end|>" + "".join(char for pair in WRAPPINGS for char in pair)))


@pytest.mark.parametrize("kind", ["byte-level", "unigram"])
def test_a_tokenizer_that_cannot_be_copied(kind: str) -> None:
    """One that is no Rust tokenizer, or does more than its file says, reads such a text in two pieces: never as a token."""
    tokenizer = wrapper(kind)

    class WithoutRust:
        def __getattr__(self, name: str) -> Any:
            if name == "backend_tokenizer":
                raise AttributeError(name)
            return getattr(tokenizer._tokenizer, name)

    class DoingMore(WithoutRust):
        backend_tokenizer = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))

    for hf in (WithoutRust(), DoingMore()):
        wrapped: Any = SimpleNamespace(_tokenizer=hf)
        start, end = WRAPPINGS[0]
        ids = ControlTokens(wrapped, PLAIN).encode(f"<|user|>a {start}<|end|>{end}the<|end|>", WRAPPINGS[0])
        assert tokens(tokenizer, ids).count("<|end|>") == 1
        assert tokenizer._tokenizer.decode(ids).replace(" ", "") == "<|user|>a<|end|>the<|end|>"


def test_what_counts_as_a_control_token() -> None:
    """Special tokens, and those of the others that the template writes or that mark an answer's parts; no white space."""
    tokenizer = wrapper("byte-level")

    def control(source: str, *markers: str) -> set[str]:
        """Those of the added tokens that are wrapped in a message."""
        found = ControlTokens(tokenizer, source, markers)
        return {text for text in (*CONTROL, *TEXTS) if found.wrap([{"content": f"a{text}"}])[1] is not None}

    assert control(PLAIN) == {*CONTROL}
    assert control("no marker") == {*SPECIAL}
    assert control("no marker", "<b>") == {*SPECIAL, "<b>"}
    assert control("") == {*CONTROL, "<b>"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_sign_that_files_call_special_is_text(kind: str) -> None:
    """As in models that were trained with ``!`` for padding: it comes out of a message, also beside a control token."""
    tokenizer = wrapper.__wrapped__(kind)
    tokenizer._tokenizer.add_special_tokens({"pad_token": "!"})
    found = tokens(tokenizer, encoder(tokenizer).encode(submit("a! the<|end|>!")).ids)
    assert found.count("!") == 2
    assert found.count("<|end|>") == 1


def test_a_template_that_puts_a_control_token_together() -> None:
    """Its text is not in the template's, and the tokenizer does not call it special: it counts by its form."""
    made = tiny_tokenizers.byte_level()
    made.add_special_tokens([AddedToken("<|end|>", special=True, normalized=False)])
    made.add_tokens([AddedToken(text, normalized=False) for text in ("<|user|>", "<|tool|>", "<b>")])
    fast: Any = PreTrainedTokenizerFast
    source = "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    tokenizer = TokenizerWrapper(fast(tokenizer_object=made, eos_token="<|end|>", chat_template=source))
    found = tokens(tokenizer, encoder(tokenizer).encode(submit("a<|tool|><b>")).ids)
    assert found == ["<|user|>", *plain("byte-level", "a<|tool|><b>"), "<|end|>"]


def test_how_the_prompt_ends_is_the_templates_word() -> None:
    """A marker that a message ends with opens no thought."""
    source = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    tokenizer = wrapper("byte-level", source + "{# <think> #}")
    assert encoder(tokenizer).encode(submit("say <think>")).tail == "say "
    start, end = WRAPPINGS[0]
    cut = f"{start}<think>{end}" + "x" * (TAIL_CHARACTERS - 3)
    assert unwrapped(cut[-TAIL_CHARACTERS:], WRAPPINGS[0]) == "x" * (TAIL_CHARACTERS - 3)


@given(st.lists(st.text("ab|", min_size=1, max_size=4), min_size=1, max_size=8), st.text("ab|", max_size=12))
def test_the_longest_of_several_names(names: list[str], text: str) -> None:
    """Of names that begin alike the longest is found, as the library does."""
    import re

    found = re.search(alternatives(names), text)
    longest_first = re.search("|".join(map(re.escape, sorted(names, key=len, reverse=True))), text)
    assert (found and found.span()) == (longest_first and longest_first.span())
