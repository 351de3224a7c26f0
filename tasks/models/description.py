"""Describes how a model is served, and which file or catalogue entry says so."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.models.context import DEFAULT_CONTEXT_TOKENS, read_context
from tasks.models.embedding import MODULES, PROMPTS, read_recipe
from tasks.models.files import read_model_size
from tasks.models.foreign import CONFIG, read_config
from tasks.models.generation import FILE, WHOLE_CONTEXT, read_generation
from tasks.models.reading import read_object_if_there
from tasks.models.reranking import read_reranking
from tasks.models.special_tokens import read_end_token
from tasks.models.templates import read_templates
from tasks.models.weights import INDEX, stray_files, weight_files
from tasks.models.windows import FIELD as WINDOW
from tasks.models.windows import ignored_window

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tasks.models.embedding import EmbeddingRecipe
    from tasks.models.reranking import RerankingRecipe
    from worker_config.catalogue import ModelEntry

CATALOGUE = "catalogue"
_OURS = "not set"
#: Facts about bytes, which come first.
_BYTES = ("weights", "parameters", "KV cache")
#: Lengths of requests, in tokens, whose caches are shown.
CACHE_TOKENS = (4096, 32768)


@dataclass(frozen=True, slots=True)
class Fact:
    """A fact about a model, its value, and the file or entry that has it."""

    name: str
    value: str
    said_by: str


def describe(entry: ModelEntry, folder: Path) -> list[Fact]:
    """The facts of a model whose files are in this folder.

    Raises:
        ModelFilesUnreadable: a file is missing or damaged.
    """
    ranking = read_reranking(folder, read_config(folder))
    if ranking is not None:
        return [*_size(folder), *_context(entry, folder), _scores(ranking)]
    recipe = read_recipe(folder)
    if recipe is not None:
        return [*_size(folder), *_context(entry, folder), *_vectors(entry, recipe)]
    return [
        *_size(folder),
        *_caches(entry, folder),
        *_context(entry, folder),
        *_sampling(entry, folder),
        *_ends(folder),
        *_template(entry, folder),
        *_adapters(entry),
    ]


def in_brief(facts: Iterable[Fact]) -> str:
    """Return the facts that decide a model's answers, as one sentence."""
    named = (fact for fact in facts if not fact.name.startswith(_BYTES))
    places = groupby(named, lambda fact: fact.said_by)
    return "; ".join(f"{', '.join(f'{fact.name} {fact.value}' for fact in group)} ({place})" for place, group in places)


def _size(folder: Path) -> Iterator[Fact]:
    files, size = weight_files(folder), read_model_size(folder)
    said_by = INDEX if (folder / INDEX).is_file() else ", ".join(path.name for path in files[:2])
    yield Fact("weights", f"{size.weights_bytes or 0:,} bytes in {len(files)} file{'s' * (len(files) != 1)}", said_by)
    if size.parameters_b is not None:
        yield Fact("parameters", f"{size.parameters_b:.3g} billion", "headers of the weights")
    for name in stray_files(folder):
        yield Fact("not loaded", name, "not part of the model")


def _caches(entry: ModelEntry, folder: Path) -> Iterator[Fact]:
    """What requests of common lengths keep in memory; none is longer than the context."""
    size = read_model_size(folder)
    if size.kv is None or size.encoder:
        return
    for tokens in sorted({min(tokens, _longest(entry, folder)) for tokens in CACHE_TOKENS}):
        yield Fact(f"KV cache of {tokens:,} tokens", f"{size.kv.row_bytes(tokens):,} bytes in 16 bits", CONFIG)


def _longest(entry: ModelEntry, folder: Path) -> int:
    """The context in tokens."""
    found = read_context(folder, read_config(folder))
    return entry.context_tokens or (found.tokens if found is not None else DEFAULT_CONTEXT_TOKENS)


def _context(entry: ModelEntry, folder: Path) -> Iterator[Fact]:
    config = read_config(folder)
    found = read_context(folder, config)
    if entry.context_tokens is not None:
        yield Fact("context", f"{entry.context_tokens:,} tokens", CATALOGUE)
    elif found is not None:
        yield Fact("context", f"{found.tokens:,} tokens", found.said_by)
    else:
        yield Fact("context", f"{DEFAULT_CONTEXT_TOKENS:,} tokens", "assumed: no file says it")
    if (window := ignored_window(config, _longest(entry, folder))) is not None:
        yield Fact("without effect", f"{WINDOW} {window:,}: mlx-lm attends to all tokens", CONFIG)


def _vectors(entry: ModelEntry, recipe: EmbeddingRecipe) -> Iterator[Fact]:
    """Describe how an embedding model makes a vector of a text."""
    steps = [f"{' and '.join(recipe.pooling)} of its tokens", *(f"dense, {dense.activation}" for dense in recipe.dense)]
    yield Fact("vectors", ", then ".join([*steps, *(["normalised"] if recipe.normalise else [])]), MODULES)
    for prompts, said_by in ((entry.prompts, CATALOGUE), (recipe.prompts, PROMPTS)):
        for name, prompt in prompts.items():
            yield Fact(f"input_type {name}", repr(prompt), said_by)


def _scores(recipe: RerankingRecipe) -> Fact:
    """Describe how a cross-encoder makes a score of a query and a document."""
    activation = {"Sigmoid": "sigmoid of its head's logit", "Identity": "its head's logit"}[recipe.activation]
    return Fact("scores for rerank", activation, "config.json")


def _sampling(entry: ModelEntry, folder: Path) -> Iterator[Fact]:
    generation = read_generation(folder, read_config(folder))
    for name, value in entry.defaults.items():
        yield Fact(name, str(value), CATALOGUE)
    for name, value in generation.sampling.items():
        if name not in entry.defaults:
            yield Fact(name, "prompt and answer" if value == WHOLE_CONTEXT else f"{value:g}", FILE)
    for name, ids in (("never said", generation.barred), ("never said first", generation.barred_first)):
        if ids:
            yield Fact(name, f"{len(ids)} token{'s' * (len(ids) != 1)}", FILE)
    for field in generation.not_done:
        yield Fact("without effect", field, FILE)


def _ends(folder: Path) -> Iterator[Fact]:
    generation = read_generation(folder, read_config(folder))
    names = _added_tokens(folder)
    texts = {f"{names[end]} ({end})" if end in names else f"{end}": names.get(end, end) for end in generation.ends}
    if generation.stops:
        yield Fact("stop strings", ", ".join(map(repr, generation.stops)), FILE)
    if texts:
        yield Fact("end tokens", ", ".join(texts), generation.ends_said_by)
    token = read_end_token(folder)
    if token is not None and token[0] not in texts.values():
        yield Fact("end token", *token)
    elif not texts and token is None:
        yield Fact("end tokens", "none: answers end by max_tokens and stop strings", _OURS)


def _added_tokens(folder: Path) -> dict[int | str, str]:
    """The texts of special tokens and their like, by their ids."""
    added: Any = read_object_if_there(folder / "tokenizer.json").get("added_tokens")
    entries = (entry for entry in added or () if isinstance(entry, dict)) if isinstance(added, list) else ()
    return {entry["id"]: str(entry.get("content")) for entry in entries if isinstance(entry.get("id"), int)}


def _template(entry: ModelEntry, folder: Path) -> Iterator[Fact]:
    templates = read_templates(folder)
    chosen = templates.choose(entry.chat_template)
    if chosen is not None:
        said_by = chosen.said_by if entry.chat_template is None else f"{chosen.said_by}, by the {CATALOGUE}"
        name = f"{entry.chat_template}, " if entry.chat_template is not None else ""
        yield Fact("chat template", f"{name}{len(chosen.text):,} characters", said_by)
    else:
        yield Fact("chat template", "none for messages", _OURS)
    for name, template in sorted(templates.named.items()):
        if template is not chosen:
            yield Fact(f"chat template {name}", f"{len(template.text):,} characters", template.said_by)


def _adapters(entry: ModelEntry) -> Iterator[Fact]:
    """The adapter that the model is served with, or those that a request can name."""
    if entry.adapter is None:
        if entry.adapters:
            yield Fact("adapters", ", ".join(sorted(entry.adapters)), CATALOGUE)
        return
    yield Fact("adapter", entry.adapter, CATALOGUE)
    path = Path(entry.adapter).expanduser() / "adapter_config.json"
    config = read_object_if_there(path)
    lora = config.get("lora_parameters")
    if isinstance(lora, dict):
        values = f"rank {lora.get('rank')}, scale {lora.get('scale')}, on {config.get('num_layers')} layers"
        yield Fact("adapter's size", values, path.name)
