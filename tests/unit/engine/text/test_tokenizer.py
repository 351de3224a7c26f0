"""Loading a tokenizer: what its own file says counts, whatever class transformers takes for it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.engine.text.detokenizer import streamed_text
from tasks.engine.text.tokenizer import PROBES, load_tokenizer
from tasks.errors import ModelLoadFailed
from tasks.models.special_tokens import read_end_token
from tests.tiny_tokenizers import byte_level, save, sentencepiece, suffixed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mlx_lm.tokenizer_utils import TokenizerWrapper
    from tokenizers import Tokenizer

pytestmark = pytest.mark.xdist_group("mlx")

KINDS: dict[str, Callable[[], Tokenizer]] = {
    "byte-level": byte_level,
    "byte-level, digits apart": lambda: byte_level(digits=True),
    "byte-level, space before": lambda: byte_level(prefix=True),
    "sentencepiece": sentencepiece,
    "sentencepiece, no space before": lambda: sentencepiece(prefix=False),
    "metaspace": lambda: sentencepiece(metaspace=True),
    "metaspace, no space before": lambda: sentencepiece(prefix=False, metaspace=True),
    "odd entries": lambda: sentencepiece(extra=("<0xZZ>", "<0x", "<0x+F>", "<0xé>")),
}
#: Classes that models name, and types of models that have a class of their own in transformers.
CLASSES = ["PreTrainedTokenizerFast", "LlamaTokenizerFast", "GPT2Tokenizer", "Qwen2Tokenizer", "GemmaTokenizer", None]
TYPES = ["llama", "qwen2", "gemma3_text", "gpt_neox", "starcoder2"]


def load(folder: Path, **values: Any) -> TokenizerWrapper:
    return load_tokenizer(folder, **{"trust_remote_code": False, "ends": (), "template": None, **values})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cls", CLASSES)
def test_text_is_read_as_tokenizer_json_says(tmp_path: Path, kind: str, cls: str | None) -> None:
    """With any class, and for any type of model, ids are those of the file, and a stream says what decode says."""
    made = KINDS[kind]()
    for model_type in TYPES:
        tokenizer = load(save(made, tmp_path / model_type, model_type, tokenizer_class=cls))
        for text in PROBES:
            ids = tokenizer.encode(text, add_special_tokens=False)
            assert ids == made.encode(text, add_special_tokens=False).ids, (model_type, text)
            assert streamed_text(tokenizer, ids) == made.decode(ids), (model_type, text)
            assert streamed_text(tokenizer, ids).strip() == text.strip(), (model_type, text)


@pytest.fixture(scope="module", params=[*KINDS, "end of word"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TokenizerWrapper:
    """One of each kind of decoder."""
    made = {**KINDS, "end of word": suffixed}[request.param]()
    return load(save(made, tmp_path_factory.mktemp("any"), tokenizer_class="PreTrainedTokenizerFast"))


@given(data=st.data())
@settings(max_examples=60)
def test_a_stream_of_any_tokens_says_what_decode_says(tokenizer: TokenizerWrapper, data: st.DataObject) -> None:
    """The first space included; runs of single bytes, which a decoder may join otherwise, have tests of their own."""
    known = [n for n in range(len(tokenizer)) if not str(tokenizer.convert_ids_to_tokens(n)).startswith("<0x")]
    ids = data.draw(st.lists(st.sampled_from(known), max_size=40))
    said = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert streamed_text(tokenizer, ids) == said


def test_entries_that_look_like_bytes_are_text(tmp_path: Path) -> None:
    """A byte's token has two hexadecimal digits; anything else that begins like one is what it says."""
    odd = ("<0xZZ>", "<0x", "<0xé>")
    tokenizer = load(save(sentencepiece(extra=odd), tmp_path))
    for entry in odd:
        ids = tokenizer.convert_tokens_to_ids(["▁", "a", entry, "a", "<0xE2>", "<0x82>", "<0xAC>"])
        assert streamed_text(tokenizer, ids) == f"a{entry}a€"


@pytest.mark.parametrize("model_type", ["exaone", "kimi_k2", "nemotron-nas"])
@pytest.mark.parametrize("kind", ["yarn", "llama3"])
def test_a_type_that_transformers_does_not_know_is_loaded(tmp_path: Path, model_type: str, kind: str) -> None:
    """Its rotary scaling fails in transformers' configuration, which a tokenizer does not need."""
    scaling = {
        "rope_type": kind, "factor": 4.0, "original_max_position_embeddings": 32, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
    }  # fmt: skip
    config = {"rope_scaling": scaling, "rope_theta": 10000.0, "max_position_embeddings": 128}
    tokenizer = load(save(byte_level(), tmp_path, model_type, config=config))
    assert tokenizer.decode(tokenizer.encode("a b")) == "a b"


@pytest.mark.parametrize(("kind", "mark"), [("byte-level", "Ġ"), ("sentencepiece", "▁"), ("metaspace", "▁")])
def test_a_file_without_a_decoder_is_given_the_one_of_its_vocabulary(tmp_path: Path, kind: str, mark: str) -> None:
    """Without it the marks of the vocabulary would show in every answer."""
    made = KINDS[kind]()
    assert mark in "".join(made.encode("a b").tokens)
    made.decoder = None
    tokenizer = load(save(made, tmp_path))
    ids = tokenizer.encode("a b\n c", add_special_tokens=False)
    assert streamed_text(tokenizer, ids) == tokenizer.decode(ids) == "a b\n c"


@pytest.mark.parametrize(
    ("lowercase", "said"), [(True, "the cat ' s mat, it is 2."), (False, "The cat ' s mat, it is 2.")]
)
def test_word_pieces(tmp_path: Path, lowercase: bool, said: str) -> None:
    """GPT-2 in Chinese has BERT's tokenizer, whose text comes back in small letters and with spaces around signs."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    signs = [chr(code) for code in range(33, 127)]
    tokens = ["[UNK]", "<s>", "</s>", *signs, *(f"##{sign}" for sign in signs)]
    made = Tokenizer(models.WordPiece({token: number for number, token in enumerate(tokens)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    tokenizer = load(save(made, tmp_path, "gpt2", tokenizer_class="PreTrainedTokenizerFast"))
    ids = tokenizer.encode("The cat's mat, it is 2.", add_special_tokens=False)
    assert streamed_text(tokenizer, ids) == tokenizer.decode(ids) == said


@pytest.mark.parametrize("content", ["{", "[]", "{}", "version https://git-lfs.github.com/spec/v1"])
def test_a_file_that_is_no_tokenizer_is_named(tmp_path: Path, content: str) -> None:
    """The error of transformers says which character or key, and not of which file."""
    folder = save(byte_level(), tmp_path)
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(ModelLoadFailed, match="tokenizer") as raised:
        load(folder)
    assert str(tmp_path) in str(raised.value)


EMPTY = {
    "config": {"pattern": ".", "num_vocab_tokens": 3, "default_vocab_size": 3, "default_num_special_tokens": 3},
    "vocab": [],
    "special_tokens": [],
}


@pytest.mark.parametrize(
    ("file", "config", "says"),
    [
        ("tekken.json", {}, "vocabulary is empty; copy the original model's files"),
        ("tiktoken.model", {"auto_map": {"AutoTokenizer": ["own.Own", None]}}, "is code of its own; trust_remote_code"),
    ],
)
def test_vocabularies_that_are_not_read(tmp_path: Path, file: str, config: dict[str, Any], says: str) -> None:
    """One has nothing in it, and would turn every prompt into none; the other, Kimi's, is read by the model's own code."""
    folder = save(byte_level(), tmp_path, **config)
    (folder / "tokenizer.json").unlink()
    (folder / file).write_text(json.dumps(EMPTY))
    (folder / "own.py").write_text("raise SystemExit('executed')")
    with pytest.raises(ModelLoadFailed, match=says) as raised:
        load(folder)
    assert str(tmp_path) in str(raised.value)


def test_a_decoder_that_leaves_out_bytes_is_given_that(tmp_path: Path) -> None:
    """Files of unigram vocabularies have Metaspace's alone, and answers would say ``<0x0A>``."""
    from tokenizers import decoders

    made = sentencepiece(metaspace=True)
    made.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer = load(save(made, tmp_path))
    ids = tokenizer.encode("a b\n \u20ac", add_special_tokens=False)
    assert streamed_text(tokenizer, ids) == tokenizer.decode(ids) == "a b\n \u20ac"


def test_a_tokenizer_that_runs_words_together_is_refused(tmp_path: Path) -> None:
    """The error shows what becomes of a text, and says what to do."""
    from tokenizers import pre_tokenizers

    made = byte_level()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    with pytest.raises(ModelLoadFailed, match=r"'Thecatsaton2mats\.'.*tokenizer_class") as raised:
        load(save(made, tmp_path))
    assert str(tmp_path) in str(raised.value)


def test_marks_in_decoded_text_are_refused(tmp_path: Path) -> None:
    """A decoder of another vocabulary leaves them there."""
    from tokenizers import decoders

    with pytest.raises(ModelLoadFailed, match="Ġ"):
        load(save(byte_level(decoder=decoders.Fuse()), tmp_path))


def test_a_class_that_changes_decoded_text_is_streamed_as_it_decodes(tmp_path: Path) -> None:
    """mlx-lm's own class puts line ends in the place of a token, after the decoder has said its part."""
    from tokenizers import AddedToken

    made = sentencepiece(prefix=False)
    made.add_tokens([AddedToken("<n>", normalized=False)])
    tokenizer = load(save(made, tmp_path, tokenizer_class="NewlineTokenizer"))
    ids = tokenizer.encode("a\nb\n\nc", add_special_tokens=False)
    assert made.decode(ids) == "a<n>b<n><n>c"
    assert streamed_text(tokenizer, ids) == tokenizer.decode(ids) == "a\nb\n\nc"


def test_a_tokenizer_whose_text_changes_behind_a_stream_is_refused(tmp_path: Path) -> None:
    """Here the mark of a line end takes three tokens, so its beginning would be sent before it is known."""
    with pytest.raises(ModelLoadFailed, match="cannot be streamed"):
        load(save(sentencepiece(), tmp_path, tokenizer_class="NewlineTokenizer"))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_json_as_editors_of_windows_write_it(tmp_path: Path, encoding: str) -> None:
    """transformers reads none that begins with a byte order mark."""
    folder = save(byte_level(), tmp_path)
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": "</s>"}))
    for path in folder.glob("*.json"):
        path.write_text(json.dumps(json.loads(path.read_text()), indent=1).replace("\n", "\r\n"), encoding)
    assert load(folder).eos_token == "</s>"
    path = folder / "tokenizer.json"
    path.write_text("{,}", encoding)
    with pytest.raises(ModelLoadFailed, match=str(path)):
        load(folder)


@pytest.mark.parametrize(
    "described",
    [
        {"eos_token": {"content": "</s>", "lstrip": False, "normalized": True}},
        {"additional_special_tokens": ["<s>", {"content": "</s>", "lstrip": False}]},
        {"model_max_length": "1e30"},
        {"split_special_tokens": True},
        {"bos_token": "", "unk_token": {"content": ""}, "additional_special_tokens": ["", "<s>"]},
    ],
)
@pytest.mark.parametrize("cls", [None, "Qwen2Tokenizer"])
def test_fields_that_transformers_fails_with(tmp_path: Path, described: dict[str, Any], cls: str | None) -> None:
    """Tokens as objects without a type or without a text, a bound as text; and one that would cut a template's own tokens
    into letters. The same where the file goes before the class."""
    tokenizer = load(save(byte_level(), tmp_path, tokenizer_class=cls, **described))
    assert tokenizer.bos_token is None
    assert tokenizer.encode("</s>", add_special_tokens=False) == tokenizer.convert_tokens_to_ids(["</s>"])
    assert tokenizer.eos_token == "</s>"


def test_an_end_token_in_the_older_file(tmp_path: Path) -> None:
    """transformers does not look there where tokenizer_config.json lists the added tokens; a damaged one is named."""
    added = {"258": {"content": "</s>", "special": True}}
    folder = save(byte_level(), tmp_path, eos_token=None, added_tokens_decoder=added)
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": {"content": "</s>"}}))
    assert load(folder).eos_token_ids == {load(folder).convert_tokens_to_ids("</s>")}
    assert read_end_token(folder) == ("</s>", "special_tokens_map.json")
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "special_tokens_map.json").write_text("{,}")
    with pytest.raises(ModelLoadFailed, match=r"special_tokens_map\.json: not valid JSON"):
        load(folder)


def test_an_empty_text_is_no_token(tmp_path: Path) -> None:
    """In the older file too, which goes before the other one: that one's token counts."""
    folder = save(byte_level(), tmp_path)
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": "", "unk_token": "", "bos_token": "<s>"}))
    tokenizer = load(folder)
    assert (tokenizer.eos_token, tokenizer.unk_token, tokenizer.bos_token) == ("</s>", None, "<s>")
    assert streamed_text(tokenizer, tokenizer.encode("a b", add_special_tokens=False)) == "a b"


def test_end_tokens_come_from_the_model_and_from_the_tokenizer(tmp_path: Path) -> None:
    """By id and by text; a text that is no token is left out."""
    folder = save(byte_level(), tmp_path)
    tokenizer = load(folder, ends=(7, "<s>", "<nothing>"))
    assert tokenizer.eos_token_ids == {7, *tokenizer.convert_tokens_to_ids(["<s>", "</s>"])}
    assert load(save(byte_level(), tmp_path / "none", eos_token=None)).eos_token_ids == set()
