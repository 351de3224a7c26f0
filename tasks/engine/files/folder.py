"""A model's folder as its engine takes it: found, checked, and with the settings in its files."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.engine.files.adapter import Adapter, find_adapter
from tasks.engine.files.download import fetch
from tasks.engine.files.integrity import check_model, folder_revision
from tasks.errors import ModelLoadFailed
from tasks.models.context import DEFAULT_CONTEXT_TOKENS, learned_positions, read_context
from tasks.models.embedding import ENCODERS, MODULES, EmbeddingRecipe, read_recipe
from tasks.models.generation import Generation, read_generation
from tasks.models.reading import ModelFilesUnreadable
from tasks.models.reranking import RerankingRecipe, read_reranking
from tasks.models.templates import Template, Templates, read_templates
from tasks.models.weights import stray_files
from tasks.models.windows import ignored_window
from tasks.names import PACKAGE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.messages.engine import EngineConfig

logger = logging.getLogger(__name__)


@dataclass(slots=True, frozen=True, kw_only=True)
class ModelFolder:
    """The properties that a model's files decide, with the catalogue's word before theirs.

    Args:
        path: the folder.
        revision: see :func:`find_model`; an adapter's comes behind a +.
        config: ``config.json``.
        context_tokens: the longest sequence.
        generation: sampling defaults and end tokens.
        templates: all chat templates.
        template: the one for conversations; ``None`` where there is no such.
        tool_template: the one for conversations with tools, where it is another.
        adapter: the LoRA adapter.
        recipe: how it makes a vector of a text, or a score of a pair; ``None`` for a model that generates.
    """

    path: Path
    revision: str
    config: dict[str, Any]
    context_tokens: int
    generation: Generation
    templates: Templates
    template: Template | None
    tool_template: Template | None
    adapter: Adapter | None
    recipe: EmbeddingRecipe | RerankingRecipe | None


def find_model(source: str, revision: str | None) -> tuple[Path, str]:
    """The model's folder, fetched from the hub if need be, and its revision: the hub's commit, or a folder's digest.

    Args:
        source: a folder, or a hub id.
        revision: the hub's branch, tag or commit; for a folder that came from the hub, its commit.

    Raises:
        ModelLoadFailed: there is no such folder or hub model, or it cannot be fetched.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return path, revision or folder_revision(path)
    if path.is_file():
        remedy = f"convert it with python -m {PACKAGE}.engine.files.gguf, and " if path.suffix == ".gguf" else ""
        raise ModelLoadFailed(
            f"{source}: is a file; {remedy}name the folder with config.json and the .safetensors files"
        )
    if source.startswith((".", "/", "~")) or source.count("/") != 1:
        raise ModelLoadFailed(f"{source}: no such folder; name an existing folder, or a hub id such as owner/name")
    folder = fetch(source, revision)
    return folder, folder.name


def read_folder(config: EngineConfig) -> ModelFolder:
    """The folder of the model that the configuration names, fetched if need be.

    Raises:
        ModelLoadFailed: it is not there, or a file is missing or damaged.
    """
    path, revision = find_model(config.source, config.revision)
    try:
        description = check_model(path)
        generation = read_generation(path, description)
        longest = context_tokens(path, description, config)
        for remark in _without_effect(path, description, generation, longest):
            logger.warning("%s: %s", path, remark)
        templates = read_templates(path)
        adapter = find_adapter(config.adapter) if config.adapter else None
        return ModelFolder(
            path=path,
            revision=f"{revision}+{adapter.revision}" if adapter is not None else revision,
            config=description,
            context_tokens=longest,
            generation=generation,
            templates=templates,
            template=templates.choose(config.chat_template),
            tool_template=templates.choose_for_tools(config.chat_template),
            adapter=adapter,
            recipe=_recipe(path, description),
        )
    except ModelFilesUnreadable as error:
        raise ModelLoadFailed(str(error)) from None


def _without_effect(
    path: Path, description: dict[str, Any], generation: Generation, longest_tokens: int
) -> Iterator[str]:
    """Yield each file of the folder that changes nothing here."""
    if strays := stray_files(path):
        yield f"{', '.join(strays)} do not belong to the model by its index, and are not loaded"
    if generation.not_done:
        yield (
            f"generation_config.json asks for {', '.join(generation.not_done)}, which changes nothing here (docs/models.md)"
        )
    if (window := ignored_window(description, longest_tokens)) is not None:
        yield (
            f"config.json asks for a window of {window} tokens, and mlx-lm attends to all: it reads longer sequences otherwise "
            "than in training (docs/models.md)"
        )


def context_tokens(path: Path, description: dict[str, Any], config: EngineConfig) -> int:
    """The longest sequence: the catalogue's word, else what the model's files say, else a default.

    Raises:
        ModelLoadFailed: the catalogue asks for more positions than the model has learned.
    """
    if config.context_tokens is None:
        context = read_context(path, description)
        if context is None:
            logger.warning(
                "%s: no file says how long its context is; %d tokens are assumed. Set context_tokens in its catalogue entry",
                *(config.model, DEFAULT_CONTEXT_TOKENS),
            )
        return DEFAULT_CONTEXT_TOKENS if context is None else context.tokens
    learned = learned_positions(description)
    if learned is not None and config.context_tokens > learned:
        raise ModelLoadFailed(
            f"model {config.model!r}: context_tokens is {config.context_tokens} in the catalogue, and the model has learned "
            f"{learned} positions; lower it"
        )
    return config.context_tokens


def _recipe(path: Path, description: dict[str, Any]) -> EmbeddingRecipe | RerankingRecipe | None:
    recipe = read_reranking(path, description) or read_recipe(path)
    if recipe is None and description["model_type"] in ENCODERS:
        raise ModelFilesUnreadable(
            f"{path}: a model of type {description['model_type']!r} generates nothing, and no file says how the vectors of "
            f"its tokens become one: add {MODULES} and the folders that it names, as sentence-transformers writes them"
        )
    return recipe
