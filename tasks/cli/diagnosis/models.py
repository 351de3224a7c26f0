"""Checks which models are in reach, and whether there is room for more."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.cli.diagnosis.line import Line, gib
from tasks.engine.model.kept.verdict_file import on_numpy
from tasks.errors import UnknownModel
from tasks.models.capabilities import capabilities
from tasks.models.description import describe, in_brief
from tasks.models.files import read_model_size
from tasks.models.reading import ModelFilesUnreadable
from tasks.models.routing import tier_of
from tasks.models.weights import WeightsMissing, weight_files
from tasks.names import PACKAGE
from worker_config.cache import bundled_folder, cache_folder
from worker_config.catalogue import ModelNotAllowed, load_catalogue
from worker_config.environment import SettingError
from worker_config.hub import LEAST_FREE_BYTES, hub_cache, hub_snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tasks.hardware import Hardware
    from worker_config.catalogue import Catalogue, ModelEntry
    from worker_config.settings import Settings
    from worker_config.tiers import Tier

#: A 7B in 4 bits takes 4 GB, a 70B 40 GB.
COMFORTABLE_FREE_BYTES = 10 << 30
FETCH_BUNDLED = f"python -m {PACKAGE}.demo.bundled fetches it (93 MB)"


def model_lines(settings: Settings, hardware: Hardware) -> Iterator[Line]:
    """Yield the catalogue: the default model, the models that are here, and those that the hub would have to send."""
    try:
        catalogue = load_catalogue(settings)
    except SettingError as error:
        yield Line("failure", "catalogue", str(error), "correct the file that CELERY_MLX_CATALOGUE names")
        return
    yield from _named(catalogue, "default", settings.default_model, "CELERY_MLX_DEFAULT_MODEL")
    for name in settings.models:
        yield from _named(catalogue, "at start", name, "CELERY_MLX_MODELS")
    served = {offer.tier.name for offer in capabilities(hardware).tiers}
    yield from _catalogue(catalogue.models.values(), served)


def disk_lines() -> Iterator[Line]:
    """The room where models are kept."""
    folders = (("hub models", hub_cache(), "HF_HOME"), ("bundled model", cache_folder(), "CELERY_MLX_CACHE"))
    for about, folder, variable in folders:
        free = shutil.disk_usage(_existing(folder)).free
        says = f"{gib(free)} free for {folder}"
        if free < LEAST_FREE_BYTES:
            yield Line("failure", about, says, "make room, or keep models elsewhere: HF_HOME, CELERY_MLX_CACHE")
        elif free < COMFORTABLE_FREE_BYTES:
            yield Line("warning", about, says, "a 7B in 4 bits takes 4 GB, a 70B 40 GB")
        elif not os.access(_existing(folder), os.W_OK | os.X_OK):
            yield Line("warning", about, f"{says}, and this user cannot write there", f"set {variable} to fetch models")
        else:
            yield Line("ok", about, says)


def _named(catalogue: Catalogue, about: str, name: str, setting: str) -> Iterator[Line]:
    try:
        entry = catalogue.resolve(name)
        tier = tier_of(entry)
    except (ModelNotAllowed, UnknownModel) as error:
        yield Line("failure", about, str(error), f"or change {setting}")
    else:
        yield from _entry(about, entry, tier)


def _entry(about: str, entry: ModelEntry, tier: Tier) -> Iterator[Line]:
    """Yield a model, and the facts that decide how it is served."""
    says = f"{entry.name} ({tier.name})"
    folder = folder_of(entry)
    if folder is None or not folder.is_dir():
        yield _not_here(about, says, entry, folder)
        return
    try:
        size = read_model_size(folder)
        weight_files(folder)
        facts = in_brief(describe(entry, folder))
    except WeightsMissing as error:
        yield Line("failure", about, f"{says} is not whole: {error}", "fetch it again")
    except ModelFilesUnreadable as error:
        yield Line("failure", about, f"{says} is damaged: {error}", "remove the folder and fetch it again")
    else:
        weights = f", {gib(size.weights_bytes)} of weights" if size.weights_bytes else ""
        yield Line("ok", about, f"{says} is on this disk{weights}: {folder}")
        yield Line("ok", "served with", facts)
        yield from _steps(folder)


def _steps(folder: Path) -> Iterator[Line]:
    """Yield the way a model's steps are computed on a processor, if it was loaded here before."""
    found = on_numpy(cache_folder(), folder)
    if found is None:
        return
    tokens, prompts = found
    if tokens:
        says = f"numpy computes those of up to {tokens} tokens{' and prompts' if prompts else ''}, MLX longer ones"
        yield Line("ok", "steps", says, source="trial")
    else:
        says = "MLX computes all: numpy was no quicker, or the model's code does not take its arrays"
        yield Line("note", "steps", says, source="trial")


def _not_here(about: str, says: str, entry: ModelEntry, folder: Path | None) -> Line:
    if entry.kind == "fake":
        return Line("ok", about, f"{says}, computes nothing")
    if entry.kind == "hub":
        return Line("ok", about, f"{says}, comes from the hub at first use: {entry.source}")
    remedy = FETCH_BUNDLED if entry.kind == "bundled" else "correct its source in the catalogue"
    return Line("failure" if entry.kind == "path" else "warning", about, f"{says} is not here: {folder}", remedy)


def _catalogue(entries: Iterable[ModelEntry], served: set[str]) -> Iterator[Line]:
    here: list[str] = []
    hub: list[str] = []
    larger: list[str] = []
    for entry in entries:
        try:
            tier = tier_of(entry)
        except UnknownModel as error:
            yield Line("failure", entry.name, str(error), "add parameters_b or tier to its entry")
            continue
        folder = folder_of(entry)
        if entry.kind == "path":
            yield from _entry(entry.name, entry, tier)
        elif tier.name not in served:
            larger.append(entry.name)
        else:
            (here if folder is not None and folder.is_dir() else hub).append(entry.name)
    yield Line("ok", "on this disk", ", ".join(here) or "none yet")
    yield Line("ok", "to be fetched", ", ".join(hub) or "none")
    if larger:
        yield Line("note", "too large here", ", ".join(larger))


def folder_of(entry: ModelEntry) -> Path | None:
    """Return the folder of a model's files, present or not; ``None`` where only the hub knows."""
    if entry.kind == "path":
        return Path(entry.source)
    if entry.kind == "bundled":
        return bundled_folder(entry.source)
    return hub_snapshot(entry.source, entry.revision) if entry.kind == "hub" else None


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.is_dir())
