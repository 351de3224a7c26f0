"""Detokenising: the released text is what the tokenizer's own decode says, character by whole character."""

from __future__ import annotations

import gc
import weakref
from functools import cache
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock, PropertyMock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mlx_lm.tokenizer_utils import TokenizerWrapper
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tasks.engine.answers.assembler import TextAssembler
from tasks.engine.text.detokenizer import token_text
from tasks.engine.text.formats import find_format

if TYPE_CHECKING:
    from tasks.engine.text.piece import Piece

KINDS = ["byte-level", "sentencepiece", "sentencepiece, spaces kept", "byte-level, window", "sentencepiece, window"]
#: Accents, two scripts, joined emoji, the replacement character itself (a few in a row), spaces and newlines.
TEXTS = st.text("ab cé\nжあ👨‍👩‍👧😀\ufffd,.", max_size=30).filter(lambda text: 8 * "\ufffd" not in text)
STOPS = st.lists(st.text("ab é\n😀", min_size=1, max_size=4), max_size=3).map(tuple)


def wrap(tokenizer: Tokenizer) -> TokenizerWrapper:
    tokenizer.add_special_tokens(["<|end|>", "<|user|>"])
    tokenizer.add_tokens([AddedToken("<tool>", special=False), AddedToken("→", special=False)])
    fast: Any = PreTrainedTokenizerFast
    return TokenizerWrapper(fast(tokenizer_object=tokenizer, eos_token="<|end|>"))


def byte_level(*, window: bool = False) -> TokenizerWrapper:
    """All 256 bytes, and some merges that cut emoji into pieces of 3 + 1 and of 2 + 2 bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("ð", "Ł"), ("ðŁ", "ĺ"), ("Ģ", "ĭ"), ("a", "b"), ("Ġ", "a"), ("Ġ", "Ġ")]
    vocab = {token: n for n, token in enumerate([*alphabet, *("".join(pair) for pair in merges)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel()]) if window else decoders.ByteLevel()
    return wrap(tokenizer)


def sentencepiece(*, trim: bool, window: bool = False) -> TokenizerWrapper:
    """A few pieces and the rest as bytes, with the decoder of Llama 2 (``trim``) or of Gemma."""
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "a", "b", "\u2581", "\u2581a", "ab", "é", "\n"]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={piece: n for n, piece in enumerate(pieces)},
            merges=[("\u2581", "a"), ("a", "b")],
            unk_token="<unk>",
            byte_fallback=True,
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first" if trim else "never", split=False)
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    steps += [decoders.Strip(" ", 1, 0)] if trim else []
    # One step more, that does nothing, makes it a decoder that nobody here knows.
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Replace("\x00", "")] if window else steps)
    return wrap(tokenizer)


@cache
def tokenizer_of(kind: str) -> TokenizerWrapper:
    match kind:
        case "byte-level":
            return byte_level()
        case "byte-level, window":
            return byte_level(window=True)
        case "sentencepiece":
            return sentencepiece(trim=True)
        case "sentencepiece, spaces kept":
            return sentencepiece(trim=False)
        case _:
            return sentencepiece(trim=True, window=True)


def encode(tokenizer: TokenizerWrapper, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids


def decode(tokenizer: TokenizerWrapper, ids: list[int]) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text


def assemble(assembler: TextAssembler, ids: list[int]) -> tuple[str, list[str]]:
    pieces = [text_of(assembler.push(token_id)) for token_id in ids]
    return "".join(pieces) + text_of(assembler.finish()), pieces


def text_of(pieces: list[Piece]) -> str:
    """The text of pieces that are all content, as they are without reasoning."""
    assert {piece.kind for piece in pieces} <= {"content"}
    return "".join(piece.text for piece in pieces)


def replay(assembler: TextAssembler, ids: list[int]) -> str:
    return "".join(text_of(assembler.push(token_id)) for token_id in ids)


def before_stop(text: str, stop: tuple[str, ...]) -> str:
    for end in range(1, len(text) + 1):
        lengths = [len(word) for word in stop if text[:end].endswith(word)]
        if lengths:
            return text[: end - max(lengths)]
    return text


@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXTS)
@settings(deadline=None)
@example(text="\ufffd\ufffd👧é\ufffd")
def test_text_equals_the_tokenizers_decode(kind: str, text: str) -> None:
    """Token by token, any text comes out as ``decode`` says it, and no release holds a character it does not."""
    tokenizer = tokenizer_of(kind)
    ids = encode(tokenizer, text)
    whole, pieces = assemble(TextAssembler(tokenizer), ids)
    assert whole == decode(tokenizer, ids)
    assert "\ufffd" in text or not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize("kind", ["byte-level", "byte-level, window"])
@given(data=st.data())
@settings(deadline=None)
def test_any_bytes_decode_as_the_tokenizer_does(kind: str, data: st.DataObject) -> None:
    """Also for tokens in any order, invalid UTF-8 among them, the text equals ``decode``'s."""
    tokenizer = tokenizer_of(kind)
    ids = data.draw(st.lists(st.integers(0, len(tokenizer) - 1), max_size=8))
    assert assemble(TextAssembler(tokenizer), ids)[0] == decode(tokenizer, ids)


@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXTS, stop=STOPS)
@settings(deadline=None, max_examples=200)
def test_stop_strings_across_tokens(kind: str, text: str, stop: tuple[str, ...]) -> None:
    """With stop strings the text ends before the first of them, wherever the tokens cut it, and says that it stopped."""
    tokenizer = tokenizer_of(kind)
    ids = encode(tokenizer, text)
    assembler = TextAssembler(tokenizer, stop)
    said = decode(tokenizer, ids)
    assert assemble(assembler, ids)[0] == before_stop(said, stop)
    assert assembler.stopped == any(word in said for word in stop)


@pytest.mark.parametrize("kind", KINDS)
def test_an_emoji_comes_whole(kind: str) -> None:
    """An emoji of four bytes in several tokens is released with its last token and not before."""
    tokenizer = tokenizer_of(kind)
    ids = encode(tokenizer, "é😀é")
    assert len(ids) >= 4
    pieces = assemble(TextAssembler(tokenizer), ids)[1]
    assert [piece for piece in pieces if piece] == ["é", "😀", "é"]


@pytest.mark.parametrize("kind", KINDS)
def test_half_a_character_at_the_end_shows_in_finish_only(kind: str) -> None:
    """A character that is never completed is one or more U+FFFD at the end, once it is certain."""
    tokenizer = tokenizer_of(kind)
    ids = encode(tokenizer, "a😀")[:-1]
    assembler = TextAssembler(tokenizer)
    assert replay(assembler, ids) == "a"
    tail = text_of(assembler.finish())
    assert tail
    assert set(tail) == {"\ufffd"}


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_have_no_text(kind: str) -> None:
    """End and chat tokens vanish also inside a text, added tokens that are not special stay."""
    tokenizer = tokenizer_of(kind)
    special = tokenizer.convert_tokens_to_ids(["<|user|>", "<|end|>"])
    kept = tokenizer.convert_tokens_to_ids(["<tool>", "→"])
    ids = [*encode(tokenizer, "ab"), special[0], *kept, special[1]]
    assert assemble(TextAssembler(tokenizer), ids)[0] == "ab<tool>→"


@pytest.mark.parametrize("kind", KINDS)
def test_a_sign_that_files_call_special_is_text(kind: str) -> None:
    """As in models that were trained with ``!`` for padding: their answers have it; where it ends an answer they do not."""
    tokenizer = tokenizer_of.__wrapped__(kind)
    tokenizer._tokenizer.add_special_tokens({"pad_token": "!"})
    sign = tokenizer.convert_tokens_to_ids("!")
    ids = [*encode(tokenizer, "ab"), sign, *encode(tokenizer, "<|user|>é"), sign]
    assert assemble(TextAssembler(tokenizer), ids)[0] == "ab!é!"
    assert assemble(TextAssembler(tokenizer, ("!",)), ids)[0] == "ab"
    ends = TokenizerWrapper(tokenizer._tokenizer, eos_token_ids=[sign])
    assert assemble(TextAssembler(ends), ids)[0] == "abé"


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_end_token_of_the_model_has_no_text(kind: str) -> None:
    """An end token that only the model's configuration names is as silent as the tokenizer's own."""
    original = tokenizer_of(kind)
    (comma,) = encode(original, ",") if "byte" in kind else original.convert_tokens_to_ids(["b"])
    tokenizer = TokenizerWrapper(original._tokenizer, eos_token_ids=[comma])
    assert assemble(TextAssembler(tokenizer), [*encode(original, "a"), comma])[0] == "a"


@pytest.mark.parametrize("kind", ["byte-level", "sentencepiece", "sentencepiece, spaces kept"])
def test_ids_beyond_the_vocabulary_have_no_text(kind: str) -> None:
    """A model whose output is padded may draw an id that the tokenizer does not know."""
    tokenizer = tokenizer_of(kind)
    ids = encode(tokenizer, "ab")
    assert assemble(TextAssembler(tokenizer), [*ids, len(tokenizer) + 5, *ids])[0] == decode(tokenizer, ids + ids)


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_text_decodes_in_a_window(kind: str) -> None:
    """Hundreds of tokens, spaces and emoji come out whole: no window boundary shows."""
    tokenizer = tokenizer_of(kind)
    ids = encode(tokenizer, " a b  é😀 \n" * 40)
    assert assemble(TextAssembler(tokenizer), ids)[0] == decode(tokenizer, ids)


def test_endless_garbage_is_not_held_back_for_ever() -> None:
    """The window decoder gives up on bytes that never become a character, so its window stays small."""
    tokenizer = tokenizer_of("byte-level, window")
    (lead,) = tokenizer.convert_tokens_to_ids(["ð"])
    assembler = TextAssembler(tokenizer)
    assert len(replay(assembler, [lead] * 200)) > 150


@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXTS, stop=STOPS, at=st.integers(0, 60))
@settings(deadline=None)
def test_replay_stands_where_the_first_attempt_stood(kind: str, text: str, stop: tuple[str, ...], at: int) -> None:
    """A new assembler that replays the first ids goes on exactly as the one that saw them live."""
    tokenizer = tokenizer_of(kind)
    ids = encode(tokenizer, text)
    live, resumed = TextAssembler(tokenizer, stop), TextAssembler(tokenizer, stop)
    assert replay(resumed, ids[:at]) == replay(live, ids[:at])
    assert [resumed.push(token_id) for token_id in ids[at:]] == [live.push(token_id) for token_id in ids[at:]]
    assert resumed.finish() == live.finish()


@pytest.mark.parametrize("kind", KINDS)
def test_token_text_names_one_token(kind: str) -> None:
    """For log-probabilities each token has a text of its own, special tokens too."""
    tokenizer = tokenizer_of(kind)
    (piece,) = tokenizer.convert_tokens_to_ids(["ab"])
    (special,) = tokenizer.convert_tokens_to_ids(["<|end|>"])
    assert token_text(tokenizer, piece) == "ab"
    assert token_text(tokenizer, special) == "<|end|>"
    assert token_text(tokenizer, encode(tokenizer, "😀")[0 if kind.startswith("byte") else -1]) == "\ufffd"


def test_a_tokenizer_without_a_table_of_added_tokens_is_served() -> None:
    """mistral-common's tokenizers have none and say so; their special ids are complete."""
    original = tokenizer_of("byte-level, window")
    special = original.convert_tokens_to_ids(["<|user|>", "<|end|>"])
    hf = Mock(wraps=original._tokenizer, all_special_ids=special, backend_tokenizer=None)
    type(hf).added_tokens_decoder = PropertyMock(side_effect=NotImplementedError)
    tokenizer = Mock(spec=TokenizerWrapper, eos_token_ids=set(), _tokenizer=hf)
    ids = [*encode(original, "ab"), *special]
    assert assemble(TextAssembler(tokenizer), ids)[0] == "ab"


def test_what_is_shared_ends_with_its_tokenizer() -> None:
    """The shared table does not keep a tokenizer alive."""
    tokenizer = byte_level()
    TextAssembler(tokenizer).push(1)
    gone = weakref.ref(tokenizer)
    del tokenizer
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("stop", "text", "stopped"),
    [
        (("<|user|>",), "ab", True),
        (("zz", "<|user|>", "d"), "ab", True),
        (("b<|user|>",), "a", True),
        (("<|user|>c",), "ab", True),
        (("b<|user|>c", "d"), "a", True),
        (("<|user|>d",), "abcd→", False),
        (("b<|end|>",), "abcd→", False),
        (("b<|user",), "abcd→", False),
        (("<|user|><|user|>",), "abcd→", False),
        (("<|end|>",), "abcd→", False),
        (("→",), "abcd", True),
    ],
)
def test_a_stop_string_may_name_a_special_token(kind: str, stop: tuple[str, ...], text: str, stopped: bool) -> None:
    """Which has no text to be found in; alone, beside text, with others, and never shown where nothing comes of it."""
    tokenizer = tokenizer_of(kind)
    user, arrow = tokenizer.convert_tokens_to_ids(["<|user|>", "→"])
    assembler = TextAssembler(tokenizer, stop)
    said = ""
    letters = ["c", "d"] if kind.startswith("byte") else ["<0x63>", "<0x64>"]
    for token_id in (*encode(tokenizer, "ab"), user, *tokenizer.convert_tokens_to_ids(letters), arrow):
        said += text_of(assembler.push(token_id))
        if assembler.stopped:
            break
    assert (said + text_of(assembler.finish()), assembler.stopped) == (text, stopped)


def test_a_token_that_is_a_stop_string_ends_a_thought() -> None:
    """Text is looked for in the answer alone, but a control token of its own does not occur by chance."""
    tokenizer = tokenizer_of("byte-level")
    form = find_format({}, "<think></think>")
    (user,) = tokenizer.convert_tokens_to_ids(["<|user|>"])
    for stop, ends in ((("<|user|>",), True), (("b",), False)):
        assembler = TextAssembler(tokenizer, stop, form, "<think>")
        pieces = [piece for token_id in (*encode(tokenizer, "ab"), user) for piece in assembler.push(token_id)]
        pieces += assembler.finish()
        assert "".join(piece.text for piece in pieces) == "ab"
        assert {piece.kind for piece in pieces} == {"reasoning"}
        assert assembler.stopped is ends
