"""The model catalogue: the models that a request may name, the source of each, and its properties.

``catalogue.toml`` beside this module is read first, then the file that ``CELERY_MLX_CATALOGUE`` names. The second one
wins: a model of the same name replaces the built-in one, ``allow`` and ``allow_paths`` replace the built-in lists, and
``builtin_models = false`` drops the built-in models. docs/catalogue.md shows a whole file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from worker_config.catalogue_file import CatalogueFile, shown
from worker_config.environment import SettingError
from worker_config.model_entry import FAKE_PREFIX, Kind, ModelEntry, is_hub_id, looks_like_path
from worker_config.tiers import TIERS, tier_named

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from worker_config.settings import Settings

__all__ = ["Catalogue", "Kind", "ModelEntry", "ModelNotAllowed", "catalogue_of", "load_catalogue"]

BUILT_IN = Path(__file__).with_name("catalogue.toml")

_FAKE = re.compile(
    rf"{FAKE_PREFIX}(\d+(?:\.\d+)?)(?::(?:load_s|context|weights_mb|dimensions|ranks)=[\d.]+|:load_error=[^:@]*)*(?:@(.+))?",
    re.ASCII,
)
_LONGEST_NAME = 200


class ModelNotAllowed(LookupError):
    """A request named a model that is neither in the catalogue nor allowed; the message lists similar names."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Every model that may be named, by entry, by pattern or by folder.

    Args:
        models: the entries by name.
        allow: patterns in the shell's style (``mlx-community/*``) for hub ids that need no entry; case matters.
        allow_paths: folders, links resolved, under which a request may name a model's folder.
        allow_fake: whether ``fake:STEP_MS`` and ``fake:STEP_MS@TIER`` are models.
    """

    models: Mapping[str, ModelEntry]
    allow: tuple[str, ...] = ()
    allow_paths: tuple[Path, ...] = ()
    allow_fake: bool = False

    def resolve(self, name: str) -> ModelEntry:
        """The entry that this name stands for: an entry's name, an entry's source, or what a rule allows.

        ``MODEL@ADAPTER`` is a model with a LoRA adapter; a model that is named by its path cannot have one.

        A fake model is of the smallest tier unless its name pins another, as ``fake:10@7-13B`` does; between the two may be
        options of :mod:`tasks.engine.fake`, as in ``fake:10:load_s=2``.

        Raises:
            ModelNotAllowed: no entry and no rule covers the name.
        """
        entry = self.models.get(name) or self._by_source(name)
        if entry is not None:
            return entry
        if name.startswith(FAKE_PREFIX):
            return self._fake(name)
        if looks_like_path(name):
            return self._local(name)
        base, at, adapter = name.partition("@")
        if at:
            return self._adapted(name, self.resolve(base), adapter)
        if is_hub_id(name) and any(fnmatchcase(name, pattern) for pattern in self.allow):
            return ModelEntry(name=name, kind="hub", source=name)
        raise ModelNotAllowed(self._explain(name))

    def _by_source(self, name: str) -> ModelEntry | None:
        return next((model for model in self.models.values() if model.kind == "hub" and model.source == name), None)

    def _adapted(self, name: str, base: ModelEntry, adapter: str) -> ModelEntry:
        """A model with one of its adapters; a name that the entry has, or a source that a rule allows for models, too."""
        if base.adapter is not None:
            raise ModelNotAllowed(f"model {shown(name)}: {base.name} has an adapter already; name its base model")
        source: str | None = base.adapters.get(adapter)
        if source is None and looks_like_path(adapter):
            source = self._local(adapter).source
        elif source is None and is_hub_id(adapter) and any(fnmatchcase(adapter, pattern) for pattern in self.allow):
            source = adapter
        if source is None:
            known = ", ".join(sorted(base.adapters)) or "none"
            raise ModelNotAllowed(
                f"model {shown(name)}: {base.name} has no adapter {shown(adapter)} (now: {known}); add it to the entry's "
                "adapters in the file that CELERY_MLX_CATALOGUE names"
            )
        return replace(base, name=name, adapter=source)

    def _fake(self, name: str) -> ModelEntry:
        if not self.allow_fake:
            raise ModelNotAllowed(
                f"model {shown(name)}: fake models are off; set CELERY_MLX_ALLOW_FAKE=1 to allow them"
            )
        match = _FAKE.fullmatch(name)
        if match is None:
            raise ModelNotAllowed(
                f"model {shown(name)}: expected fake:STEP_MS or fake:STEP_MS@TIER, as in fake:10@7-13B or fake:10:load_s=2@7-13B"
            )
        step_ms, tier = match.groups()
        try:
            pinned = tier_named(tier) if tier else TIERS[0]
        except SettingError as error:
            raise ModelNotAllowed(f"model {shown(name)}: {error}") from None
        return ModelEntry(name=name, kind="fake", source=step_ms, tier=pinned)

    def _local(self, name: str) -> ModelEntry:
        resolved = _resolved(name)
        if resolved is not None and any(resolved.is_relative_to(folder) for folder in self.allow_paths):
            return ModelEntry(name=name, kind="path", source=str(resolved))
        folders = ", ".join(map(str, self.allow_paths)) or "none"
        raise ModelNotAllowed(
            f"model {shown(name)}: a path must be absolute, without '..', and lie in a folder of allow_paths "
            f"(now: {folders}); add its folder there in the file that CELERY_MLX_CATALOGUE names"
        )

    def _explain(self, name: str) -> str:
        close = _close(name, [*self.models, *(model.source for model in self.models.values() if model.kind == "hub")])
        alternatives = " or ".join(part for part in (", ".join(close[:-1]), *close[-1:]) if part)
        hint = f"did you mean {alternatives}?" if close else f"known are {', '.join(sorted(self.models))}."
        allowed = ", ".join(self.allow) or "none"
        return (
            f"model {shown(name)} is neither in the catalogue nor allowed by a pattern (now: {allowed}); {hint} "
            "To allow it, add it to the file that CELERY_MLX_CATALOGUE names"
        )


@cache
def catalogue_of(settings: Settings) -> Catalogue:
    """The catalogue of these settings, which is read once in a process.

    Raises:
        SettingError: as :func:`load_catalogue`.
    """
    return load_catalogue(settings)


def load_catalogue(settings: Settings) -> Catalogue:
    """The built-in catalogue with the file of ``settings.catalogue`` on top.

    Raises:
        SettingError: a file cannot be read or a field is wrong; the message names file, line where it can be told,
            field, value and remedy.
    """
    layers = [CatalogueFile(BUILT_IN).read()]
    if settings.catalogue:
        layers.append(CatalogueFile(Path(settings.catalogue).expanduser()).read())
    top = layers[-1]
    models: dict[str, ModelEntry] = {}
    for layer in layers if top.builtin_models else layers[-1:]:
        models.update(layer.models)
    allow = next(layer.allow for layer in reversed(layers) if layer.allow is not None)
    allow_paths = next(layer.allow_paths for layer in reversed(layers) if layer.allow_paths is not None)
    return Catalogue(models, allow, allow_paths, allow_fake=settings.allow_fake)


def _resolved(name: str) -> Path | None:
    """The place that a path leads to, its links followed, or a link in an allowed folder would lead anywhere."""
    path = Path(name)
    if not path.is_absolute() or ".." in path.parts:
        return None
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):  # too long, links in a circle, a null character
        return None


def _close(name: str, known: Iterable[str]) -> list[str]:
    by_folded = {name.casefold(): name for name in known}
    return [
        by_folded[match_] for match_ in get_close_matches(name[:_LONGEST_NAME].casefold(), by_folded, n=3, cutoff=0.45)
    ]
