"""Weights with which any of mlx-lm's architectures says a script: random ones, but for embeddings, head and the last MLP.

An embedding is one-hot. The last MLP has a unit for each token, which adds the token that follows; everything else adds noise,
so that masks, caches and positions have their say in the logits and none in the greedy answer. A token of two followers has
a second unit, which counts for more once a certain token, the turn, is in the context: attention says whether it is, by the
mean of all places.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm import utils

if TYPE_CHECKING:
    from collections.abc import Sequence

GATE, VOTE, MEMORY = 0.1, 4.0, 5.0
#: The deviation of random weights; what attention remembers of a turn is small, and bears less.
NOISE, LESS_NOISE = 0.01, 0.001
#: Gemma's norms behind a layer add one to their weights, and would make noise as loud as the script.
QUIET = -0.95
_LAYER = re.compile(r"layers\.(\d+)\.")


@dataclass(frozen=True)
class Script:
    """Tokens to say: what follows each, and what follows some of them behind the token ``turn``.

    Args:
        ids: the tokens, the one that ends the answer last.
        turn: behind it a token may come again; ``None``: none does.
        vocabulary: how many tokens there are.
    """

    ids: Sequence[int]
    turn: int | None
    vocabulary: int

    def following(self) -> dict[int, int]:
        """What follows each token of the vocabulary; the script begins behind all that it does not have."""
        first = dict(reversed(list(zip(self.ids, self.ids[1:], strict=False))))
        return {token: first.get(token, self.ids[0]) for token in range(self.vocabulary)}

    def afterwards(self) -> dict[int, int]:
        """What follows tokens that come a second time.

        Raises:
            ValueError: one does without a turn between.
        """
        steps = list(zip(self.ids, self.ids[1:], strict=False))
        again = [at for at, (token, _) in enumerate(steps) if token in self.ids[:at]]
        turn = self.ids.index(self.turn) if self.turn is not None else len(self.ids)
        if again and (again[0] < turn or len({steps[at][0] for at in again}) < len(again)):
            raise ValueError(f"the script has a token twice: {steps[again[0]][0]}")
        return {steps[at][0]: steps[at][1] for at in again}


def scripted(config: dict[str, Any], script: Script) -> dict[str, mx.array]:
    """The tensors of a model with this config.json."""
    model_class, arguments = utils._get_classes(config)
    model = model_class(arguments.from_dict(config))
    shapes = {name: tuple(array.shape) for name, array in tree_flatten(model.parameters())}
    last = max(int(found[1]) for found in map(_LAYER.search, shapes) if found)
    kept = {name: np.array(array) for name, array in tree_flatten(model.parameters()) if "norm" in name}
    if any("pre_feedforward" in name for name in kept):
        loud = f"layers.{last}.post_feedforward"
        kept |= {name: np.full_like(kept[name], QUIET) for name in kept if ".post_" in name and loud not in name}
    noise = NOISE if script.turn is None else LESS_NOISE
    draw = np.random.default_rng(0)
    tensors = {}
    for name, shape in sorted(shapes.items()):
        array = kept.get(name, draw.normal(0, noise, shape))
        if name.endswith(("embed_tokens.weight", "lm_head.weight")):
            array = np.eye(*shape)
        elif f"layers.{last}." in name:
            array = _scripted(name, shape, script, array)
        tensors[name] = mx.array(array.astype(np.float32))
    return tensors


def _scripted(name: str, shape: tuple[int, ...], script: Script, noise: Any) -> Any:
    """A tensor of the last layer."""
    if ".mlp." in name and "_proj" in name:
        return _perceptron(name, shape, script)
    return _memory(name, shape, script, noise) if script.turn is not None and "self_attn" in name else noise


def _perceptron(name: str, shape: tuple[int, ...], script: Script) -> Any:
    array = np.zeros(shape)
    if name.endswith(".bias"):
        return array
    units = range(script.vocabulary, script.vocabulary + len(script.afterwards()))
    again = list(zip(units, script.afterwards().items(), strict=True))
    if "down_proj" in name:
        for token, following in script.following().items():
            array[..., following, token] = VOTE
        for unit, (_, following) in again:
            array[..., following, unit] = VOTE
        return array
    width = shape[-1]
    halves = [array[..., :width, :], array[..., width:, :]] if "gate_up" in name else [array]
    for half in halves:
        half[..., range(script.vocabulary), range(script.vocabulary)] = GATE
        for unit, (token, _) in again:
            half[..., unit, width - 1 if "up_proj" in name else token] = 1.0 if "up_proj" in name else GATE
    return array


def _memory(name: str, shape: tuple[int, ...], script: Script, noise: Any) -> Any:
    """Attention that puts the share of the turn among all tokens into the last place of the residual."""
    if "k_proj" in name:
        return noise
    array = np.zeros(shape)
    if name.endswith("v_proj.weight"):
        array[0, script.turn] = 1.0
    elif name.endswith("o_proj.weight"):
        array[-1, 0] = MEMORY
    elif name.endswith("sinks"):
        array -= 30.0  # no place beside the tokens'
    return array
