"""Reads the authors' settings for generating with a model: sampling defaults, end tokens, and barred tokens.

``generation_config.json`` has all of them. A field of it that is out of bounds is left out rather than refused: other programs
ignore it too, and the request can name its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeGuard

from tasks.models.reading import read_object_if_there

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

FILE = "generation_config.json"
#: No sampling value and no token id is larger; NaN and infinity are not smaller.
MOST = 1e9
#: The characters of a value that are shown.
MOST_CHARACTERS = 40
#: A repetition_context_size that no sequence reaches.
WHOLE_CONTEXT = 10**9

_BOUNDS: dict[str, Callable[[float], bool]] = {
    "temperature": lambda value: value >= 0,
    "top_p": lambda value: 0 < value <= 1,
    "top_k": lambda value: value >= 0 and value == int(value),
    "min_p": lambda value: 0 <= value <= 1,
    "repetition_penalty": lambda value: value > 0,
    "presence_penalty": lambda value: -2 <= value <= 2,
    "frequency_penalty": lambda value: -2 <= value <= 2,
}
#: Fields that change what transformers generates, and nothing here, with the values that ask for nothing.
_NOT_DONE: dict[str, tuple[object, ...]] = {
    "num_beams": (1,),
    "penalty_alpha": (0,),
    "typical_p": (1,),
    "epsilon_cutoff": (0,),
    "eta_cutoff": (0,),
    "top_h": (),
    "no_repeat_ngram_size": (0,),
    "min_length": (0,),
    "min_new_tokens": (0,),
    "max_new_tokens": (),
    "forced_eos_token_id": (),
    "sequence_bias": ({}, []),
    "exponential_decay_length_penalty": (),
    "guidance_scale": (1,),
    "watermarking_config": ({},),
}


@dataclass(frozen=True, slots=True)
class Generation:
    """The authors' word.

    Args:
        sampling: fields of :class:`tasks.messages.engine.Sampling` that they set.
        ends: end tokens, by id or by text.
        ends_said_by: the file and field that has them; empty where none does.
        stops: texts that end an answer.
        barred: ids of tokens that never come.
        barred_first: ids of tokens that no answer begins with.
        not_done: fields that ask for what is not done here, with their values.
    """

    sampling: Mapping[str, float] = field(default_factory=dict)
    ends: tuple[int | str, ...] = ()
    ends_said_by: str = ""
    stops: tuple[str, ...] = ()
    barred: tuple[int, ...] = ()
    barred_first: tuple[int, ...] = ()
    not_done: tuple[str, ...] = ()


def read_generation(folder: Path, config: dict[str, Any]) -> Generation:
    """Sampling defaults, end tokens and barred tokens.

    Raises:
        ModelFilesUnreadable: generation_config.json is damaged.
    """
    generation = read_object_if_there(folder / FILE)
    nested = config.get("text_config")
    # The same order as transformers and mlx-lm: generation_config.json replaces what config.json says.
    places = ((FILE, generation), ("config.json", config), ("config.json: text_config", nested))
    ends = ((_ends(place.get("eos_token_id")), where) for where, place in places if isinstance(place, dict))
    found, said_by = next((pair for pair in ends if pair[0]), ((), ""))
    words = _bad_words(generation.get("bad_words_ids"))
    # As in transformers, where an end token among the bad words is none of them.
    single = (word[0] for word in words if len(word) == 1 and word[0] not in found)
    return Generation(
        sampling=_sampling(generation),
        ends=found,
        ends_said_by=said_by,
        stops=_stops(generation.get("stop_strings")),
        barred=tuple(dict.fromkeys((*_ids(generation.get("suppress_tokens")), *single))),
        barred_first=_ids(generation.get("begin_suppress_tokens")),
        not_done=tuple(_not_done(generation, [word for word in words if len(word) > 1])),
    )


def _not_done(values: Mapping[str, Any], words: list[tuple[int, ...]]) -> Iterator[str]:
    for name, neutral in _NOT_DONE.items():
        if (value := values.get(name)) is not None and value not in neutral:
            yield f"{name} {str(value)[:MOST_CHARACTERS]}"
    if words:
        yield f"bad_words_ids of several tokens ({len(words)})"


def _bad_words(value: Any) -> list[tuple[int, ...]]:
    """Return words as ids, without those that are none."""
    words = value if isinstance(value, list) else []
    return [ids for word in words if (ids := _ids(word)) and isinstance(word, list) and len(ids) == len(word)]


def _sampling(values: Mapping[str, Any]) -> dict[str, float]:
    found = {}
    for name, fits in _BOUNDS.items():
        value = values.get(name)
        if _is_number(value) and fits(value):
            found[name] = int(value) if name == "top_k" else float(value)
    if values.get("do_sample") is False:
        found["temperature"] = 0.0
    if found.get("repetition_penalty", 1.0) != 1.0:
        # transformers looks at all of prompt and answer, where mlx-lm looks at the last few tokens.
        found["repetition_context_size"] = WHOLE_CONTEXT
    return found


def _stops(value: Any) -> tuple[str, ...]:
    """Return the texts of a text or a list; other values are left out."""
    return tuple(dict.fromkeys(entry for entry in _flat(value) if isinstance(entry, str) and entry))


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MOST


def _ends(value: Any) -> tuple[int | str, ...]:
    """Return the ids and token texts of a number, a text or a list; other values are left out."""
    found: list[int | str] = []
    for entry in _flat(value):
        if _is_number(entry) and entry >= 0 and entry == int(entry):
            found.append(int(entry))
        elif isinstance(entry, str) and entry:
            # Digits are an id, as for mlx-lm: most vocabularies have a token of this text, which ends no answer.
            found.append(int(entry) if entry.isdecimal() else entry)
    return tuple(dict.fromkeys(found))


def _ids(value: Any) -> tuple[int, ...]:
    """Token ids out of a number or a list of them."""
    return tuple(entry for entry in _ends(value) if isinstance(entry, int))


def _flat(value: Any) -> Iterator[Any]:
    for entry in value if isinstance(value, list) else [value]:
        yield from entry if isinstance(entry, list) else [entry]
