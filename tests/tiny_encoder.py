"""Embedding models that are made in well under a second: random encoders of BERT's family, and decoders with a pooling."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from benchmarks.parts.tiny_model import make_tiny_model, write_safetensors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

WORDS = ("the", "cat", "sat", "on", "a", "mat", "query", "passage", ":", "dog", "ran", "far", "##s", "##ed")
BERT_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
#: As RoBERTa's family orders them: the padding token's id is 1.
ROBERTA_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
POSITIONS = 64


def make_tiny_encoder(
    folder: Path,
    *,
    model_type: str = "bert",
    pooling: Sequence[str] = ("mean_tokens",),
    normalise: bool = True,
    dense: int | None = None,
    prefix: str = "",
    seed: int = 0,
    **config: Any,
) -> Path:
    """Write a random encoder with its sentence-transformers files into ``folder``, and return it.

    ``dense`` adds a dense layer to so many numbers, ``prefix`` stands before the names of weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    is_bert = model_type == "bert"
    vocabulary = _write_word_pieces(folder, BERT_SPECIAL if is_bert else ROBERTA_SPECIAL)
    described = {
        "model_type": model_type,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12 if is_bert else 1e-5,
        "max_position_embeddings": POSITIONS + (0 if is_bert else 2),
        "pad_token_id": 0 if is_bert else 1,
        "type_vocab_size": 2 if is_bert else 1,
        "vocab_size": vocabulary,
        **config,
    }
    (folder / "config.json").write_text(json.dumps(described))
    weights = _encoder_weights(described, seed)
    write_safetensors(folder / "model.safetensors", {f"{prefix}{name}": tensor for name, tensor in weights.items()})
    write_recipe(folder, pooling=pooling, normalise=normalise, dense=dense, width=32, seed=seed)
    return folder


def make_tiny_cross_encoder(folder: Path, *, labels: int = 1, **options: Any) -> Path:
    """Write a random encoder with a classifier of so many labels, as transformers' classes save it; ``options`` as above."""
    import numpy as np

    is_bert = options.get("model_type", "bert") == "bert"
    make_tiny_encoder(folder, prefix="bert." if is_bert else "roberta.", **options)
    (folder / "modules.json").unlink()
    path = folder / "config.json"
    name = {"bert": "Bert", "xlm-roberta": "XLMRoberta"}[options.get("model_type", "bert")]
    head = {"architectures": [f"{name}ForSequenceClassification"], "id2label": {n: f"L{n}" for n in range(labels)}}
    path.write_text(json.dumps({**json.loads(path.read_text()), **head}))
    draw = np.random.default_rng(9)
    layer = "classifier" if is_bert else "classifier.out_proj"
    shapes = {f"{layer}.weight": (labels, 32), f"{layer}.bias": (labels,)}
    dense = "bert.pooler.dense" if is_bert else "classifier.dense"
    shapes |= {f"{dense}.weight": (32, 32), f"{dense}.bias": (32,)}
    weights = read_weights(folder) | {
        key: draw.normal(0, 0.3, shape).astype(np.float32) for key, shape in shapes.items()
    }
    write_safetensors(folder / "model.safetensors", weights)
    return folder


def read_weights(folder: Path) -> dict[str, Any]:
    """The tensors of a folder's weights, as numpy's."""
    import mlx.core as mx
    import numpy as np

    stored = cast("dict[str, mx.array]", mx.load(str(folder / "model.safetensors")))
    return {name: np.array(array) for name, array in stored.items()}


def make_tiny_embedding_decoder(folder: Path, *, headless: bool = False, **options: Any) -> Path:
    """Write a random decoder with last-token pooling; ``headless`` names its weights as a body alone is saved."""
    make_tiny_model(folder, **options)
    if headless:
        import mlx.core as mx

        path = str(folder / "model.safetensors")
        weights = {name.removeprefix("model."): array for name, array in cast("dict[str, Any]", mx.load(path)).items()}
        mx.save_safetensors(path, weights)
    write_recipe(folder, pooling=("lasttoken",), normalise=True)
    return folder


def write_recipe(
    folder: Path,
    *,
    pooling: Sequence[str],
    normalise: bool = True,
    dense: int | None = None,
    width: int = 0,
    seed: int = 0,
    prompts: Mapping[str, str] | None = None,
    include_prompt: bool = True,
) -> None:
    """Write the files by which sentence-transformers pools; the names of ``pooling`` are those of its switches."""
    import numpy as np

    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    (folder / "1_Pooling").mkdir(exist_ok=True)
    switches = {f"pooling_mode_{name}": True for name in pooling}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({**switches, "include_prompt": include_prompt}))
    if dense is not None:
        modules.append(("2_Dense", "Dense"))
        (folder / "2_Dense").mkdir(exist_ok=True)
        layer = {"in_features": width, "out_features": dense, "activation_function": "torch.nn.modules.activation.Tanh"}
        (folder / "2_Dense" / "config.json").write_text(json.dumps(layer))
        draw = np.random.default_rng(seed + 1)
        weights = {"linear.weight": draw.normal(0, 0.2, (dense, width)), "linear.bias": draw.normal(0, 0.2, dense)}
        write_safetensors(
            folder / "2_Dense" / "model.safetensors",
            {name: tensor.astype(np.float32) for name, tensor in weights.items()},
        )
    if normalise:
        modules.append((f"{len(modules)}_Normalize", "Normalize"))
    listed = [
        {"idx": n, "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (path, kind) in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    if prompts is not None:
        (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": dict(prompts)}))


def _write_word_pieces(folder: Path, special: Sequence[str]) -> int:
    """A word-piece tokenizer that cuts and pads, as published files of sentence-transformers' do."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    letters = [chr(ord("a") + n) for n in range(26)]
    tokens = [
        *special,
        *WORDS,
        *(letter for letter in letters if letter not in WORDS),
        *(f"##{letter}" for letter in letters),
    ]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    begin, end, unknown = ("[CLS]", "[SEP]", "[UNK]") if "[CLS]" in special else ("<s>", "</s>", "<unk>")
    tokenizer = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}",
        pair=f"{begin} $A {end} $B:1 {end}:1" if begin == "[CLS]" else f"{begin} $A {end} {end} $B {end}",
        special_tokens=[(begin, vocabulary[begin]), (end, vocabulary[end])],
    )
    tokenizer.add_special_tokens(list(special))
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": POSITIONS}))
    return int(tokenizer.get_vocab_size())


def _encoder_weights(config: dict[str, Any], seed: int) -> dict[str, Any]:
    import numpy as np

    draw = np.random.default_rng(seed)
    width, wide = config["hidden_size"], config["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], width),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], width),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], width),
        "embeddings.LayerNorm.weight": (width,),
        "embeddings.LayerNorm.bias": (width,),
    }
    for number in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{number}"
        linears = {f"attention.self.{part}": (width, width) for part in ("query", "key", "value")}
        linears |= {
            "attention.output.dense": (width, width),
            "intermediate.dense": (wide, width),
            "output.dense": (width, wide),
        }
        for name, shape in linears.items():
            shapes |= {f"{layer}.{name}.weight": shape, f"{layer}.{name}.bias": shape[:1]}
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {f"{layer}.{name}.weight": (width,), f"{layer}.{name}.bias": (width,)}
    shapes["pooler.dense.weight"] = (width, width)
    return {name: draw.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
