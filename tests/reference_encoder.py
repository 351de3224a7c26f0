"""BERT in numpy and double precision, one text at a time: what the engine's vectors are held against."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_erf = np.vectorize(math.erf)


def read_safetensors(path: Path) -> dict[str, Array]:
    """The tensors of a file of 32-bit floats and integers, as doubles."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8 : 8 + length])
    types: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "I64": np.dtype("<i8")}
    found = {}
    for name, about in header.items():
        if name != "__metadata__":
            start, end = (8 + length + at for at in about["data_offsets"])
            found[name] = (
                np.frombuffer(data[start:end], types[about["dtype"]]).reshape(about["shape"]).astype(np.float64)
            )
    return found


class ReferenceEncoder:
    """The encoder in a folder."""

    def __init__(self, folder: Path, prefix: str = "") -> None:
        self._config = json.loads((folder / "config.json").read_text())
        self._weights = {
            name.removeprefix(prefix): tensor for name, tensor in read_safetensors(folder / "model.safetensors").items()
        }

    def hidden(self, ids: list[int], types: list[int] | None = None) -> Array:
        """The vectors of one text's tokens, or of a pair's, whose tokens have types."""
        first = 0 if self._config["model_type"] == "bert" else self._config["pad_token_id"] + 1
        tables = [self._weights[f"embeddings.{kind}_embeddings.weight"] for kind in ("word", "position", "token_type")]
        x = self._norm(
            "embeddings.LayerNorm", tables[0][ids] + tables[1][first : first + len(ids)] + tables[2][types or 0]
        )
        for number in range(self._config["num_hidden_layers"]):
            name = f"encoder.layer.{number}"
            x = self._norm(f"{name}.attention.output.LayerNorm", x + self._attention(name, x))
            wide = self._linear(f"{name}.intermediate.dense", x)
            wide = wide * 0.5 * (1 + _erf(wide / math.sqrt(2)))
            x = self._norm(f"{name}.output.LayerNorm", x + self._linear(f"{name}.output.dense", wide))
        return x

    def logit(self, ids: list[int], types: list[int] | None = None) -> float:
        """The one logit of a pair: the first token's vector through the head."""
        is_bert = self._config["model_type"] == "bert"
        first = self.hidden(ids, types)[:1]
        if is_bert:
            return float(self._linear("classifier", np.tanh(self._linear("pooler.dense", first)))[0, 0])
        return float(self._linear("classifier.out_proj", np.tanh(self._linear("classifier.dense", first)))[0, 0])

    def _attention(self, name: str, x: Array) -> Array:
        q, k, v = (self._linear(f"{name}.attention.self.{part}", x) for part in ("query", "key", "value"))
        heads = []
        for part in np.split(np.arange(x.shape[1]), self._config["num_attention_heads"]):
            scores = q[:, part] @ k[:, part].T / math.sqrt(len(part))
            shares = np.exp(scores - scores.max(axis=1, keepdims=True))
            heads.append(shares / shares.sum(axis=1, keepdims=True) @ v[:, part])
        return self._linear(f"{name}.attention.output.dense", np.concatenate(heads, axis=1))

    def _linear(self, name: str, x: Array) -> Array:
        return x @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]

    def _norm(self, name: str, x: Array) -> Array:
        mean, deviation = x.mean(axis=1, keepdims=True), x.var(axis=1, keepdims=True)
        scaled: Array = (x - mean) / np.sqrt(deviation + self._config["layer_norm_eps"])
        result: Array = scaled * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]
        return result


def cosines(left: Array, right: Array) -> Array:
    """The cosine of each pair of rows."""
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    result: Array = (left * right).sum(axis=1) / lengths
    return result
