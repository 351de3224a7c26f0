"""The states of recurrent layers, whose size does not depend on how many tokens they have seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any


class State(NamedTuple):
    """Values that one layer keeps of a row: ``values`` as wide as the model's own, ``wide_values`` in 32 bits."""

    values: int = 0
    wide_values: int = 0

    def __bool__(self) -> bool:
        return bool(self.values or self.wide_values)


NO_STATE = State()


class Dimensions(Protocol):
    """A configuration's fields: :class:`tasks.models.kv_cache.dimensions.Dimensions`."""

    linear: Mapping[str, Any]

    def number(self, *names: str, default: int = 0) -> int:
        """The first of these fields that has a positive number."""
        ...

    @property
    def head_dim(self) -> int:
        """The width of a head."""
        ...

    @property
    def kv_heads(self) -> int:
        """Heads that keep keys and values."""
        ...


def _mamba(dims: Dimensions) -> State:
    """The first kind: a convolution's last inputs, and a state for each channel."""
    inner = dims.number("intermediate_size", "d_inner")
    if dims.number("mamba_expand"):
        inner = dims.number("mamba_expand") * dims.number("hidden_size")
    kernel = dims.number("conv_kernel", "d_conv", "mamba_d_conv")
    return State(inner * (kernel - 1 + dims.number("state_size", "d_state", "mamba_d_state")))


def _mamba2(dims: Dimensions) -> State:
    """The second kind: heads, whose states are kept in 32 bits."""
    heads = dims.number("mamba_num_heads", "mamba_n_heads", "num_heads")
    width = dims.number("mamba_head_dim", "mamba_d_head", "hidden_size_per_head", "head_dim")
    state = dims.number("ssm_state_size", "mamba_d_state", "state_size")
    inner = dims.number("mamba_d_ssm", default=heads * width)
    channels = inner + 2 * dims.number("n_groups", "mamba_n_groups") * state
    kernel = dims.number("conv_kernel", "mamba_d_conv")
    return State(channels * (kernel - 1), heads * width * state)


def _plamo2(dims: Dimensions) -> State:
    heads, width = dims.number("mamba_num_heads"), dims.number("hidden_size_per_head")
    return State(heads * width * (dims.number("mamba_d_conv") - 1), heads * width * dims.number("mamba_d_state"))


def _delta(dims: Dimensions) -> State:
    """Gated delta nets: a convolution over keys and values, and a matrix for each head."""
    key, value = dims.number("linear_key_head_dim"), dims.number("linear_value_head_dim")
    key_heads, heads = dims.number("linear_num_key_heads"), dims.number("linear_num_value_heads")
    channels = 2 * key_heads * key + heads * value
    return State(channels * (dims.number("linear_conv_kernel_dim", default=4) - 1), heads * key * value)


def _kda(dims: Dimensions) -> State:
    """Kimi's delta attention."""
    return _kimi_state(
        int(dims.linear.get("num_heads") or 0),
        int(dims.linear.get("head_dim") or 0),
        int(dims.linear.get("short_conv_kernel_size") or 4),
    )


def _kimi_state(heads: int, width: int, kernel: int) -> State:
    return State(3 * heads * width * (kernel - 1), heads * width * width)


def _bailing_v3(dims: Dimensions) -> State:
    return _kimi_state(
        dims.number("num_attention_heads"), dims.head_dim, dims.number("short_conv_kernel_size", default=4)
    )


def _matrix(dims: Dimensions) -> State:
    """Linear attention: a matrix for each head, in 32 bits."""
    return State(0, dims.number("num_attention_heads") * dims.head_dim**2)


def _narrow_matrix(dims: Dimensions) -> State:
    return State(dims.number("num_attention_heads") * dims.head_dim**2)


def _rwkv7(dims: Dimensions) -> State:
    return State(dims.number("hidden_size") * (2 + dims.head_dim))


def _short_conv(dims: Dimensions) -> State:
    """LFM 2: a convolution's last inputs."""
    return State(dims.number("hidden_size") * (dims.number("conv_L_cache", default=3) - 1))


def _gear(dims: Dimensions) -> State:
    return State(2 * dims.kv_heads * dims.head_dim * (dims.number("conv_L_cache", default=3) - 1))


def _griffin(dims: Dimensions) -> State:
    """Recurrent Gemma: a convolution's last inputs and one state."""
    width = dims.number("lru_width", "hidden_size")
    return State(width * dims.number("conv1d_width", default=4))


def _last_keys(dims: Dimensions) -> State:
    """Baichuan M1: the last key and value, for a convolution over two."""
    return State(2 * dims.kv_heads * dims.head_dim)


STATES: dict[str, Callable[[Dimensions], State]] = {
    "baichuan_m1": _last_keys, "bailing_hybrid": _matrix, "bailing_moe_linear": _narrow_matrix,
    "bailing_moe_v3": _bailing_v3, "falcon_h1": _mamba2, "gear": _gear, "granitemoehybrid": _mamba2, "jamba": _mamba,
    "kimi_linear": _kda, "lfm2": _short_conv, "lfm2_moe": _short_conv, "mamba": _mamba, "mamba2": _mamba2,
    "nemotron_h": _mamba2, "olmo_hybrid": _delta, "plamo2": _plamo2, "qwen3_5": _delta, "qwen3_next": _delta,
    "recurrent_gemma": _griffin, "rwkv7": _rwkv7,
}  # fmt: skip
