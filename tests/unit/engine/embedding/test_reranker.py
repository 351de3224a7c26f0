"""Scores of tiny random cross-encoders, held against numpy's in double precision, one pair at a time."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from benchmarks.parts.tiny_model import write_safetensors
from tasks.engine.embedding.pairs import PairTokens
from tasks.engine.embedding.reranker import MlxReranker, load_reranker
from tasks.engine.embedding.texts import prepare_texts
from tasks.engine.model.loading import open_folder
from tasks.errors import ContextExceeded, GenerationError, InvalidRequest, ModelLoadFailed
from tasks.messages.embedding import Embed, Rerank
from tasks.messages.engine import EngineConfig, Started, Submit
from tests.reference_encoder import ReferenceEncoder
from tests.tiny_encoder import BERT_SPECIAL, POSITIONS, WORDS, make_tiny_cross_encoder, read_weights

if TYPE_CHECKING:
    from pathlib import Path

QUERY = "the cat"
DOCUMENTS = ("the cat sat on a mat", "dog", "the dog ran far on a mat", "a")
IDS = {word: number for number, word in enumerate((*BERT_SPECIAL, *WORDS))}


def load(folder: Path) -> MlxReranker:
    described = EngineConfig(model="m", source=str(folder))
    return load_reranker(described, lambda *_: None, "", open_folder(described, lambda *_: None))


def configure(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def ask(query: str = QUERY, documents: tuple[str, ...] = DOCUMENTS) -> Rerank:
    return Rerank(task_id="t", query=query, documents=documents)


def bert_pair(query: str, document: str) -> tuple[list[int], list[int]]:
    """The tokens of a pair as BERT's authors put them together, and the types of both texts."""
    first = [IDS["[CLS]"], *(IDS[word] for word in query.split()), IDS["[SEP]"]]
    second = [*(IDS[word] for word in document.split()), IDS["[SEP]"]]
    return first + second, [0] * len(first) + [1] * len(second)


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def test_the_scores_of_a_bert_are_numpys(tmp_path: Path) -> None:
    """Documents of different lengths in one padded batch get the score that numpy computes for each pair alone."""
    folder = make_tiny_cross_encoder(tmp_path)
    reranker, reference = load(folder), ReferenceEncoder(folder, "bert.")
    alone = [sigmoid(reference.logit(*bert_pair(QUERY, document))) for document in DOCUMENTS]
    rows = reranker.prepare(ask())
    assert [(row.ids, row.types) for row in rows] == [bert_pair(QUERY, document) for document in DOCUMENTS]
    np.testing.assert_allclose(reranker.embed(rows)[:, 0], alone, atol=1e-5)
    assert len(set(alone)) == len(DOCUMENTS)
    np.testing.assert_allclose([reranker.embed([row])[0, 0] for row in rows], alone, atol=1e-5)


def test_the_scores_of_an_xlm_roberta_are_numpys(tmp_path: Path) -> None:
    """Its head stands under other names, its pairs have two tokens between the texts, and types mean nothing."""
    folder = make_tiny_cross_encoder(tmp_path, model_type="xlm-roberta")
    reranker, reference = load(folder), ReferenceEncoder(folder, "roberta.")
    rows = reranker.prepare(ask())
    assert rows[1].ids.count(2) == 3
    alone = [sigmoid(reference.logit(row.ids)) for row in rows]
    np.testing.assert_allclose(reranker.embed(rows)[:, 0], alone, atol=1e-5)


@pytest.mark.parametrize(
    "noted",
    [
        {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}},
        {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"},
    ],
)
def test_the_activation_is_the_files(tmp_path: Path, noted: dict[str, Any]) -> None:
    """A model that was trained for logits gives logits."""
    folder = make_tiny_cross_encoder(tmp_path)
    configure(folder, **noted)
    reranker = load(folder)
    logit = ReferenceEncoder(folder, "bert.").logit(*bert_pair(QUERY, "dog"))
    score = reranker.embed(reranker.prepare(ask(documents=("dog",))))[0, 0]
    assert score == pytest.approx(logit, abs=1e-4)


def test_special_tokens_in_a_document_are_text(tmp_path: Path) -> None:
    """A separator that a document writes begins no third text: not by the tokenizer's rules, nor by pieces of its vocabulary."""
    tokens = PairTokens(make_tiny_cross_encoder(tmp_path), POSITIONS, 10**6)
    (row,) = tokens.rows("the [SEP] cat", ["sat [SEP] the cat [CLS]"])
    assert row.ids.count(IDS["[SEP]"]) == 2
    assert row.ids.count(IDS["[CLS]"]) == 1
    pieces = [("<s>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((char, -5.0) for char in "\u2581abcst<>/")]
    made = Tokenizer(models.Unigram(pieces, unk_id=2))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    made.add_special_tokens(["<s>", "</s>", "<unk>"])
    ends: Any = [("<s>", 0), ("</s>", 1)]
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=ends
    )
    made.save(str(tmp_path / "tokenizer.json"))
    (row,) = PairTokens(tmp_path, POSITIONS, 10**6).rows("a", ["s</s>t"])
    said = [made.id_to_token(token_id) for token_id in row.ids]
    assert said == ["<s>", "\u2581", "a", "</s>", "</s>", "\u2581", "s", "<unk>", "t", "</s>"]


def test_a_document_that_is_too_long_loses_its_end_with_a_warning(tmp_path: Path) -> None:
    """The query and the tokens that end a pair stay, and the request's start says what was left out."""
    reranker = load(make_tiny_cross_encoder(tmp_path))
    long = "dog " * 70
    texts = prepare_texts(0, ask(documents=("dog", long)), reranker)
    assert (texts.rows[1].ids, texts.rows[1].types) == bert_pair(QUERY, "dog " * (POSITIONS - 5))
    started = texts.start()
    assert isinstance(started, Started)
    assert started.warnings == (
        "documents[1]: 11 of its 70 tokens, at its end, were left out: the model takes 64 with the query; send shorter pieces",
    )
    with pytest.raises(ContextExceeded, match=r"query: has 70 tokens, and the model takes 64"):
        reranker.prepare(ask(query=long))


def test_a_token_that_the_model_has_no_vector_for(tmp_path: Path) -> None:
    """Its tokenizer has more tokens: the pair is refused with its document."""
    folder = make_tiny_cross_encoder(tmp_path)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens(["zebra"])
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(InvalidRequest, match=r"query, documents\[1\]: has the token \d+, and the model has \d+"):
        load(folder).prepare(ask(documents=("dog", "zebra")))


@pytest.mark.parametrize(
    "work", [Embed(task_id="t", inputs=("a",)), Submit(task_id="t", messages=None, prompt="a", max_tokens=1)]
)
def test_it_does_nothing_else(tmp_path: Path, work: Any) -> None:
    """Vectors and text are refused with the remedy."""
    reranker = load(make_tiny_cross_encoder(tmp_path))
    with pytest.raises(InvalidRequest, match=r"generates nothing and makes no vectors: use rerank"):
        reranker.prepare(work)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"id2label": {"0": "no", "1": "yes"}}, r"BertForSequenceClassification with 2 labels is a classifier"),
        ({"id2label": None}, r"with 2 labels is a classifier"),
        ({"id2label": None, "num_labels": 1, "sentence_transformers": {"activation_fn": "torch.nn.Tanh"}}, r"'torch\.nn\.Tanh'"),
        ({"architectures": ["BertModel"]}, r"no file says how the vectors of its tokens become one"),
    ],
)  # fmt: skip
def test_what_is_no_cross_encoder_is_not_guessed_at(tmp_path: Path, values: dict[str, Any], said: str) -> None:
    """The configuration alone decides, and the error says what is missing."""
    folder = make_tiny_cross_encoder(tmp_path)
    configure(folder, **values)
    with pytest.raises(ModelLoadFailed, match=said):
        load(folder)


def test_a_head_that_is_missing_or_too_wide_is_an_error(tmp_path: Path) -> None:
    """A file that config.json does not describe is refused when it is loaded."""
    folder = make_tiny_cross_encoder(tmp_path, labels=3)
    configure(folder, id2label={"0": "L0"})
    with pytest.raises(ModelLoadFailed, match=r"classifier\.weight has 3 labels"):
        load(folder)
    weights = {name: tensor for name, tensor in read_weights(folder).items() if not name.startswith("classifier")}
    write_safetensors(folder / "model.safetensors", weights)
    with pytest.raises(GenerationError, match=r"the weights lack classifier\.weight"):
        load(folder)


def test_a_model_with_a_pooling_embeds(tmp_path: Path) -> None:
    """Files that make one vector of a text go before the name of a head in config.json."""
    folder = make_tiny_cross_encoder(tmp_path)
    listed = [
        {"type": f"models.{kind}", "path": path} for kind, path in (("Transformer", ""), ("Pooling", "1_Pooling"))
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    described = EngineConfig(model="m", source=str(folder))
    recipe = open_folder(described, lambda *_: None).recipe
    assert recipe is not None
    assert type(recipe).__name__ == "EmbeddingRecipe"
