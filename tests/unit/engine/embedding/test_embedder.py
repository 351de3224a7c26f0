"""Vectors of tiny random models, held against numpy's in double precision and against mlx-lm's own layers, one text at a time."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
import pytest
from tokenizers import Tokenizer

from tasks.engine.embedding.encoder import Encoder
from tasks.engine.embedding.host_encoder import HostEncoder, attend
from tasks.engine.embedding.model import MlxEmbedder, load_embedder
from tasks.engine.model.layout import elementwise
from tasks.engine.model.loading import load_weights, open_folder
from tasks.errors import ContextExceeded, InvalidRequest, ModelLoadFailed
from tasks.messages.engine import EngineConfig
from tasks.models.reading import LFS_POINTER
from tests.reference_encoder import ReferenceEncoder, read_safetensors
from tests.tiny_encoder import POSITIONS, make_tiny_embedding_decoder, make_tiny_encoder, write_recipe

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

TEXTS = ("the cat sat on a mat", "dog", "the dog ran far, and the cats sat " * 3, "ran far")


def load(folder: Path, **config: Any) -> MlxEmbedder:
    described = EngineConfig(model="m", source=str(folder), **config)
    return load_embedder(described, lambda *_: None, "", open_folder(described, lambda *_: None))


def pooled(hidden: NDArray[np.float64], mode: str) -> NDArray[np.float64]:
    places = np.arange(1, len(hidden) + 1)[:, None]
    ways = {
        "cls_token": lambda: hidden[0],
        "max_tokens": lambda: hidden.max(axis=0),
        "mean_tokens": lambda: hidden.mean(axis=0),
        "mean_sqrt_len_tokens": lambda: hidden.sum(axis=0) / np.sqrt(len(hidden)),
        "weightedmean_tokens": lambda: (hidden * places).sum(axis=0) / places.sum(),
        "lasttoken": lambda: hidden[-1],
    }
    result: NDArray[np.float64] = ways[mode]()
    return result


@pytest.mark.parametrize("model_type", ["bert", "xlm-roberta"])
@pytest.mark.parametrize(
    "modes",
    [
        ("mean_tokens",),
        ("cls_token",),
        ("max_tokens",),
        ("lasttoken",),
        ("weightedmean_tokens",),
        ("mean_tokens", "cls_token"),
    ],
)
def test_a_batch_of_an_encoder_has_the_vectors_of_each_text_alone(
    tmp_path: Path, model_type: str, modes: tuple[str, ...]
) -> None:
    """Texts of different lengths in one batch get the vectors that numpy computes for each of them without padding."""
    folder = make_tiny_encoder(tmp_path, model_type=model_type, pooling=modes, normalise=False)
    embedder = load(folder)
    rows = embedder.rows(TEXTS, None, None)
    reference = ReferenceEncoder(folder)
    in_order = [mode for mode in ("cls_token", *modes) if mode in modes]
    expected = [
        np.concatenate([pooled(reference.hidden(row.ids), mode) for mode in dict.fromkeys(in_order)]) for row in rows
    ]
    np.testing.assert_allclose(embedder.embed(rows), expected, atol=2e-5)


@pytest.mark.parametrize("activation", sorted(elementwise.ACTIVATIONS))
def test_a_cpu_and_a_gpu_compute_the_same(tmp_path: Path, activation: str) -> None:
    """Vectors by numpy, and by MLX: of texts of equal lengths and of others, with types of tokens and without."""
    folder = make_tiny_encoder(tmp_path)
    config = json.loads((folder / "config.json").read_text()) | {"hidden_act": activation}
    lengths = [4, 4, 6, 1]
    ids = mx.array([[4 + n for n in range(length)] + [0] * (6 - length) for length in lengths])
    for types in (None, mx.array([[0, 1, 0, 1, 0, 1]] * 4)):
        by_mlx, by_numpy = (
            np.array(kind(config, [folder / "model.safetensors"])(ids, lengths, types))
            for kind in (Encoder, HostEncoder)
        )
        for row, length in enumerate(lengths):
            np.testing.assert_allclose(by_numpy[row, :length], by_mlx[row, :length], atol=2e-5)


def test_heads_in_turns() -> None:
    """Attention of long texts is computed for some heads, or some texts, at a time, and is what it is for all at once."""
    projected = np.random.default_rng(1).standard_normal((90, 3 * 8), np.float32)
    at_once = attend(projected, [30, 30, 30], heads=4)
    for most_shares in (1, 2_000, 9_000):
        np.testing.assert_allclose(attend(projected, [30, 30, 30], 4, most_shares), at_once, atol=1e-6)


def test_the_gelu_of_a_cpu_is_exact() -> None:
    """It is x·Φ(x) within a few millionths, over several blocks and at both ends."""
    x = np.concatenate(
        [
            np.linspace(-8, 8, 2 * elementwise.BLOCK + 7, dtype=np.float32),
            np.array([-1e3, -100, 0, 100, 1e3], np.float32),
        ]
    )
    exact = [value * 0.5 * (1 + math.erf(value / math.sqrt(2))) for value in x.tolist()]
    np.testing.assert_allclose(elementwise.gelu(x), exact, atol=4e-6, rtol=1e-6)


def test_a_dense_layer_and_the_normalising_are_the_files(tmp_path: Path) -> None:
    """What stands behind the pooling in modules.json is applied, and the vectors have the dense layer's length."""
    folder = make_tiny_encoder(tmp_path, dense=8, prefix="bert.")
    embedder = load(folder)
    rows = embedder.rows(TEXTS, None, None)
    layer = read_safetensors(folder / "2_Dense" / "model.safetensors")
    means = np.array([ReferenceEncoder(folder, "bert.").hidden(row.ids).mean(axis=0) for row in rows])
    expected = np.tanh(means @ layer["linear.weight"].T + layer["linear.bias"])
    assert (embedder.dimensions, embedder.normalised) == (8, True)
    np.testing.assert_allclose(
        embedder.embed(rows), expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-5
    )


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda whole: LFS_POINTER + b"v1\n", "is a Git LFS pointer, not the file itself; run `git lfs pull`"),
        (lambda whole: whole[:-4], r"cut off: \d+ of \d+ bytes; fetch the file again"),
        (lambda whole: whole[:20], "cut off in its header; fetch the file again"),
    ],
)
def test_a_damaged_dense_layer_is_named_as_what_it_is(
    tmp_path: Path, damage: Callable[[bytes], bytes], said: str
) -> None:
    """Its weights are in a file of their own, which no index names."""
    weights = make_tiny_encoder(tmp_path, dense=8) / "2_Dense" / "model.safetensors"
    weights.write_bytes(damage(weights.read_bytes()))
    with pytest.raises(ModelLoadFailed, match=rf"^{weights}: {said}"):
        load(tmp_path)


@pytest.mark.parametrize("headless", [False, True])
def test_a_decoder_gives_the_last_tokens_vector(tmp_path: Path, headless: bool) -> None:
    """In a padded batch, and in pieces where a text is long, it is what mlx-lm's layers give for the text alone."""
    folder = make_tiny_embedding_decoder(tmp_path / "model", headless=headless)
    described = EngineConfig(model="m", source=str(make_tiny_embedding_decoder(tmp_path / "bare")))
    bare: Any = load_weights(open_folder(described, lambda *_: None), described)
    embedder = load(folder)
    rows = embedder.rows(TEXTS, None, None)
    expected = np.array([np.array(bare.model(mx.array([row.ids]))[0, -1]) for row in rows])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(embedder.embed(rows), expected, atol=1e-5)


@pytest.mark.parametrize("said", [{"use_bidirectional_attention": True}, {"is_causal": False}])
def test_a_decoder_that_sees_later_tokens_is_refused(tmp_path: Path, said: dict[str, Any]) -> None:
    """mlx-lm has causal masks alone: the vectors would be others than those that the model was trained for."""
    with pytest.raises(ModelLoadFailed, match="attention to later tokens, which mlx-lm does not compute"):
        load(make_tiny_embedding_decoder(tmp_path, **said))


def test_a_text_longer_than_a_piece_is_computed_with_its_cache(tmp_path: Path) -> None:
    """The pieces of a long text see those before them: its vector is that of one pass."""
    folder = make_tiny_embedding_decoder(tmp_path)
    embedder = load(folder)
    rows = embedder.rows(TEXTS, None, None)
    whole = embedder.embed(rows)
    embedder._body._piece_tokens = 16  # type: ignore[union-attr]
    np.testing.assert_allclose(embedder.embed(rows), whole, atol=1e-5)


def test_the_tokenizers_own_cutting_and_padding_are_off(tmp_path: Path) -> None:
    """Published files cut at 128 tokens and pad to as many: a long text keeps its end, a short one stays short."""
    embedder = load(make_tiny_encoder(tmp_path))
    lengths = [len(row.ids) for row in embedder.rows(("the " * 30, "the"), None, None)]
    assert lengths == [32, 3]


def test_prompts_stand_before_texts_and_can_be_left_out_of_the_pooling(tmp_path: Path) -> None:
    """By its type, or as given; where the model's files say so, the prompt's own tokens are not pooled."""
    folder = make_tiny_encoder(tmp_path, normalise=False)
    write_recipe(folder, pooling=("mean_tokens",), normalise=False, prompts={"query": "query: "}, include_prompt=False)
    embedder = load(folder)
    with_type, given, plain = (
        embedder.rows(("dog",), *said)[0] for said in (("query", None), (None, "query: "), (None, None))
    )
    assert with_type == given
    assert (with_type.prompt_tokens, plain.prompt_tokens, len(plain.ids)) == (3, 0, 3)
    hidden = ReferenceEncoder(folder).hidden(with_type.ids)[3:]
    np.testing.assert_allclose(embedder.embed([with_type])[0], hidden.mean(axis=0), atol=1e-5)


def test_what_a_model_cannot_take_is_refused_with_its_place(tmp_path: Path) -> None:
    """A text beyond the context, tokens of another model, and an unknown type each name the input, the value and the remedy."""
    embedder = load(make_tiny_encoder(tmp_path))
    with pytest.raises(
        ContextExceeded, match=rf"input\[1\]: has {POSITIONS + 2} tokens, and the model takes {POSITIONS}"
    ):
        embedder.rows(("the", "the " * POSITIONS), None, None)
    with pytest.raises(InvalidRequest, match=r"input\[0\]: has the token 9999, and the model has \d+"):
        embedder.rows(((5, 9999),), None, None)
    with pytest.raises(
        InvalidRequest, match=r"input_type='query': the model has no prompt of this name \(it has: none\)"
    ):
        embedder.rows(("the",), "query", None)


@pytest.mark.parametrize("make", [make_tiny_encoder, make_tiny_embedding_decoder])
def test_a_token_that_the_model_has_no_vector_for(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    """A tokenizer with more tokens than the model: such a text is refused, and gets no vector of whatever lies there."""
    folder = make(tmp_path)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    known = tokenizer.get_vocab_size()
    tokenizer.add_tokens(["zebra"])
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(
        InvalidRequest, match=rf"input\[1\]: has the token {known}, and the model has {known}: use its own"
    ):
        load(folder).rows(("a", "a zebra"), None, None)


def test_a_vocabulary_with_holes(tmp_path: Path) -> None:
    """A token behind a hole has a larger id than there are tokens."""
    folder = make_tiny_encoder(tmp_path, vocab_size=64)
    path = folder / "tokenizer.json"
    described = json.loads(path.read_text())
    described["model"]["vocab"]["far"] = 50
    path.write_text(json.dumps(described))
    embedder = load(folder)
    (row,) = embedder.rows(("far",), None, None)
    assert 50 in row.ids
    assert np.isfinite(embedder.embed([row])).all()


def test_an_encoder_without_a_pooling_is_not_guessed_at(tmp_path: Path) -> None:
    """The error says which file is missing; so it does for a pooling that nobody knows, and for missing weights."""
    folder = make_tiny_encoder(tmp_path)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": "attention"}))
    with pytest.raises(
        ModelLoadFailed, match=r"1_Pooling.config\.json: names 'attention' and no pooling that is known"
    ):
        load(folder)
    (folder / "modules.json").unlink()
    with pytest.raises(ModelLoadFailed, match=r"generates nothing, and no file says how .* add modules\.json"):
        load(folder)
    write_recipe(folder, pooling=("mean_tokens",))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(
        ModelLoadFailed, match=r"lack encoder\.layer\.2\.attention\.output\.LayerNorm\.weight and 15 more"
    ):
        load(folder)
