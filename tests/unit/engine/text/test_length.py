"""The fewest tokens of a text: never more than it has, and enough to refuse what no context holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.tokenizer_utils import TokenizerWrapper
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tasks.engine.text.control import ControlTokens
from tasks.engine.text.length import LONG_CHARACTERS, FewestTokens, tokens_left
from tasks.engine.text.prompt import PromptEncoder
from tasks.engine.text.template import ChatTemplate
from tasks.errors import ContextExceeded
from tasks.messages.engine import Submit
from tests import tiny_tokenizers

if TYPE_CHECKING:
    from collections.abc import Callable

TEMPLATE = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"


def composing() -> Tokenizer:
    """Qwen's shape: characters are composed before they are cut."""
    made = tiny_tokenizers.byte_level()
    made.normalizer = normalizers.NFC()
    return made


def removing() -> Tokenizer:
    """Spaces are dropped."""
    made = tiny_tokenizers.byte_level()
    gone = pre_tokenizers.Split(" ", behavior="removed")
    made.pre_tokenizer = pre_tokenizers.Sequence([gone, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return made


def greedy() -> Tokenizer:
    """An added token takes the white space around it along."""
    made = tiny_tokenizers.byte_level()
    made.add_tokens([AddedToken("<b>", lstrip=True, rstrip=True, normalized=False)])
    return made


def unigram() -> Tokenizer:
    """Characters that it does not know become one token, however many they are."""
    return Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0)], unk_id=0))


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "byte-level": tiny_tokenizers.byte_level,
    "byte-level, digits": lambda: tiny_tokenizers.byte_level(digits=True),
    "sentencepiece": tiny_tokenizers.sentencepiece,
    "sentencepiece, metaspace": lambda: tiny_tokenizers.sentencepiece(metaspace=True),
    "composing": composing,
    "removing": removing,
    "greedy": greedy,
    "unigram": unigram,
}


def wrapped(kind: str) -> TokenizerWrapper:
    fast: Any = PreTrainedTokenizerFast
    return TokenizerWrapper(fast(tokenizer_object=KINDS[kind](), eos_token="</s>", chat_template=TEMPLATE))


WRAPPED = {kind: wrapped(kind) for kind in KINDS}
TEXTS = st.lists(st.sampled_from(["the", " ", " " * 9, "12", "<b>", "e\u0301", "\u2126", "é", "😀", "\n"]), max_size=30)


@pytest.mark.parametrize("kind", KINDS)
@given(words=TEXTS)
@settings(max_examples=60, deadline=None)
def test_never_more_than_there_are(kind: str, words: list[str]) -> None:
    """The bound holds for every kind of tokenizer, whatever the text."""
    tokenizer, text = WRAPPED[kind], "".join(words)
    assert FewestTokens(tokenizer)(text) <= len(tokenizer.encode(text, add_special_tokens=False))


@pytest.mark.parametrize("kind", ["byte-level", "byte-level, digits", "sentencepiece", "composing"])
def test_says_something(kind: str) -> None:
    """For the kinds that almost all models have, a long text has a bound."""
    # No token of these vocabularies has more than four characters.
    assert FewestTokens(WRAPPED[kind])("the 😀" * 6_000) >= 6_000


@pytest.mark.parametrize("kind", ["unigram", "removing"])
def test_says_nothing(kind: str) -> None:
    """Where characters may vanish there is no bound."""
    assert FewestTokens(WRAPPED[kind])("the " * 6_000) == 0


class Untouched:
    """A tokenizer that must not be asked."""

    def __init__(self, tokenizer: TokenizerWrapper) -> None:
        self._tokenizer = tokenizer._tokenizer

    def encode(self, *_: Any, **__: Any) -> list[int]:
        raise AssertionError("the text was tokenised")

    def __getattr__(self, name: str) -> Any:
        return getattr(WRAPPED["byte-level"], name)


@pytest.mark.parametrize("form", ["prompt", "messages"])
def test_refused_before_it_is_tokenised(form: str) -> None:
    """A prompt whose length alone is over the context is refused with both figures, and costs no tokenising."""
    text = "the " * LONG_CHARACTERS
    submit = Submit(
        task_id="t",
        prompt=text if form == "prompt" else None,
        messages=[{"role": "user", "content": text}] if form == "messages" else None,
        max_tokens=5,
    )
    tokenizer: Any = Untouched(WRAPPED["byte-level"])
    control = ControlTokens(WRAPPED["byte-level"], TEMPLATE)
    encoder = PromptEncoder(tokenizer, ChatTemplate(WRAPPED["byte-level"], TEMPLATE, ""), control, 8_000)
    with pytest.raises(ContextExceeded, match=r"at least \d+ tokens and max_tokens is 5.* 8000 tokens"):
        encoder.encode(submit)


def test_what_is_left() -> None:
    """An answer may have what the prompt leaves of the context, and one token at least."""
    assert tokens_left(10, None, 30) == 20
    assert tokens_left(10, 20, 30) == 20
    with pytest.raises(ContextExceeded, match="has 10 tokens and max_tokens is 21"):
        tokens_left(10, 21, 30)
    with pytest.raises(ContextExceeded, match="max_tokens is at least 1"):
        tokens_left(30, None, 30)
