"""Guesses parameters and bits from a model's name. The last resort: names are loose.

What misleads: ``4bit`` is no 4B; ``13b`` holds "3b"; the experts of ``8x7B`` share their attention; ``A3B`` is what a
mixture uses for one token, ``E4B`` what Gemma 3n calls effective; ``v0.3``, ``2407``, ``128k`` and ``1M`` (a context)
are no sizes; ``Phi-3-mini`` and ``GLM-4.7`` name none.
"""

from __future__ import annotations

import re
from functools import partial

#: Parameters of an expert mixture named N×M, as a share of N·M: Mixtral 8x7B has 46.7 of 56, 8x22B 141 of 176.
MIXTURE_SHARE = 0.83
#: Gemma 3n and 4 keep about half of their parameters (per-layer embeddings) out of the effective count: E4B has 7.8 B.
EFFECTIVE_FACTOR = 2.0
#: Scales and biases of mlx's affine quantisation: two 16-bit numbers for each group of 64 weights.
QUANTISATION_BITS = 0.5

_compile = partial(re.compile, flags=re.ASCII)

# Families whose names tell no size, or the wrong one, in billions; the first that matches wins. From their model cards.
_FAMILIES: tuple[tuple[re.Pattern[str], float], ...] = tuple(
    (_compile(pattern), billions)
    for pattern, billions in (
        (r"mixtral-8x7b", 46.7),
        (r"mixtral-8x22b", 141.0),
        (r"llama-4-scout", 109.0),
        (r"llama-4-maverick", 402.0),
        (r"gemma-3n-e2b", 5.4),
        (r"gemma-3n-e4b", 7.8),
        (r"qwen1\.5-moe-a2\.7b", 14.3),
        (r"hunyuan-a13b", 80.4),
    )
)
_FAMILIES_WITHOUT_NUMBER: tuple[tuple[re.Pattern[str], float], ...] = tuple(
    (_compile(pattern), billions)
    for pattern, billions in (
        (r"phi-3\.5-moe", 41.9),
        (r"phi-(?:3|3\.5|4)-mini", 3.8),
        (r"phi-3-small", 7.4),
        (r"phi-3-medium", 14.0),
        (r"phi-4-multimodal", 5.6),
        (r"phi-4", 14.7),
        (r"phi-2", 2.8),
        (r"phi-1", 1.4),
        (r"mistral-nemo", 12.2),
        (r"mistral-small-instruct-2409", 22.2),
        (r"(?:mistral|magistral|devstral)-small", 23.6),
        (r"mistral-large", 123.0),
        (r"devstral-2", 123.0),
        (r"kimi-vl", 16.4),
        (r"kimi-k2", 1026.0),
        (r"deepseek-(?:coder-)?v2-lite", 15.7),
        (r"deepseek-(?:coder-)?v2", 236.0),
        (r"deepseek-(?:v3|r1)", 671.0),
        (r"glm-4\.5-air", 106.0),
        (r"glm-4\.7-flash", 30.0),
        (r"glm-4\.[567]", 355.0),
        (r"glm-5", 744.0),
        (r"minimax-m2", 229.0),
        (r"minimax-text-01", 456.0),
        (r"granite-4\.0-h-tiny", 6.9),
        (r"granite-4\.0-h-small", 32.2),
        (r"granite-4\.0-(?:h-)?micro", 3.2),
        (r"(?:ling|ring)-mini", 16.3),
        (r"(?:ling|ring)-flash", 103.0),
        (r"(?:ling|ring)-(?:2\.5-)?1t", 1000.0),
        (r"qwen3-coder-next", 79.7),
        (r"command-r-plus", 104.0),
        (r"command-r-08-2024", 32.3),
        (r"command-r(?:-v01)?(?![a-z0-9])", 35.0),
        (r"command-a", 111.0),
        (r"jamba(?:-1\.5)?-mini", 51.6),
        (r"jamba(?:-1\.5)?-large", 398.0),
        (r"solar-pro", 22.1),
        (r"dbrx", 132.0),
        (r"grok-1", 314.0),
        (r"trinity-nano", 6.1),
        (r"trinity-mini", 26.1),
    )
)
_MIXTURE = _compile(r"(?<![a-z0-9.])(\d+)x(\d+(?:\.\d+)?)b(?![a-z0-9])")
# A size: digits, perhaps a fraction, "b" or "m", and then no letter, so that "4bit" is none.
_SIZE = _compile(
    r"(?P<before>(?<![a-z0-9])[a-z]+|)(?<!\d)(?<!\d[._])(?P<number>\d+(?:[._]\d+)?)(?P<unit>[bm])(?![a-z0-9])"
)
_ACTIVE, _EFFECTIVE = "a", "e"

_BITS = _compile(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)[-_]?bits?(?![a-z])")
_NAMED_BITS: tuple[tuple[re.Pattern[str], float], ...] = tuple(
    (_compile(rf"(?<![a-z0-9])(?:{pattern})(?![a-z0-9])"), bits)
    for pattern, bits in (
        ("mxfp4|nvfp4|int4|awq|gptq|dwq|optiq|quantized", 4 + QUANTISATION_BITS),
        ("mxfp8|nvfp8|fp8|f8|int8", 8 + QUANTISATION_BITS),
        ("d?q8(?:_[0k])?", 8 + QUANTISATION_BITS),
        ("d?q6(?:_k)?", 6 + QUANTISATION_BITS),
        ("d?q5(?:_.*)?", 5 + QUANTISATION_BITS),
        ("d?q4(?:_.*)?", 4 + QUANTISATION_BITS),
        ("d?q3(?:_.*)?", 3 + QUANTISATION_BITS),
        ("d?q2(?:_.*)?", 2 + QUANTISATION_BITS),
        ("bf16|fp16|f16|float16", 16.0),
        ("fp32|f32|float32", 32.0),
    )
)
_PUBLISHED_IN_4_BITS = _compile(r"gpt-oss|kimi-k2(?:-thinking|\.)")
_COMMIT = _compile(r"[0-9a-f]{40}")


def parameters_from_name(name: str) -> float | None:
    """Billions of parameters in all, or ``None`` where the name tells nothing.

    Every parameter counts, whether a token uses it or not, since all of them lie in memory: ``30B-A3B`` is 30,
    ``8x7B`` 46.7, Gemma 3n's ``E4B`` 7.8. Of several sizes the largest is the model's (``OLMoE-1B-7B``).
    """
    base = _base(name)
    known = _family(base, _FAMILIES)
    if known is not None:
        return known
    mixture = _MIXTURE.search(base)
    if mixture:
        return int(mixture[1]) * float(mixture[2]) * MIXTURE_SHARE
    sizes = [size for match in _SIZE.finditer(base) if (size := _size(match)) is not None]
    return max(sizes) if sizes else _family(base, _FAMILIES_WITHOUT_NUMBER)


def bits_from_name(name: str) -> float | None:
    """Bits per parameter, scales included, or ``None`` where the name tells nothing."""
    base = _base(name)
    match = _BITS.search(base)
    if match:
        bits = float(match[1])
        return bits + QUANTISATION_BITS if bits <= 8 else bits
    named = _family(base, _NAMED_BITS)
    if named is not None:
        return named
    return 4 + QUANTISATION_BITS if _PUBLISHED_IN_4_BITS.search(base) else None


def _family(base: str, table: tuple[tuple[re.Pattern[str], float], ...]) -> float | None:
    return next((value for pattern, value in table if pattern.search(base)), None)


def _size(match: re.Match[str]) -> float | None:
    if match["before"] == _ACTIVE:
        return None
    billions = float(match["number"].replace("_", ".")) * (1.0 if match["unit"] == "b" else 1e-3)
    return billions * EFFECTIVE_FACTOR if match["before"] == _EFFECTIVE else billions


def _base(name: str) -> str:
    """The part that names the model: the last one, or in the hub's cache the folder above the commit."""
    parts = name.lower().rstrip("/").split("/")
    if len(parts) > 2 and _COMMIT.fullmatch(parts[-1]):
        return parts[-3].rpartition("--")[2]
    return parts[-1]
