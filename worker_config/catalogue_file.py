"""One file of the model catalogue, read and checked; errors say where in it they are."""

from __future__ import annotations

import os.path
import re
import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker_config.environment import SettingError
from worker_config.model_entry import (
    BUNDLED_PREFIX,
    DEFAULT_FIELDS,
    FAKE_PREFIX,
    ModelEntry,
    is_hub_id,
    looks_like_path,
)
from worker_config.tiers import TIERS, tier_named

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker_config.model_entry import Kind
    from worker_config.tiers import Tier

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}")
ADAPTER_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_SHOWN_CHARACTERS = 120


@dataclass(frozen=True, slots=True)
class Layer:
    """One file's say; ``None`` where it leaves a list as it was."""

    models: dict[str, ModelEntry]
    allow: tuple[str, ...] | None
    allow_paths: tuple[Path, ...] | None
    builtin_models: bool


class CatalogueFile:
    """Reads one catalogue file, with errors that say where in it they are."""

    TOP_FIELDS = ("allow", "allow_paths", "builtin_models", "models")
    MODEL_FIELDS = (
        *("name", "source", "parameters_b", "context_tokens", "chat_template", "tier", "defaults"),
        *("revision", "trust_remote_code", "keep_alive_s", "adapters", "adapter", "prompts"),
    )

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: list[str] = []

    def read(self) -> Layer:
        """The file's content, checked."""
        table = self._parse()
        self._refuse_unknown(table, self.TOP_FIELDS, None)
        models: dict[str, ModelEntry] = {}
        at: dict[str, int] = {}
        for position, values in enumerate(self._tables(table)):
            entry = self._model(values, position)
            if entry.name in models:
                earlier = self._line("name", at[entry.name])
                raise self._error("name", entry.name, f"each name once (line {earlier} has it too)", position)
            models[entry.name] = entry
            at[entry.name] = position
        return Layer(models, self._allow(table), self._allow_paths(table), self._flag(table, "builtin_models", True))

    def _parse(self) -> dict[str, Any]:
        try:
            text = self._path.read_text(encoding="utf-8")
        except OSError as error:
            raise SettingError(
                f"model catalogue {self._path} cannot be read ({error.strerror}); "
                "CELERY_MLX_CATALOGUE must name a TOML file"
            ) from None
        except UnicodeDecodeError as error:
            raise SettingError(f"model catalogue {self._path}: not UTF-8 text (byte {error.start})") from None
        self._lines = text.splitlines()
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise SettingError(f"model catalogue {self._path}: not valid TOML: {error}") from None

    def _tables(self, table: Mapping[str, Any]) -> list[dict[str, Any]]:
        models = table.get("models", [])
        if not isinstance(models, list) or not all(isinstance(model, dict) for model in models):
            raise self._error("models", models, "tables that each begin with a line [[models]]")
        return models

    def _model(self, values: Mapping[str, Any], position: int) -> ModelEntry:
        self._refuse_unknown(values, self.MODEL_FIELDS, position)
        name = self._text(values, "name", position)
        if name is None or not _NAME.fullmatch(name) or ".." in name or name.startswith((BUNDLED_PREFIX, FAKE_PREFIX)):
            expected = (
                "what requests call the model: letters, digits and . _ : / @ + -, not beginning with bundled: or fake:"
            )
            raise self._error("name", name, expected, position)
        kind, source = self._source(values, position)
        return ModelEntry(
            name=name,
            kind=kind,
            source=source,
            parameters_b=self._number(values, "parameters_b", position, above=0.0),
            context_tokens=self._whole(values, "context_tokens", position),
            chat_template=self._text(values, "chat_template", position),
            tier=self._tier(values, position),
            defaults=self._defaults(values, position),
            revision=self._text(values, "revision", position),
            trust_remote_code=self._flag(values, "trust_remote_code", False, position),
            keep_alive_s=self._number(values, "keep_alive_s", position, at_least=0.0),
            adapters=self._adapters(values, position),
            prompts=self._prompts(values, position),
            adapter=self._adapter("adapter", self._text(values, "adapter", position), position),
        )

    def _source(self, values: Mapping[str, Any], position: int) -> tuple[Kind, str]:
        source = self._text(values, "source", position)
        if source and source.startswith(BUNDLED_PREFIX) and _NAME.fullmatch(source.removeprefix(BUNDLED_PREFIX)):
            return "bundled", source.removeprefix(BUNDLED_PREFIX)
        if source and looks_like_path(source):
            # A relative path is meant from the file that says it, whatever folder the worker was started in.
            return "path", os.path.normpath(self._path.absolute().parent / Path(source).expanduser())
        if source and is_hub_id(source):
            return "hub", source
        expected = 'a hub id ("owner/name"), a path (beginning with /, ~ or .) or "bundled:NAME"'
        raise self._error("source", source, expected, position)

    def _prompts(self, values: Mapping[str, Any], position: int) -> Mapping[str, str]:
        prompts = values.get("prompts", {})
        if not isinstance(prompts, dict) or not all(isinstance(prompt, str) for prompt in prompts.values()):
            raise self._error("prompts", prompts, 'a table of texts, as in { query = "query: " }', position)
        return prompts

    def _adapters(self, values: Mapping[str, Any], position: int) -> Mapping[str, str]:
        adapters = values.get("adapters", {})
        if not isinstance(adapters, dict):
            raise self._error("adapters", adapters, 'a table, as in { sql = "acme/sql-lora" }', position)
        found: dict[str, str] = {}
        for name in adapters:
            if not ADAPTER_NAME.fullmatch(name):
                raise self._error("adapters", name, "names of letters, digits and . _ -", position)
            source = self._adapter(f"adapters.{name}", self._text(adapters, name, position), position)
            assert source is not None  # TOML has no null
            found[name] = source
        return found

    def _adapter(self, field_name: str, source: str | None, position: int) -> str | None:
        if source is None or is_hub_id(source):
            return source
        if looks_like_path(source):
            return os.path.normpath(self._path.absolute().parent / Path(source).expanduser())
        raise self._error(field_name, source, 'a hub id ("owner/name") or a path (beginning with /, ~ or .)', position)

    def _tier(self, values: Mapping[str, Any], position: int) -> Tier | None:
        name = self._text(values, "tier", position)
        if name is None:
            return None
        try:
            return tier_named(name)
        except SettingError:
            raise self._error("tier", name, f"one of {', '.join(tier.name for tier in TIERS)}", position) from None

    def _defaults(self, values: Mapping[str, Any], position: int) -> Mapping[str, Any]:
        defaults = values.get("defaults", {})
        if not isinstance(defaults, dict):
            raise self._error("defaults", defaults, "a table, as in { temperature = 0.7 }", position)
        for name, value in defaults.items():
            if name not in DEFAULT_FIELDS:
                expected = f"only fields of a request that shape its answer: {', '.join(sorted(DEFAULT_FIELDS))}"
                raise self._error(f"defaults.{name}", value, expected, position)
        return defaults

    def _allow(self, table: Mapping[str, Any]) -> tuple[str, ...] | None:
        return self._texts(table, "allow", 'patterns for hub ids, as in ["mlx-community/*"]')

    def _allow_paths(self, table: Mapping[str, Any]) -> tuple[Path, ...] | None:
        expected = 'absolute folders, as in ["/models"]'
        folders = self._texts(table, "allow_paths", expected)
        if folders is None:
            return None
        paths = [Path(folder).expanduser() for folder in folders]
        if not all(path.is_absolute() for path in paths):
            raise self._error("allow_paths", list(folders), expected)
        return tuple(path.resolve() for path in paths)

    def _text(self, values: Mapping[str, Any], name: str, position: int) -> str | None:
        value = values.get(name)
        if value is None or (isinstance(value, str) and value):
            return value
        raise self._error(name, value, "text that is not empty", position)

    def _texts(self, values: Mapping[str, Any], name: str, expected: str) -> tuple[str, ...] | None:
        value = values.get(name)
        if value is None:
            return None
        if isinstance(value, list) and all(isinstance(item, str) and item for item in value):
            return tuple(value)
        raise self._error(name, value, f"a list of {expected}")

    def _whole(self, values: Mapping[str, Any], name: str, position: int) -> int | None:
        value = values.get(name)
        if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
            return value
        raise self._error(name, value, "a whole number, at least 1", position)

    def _number(
        self, values: Mapping[str, Any], name: str, position: int, *, above: float | None = None, at_least: float = 0.0
    ) -> float | None:
        value = values.get(name)
        if value is None:
            return None
        bound = f"above {above:g}" if above is not None else f"at least {at_least:g}"
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise self._error(name, value, f"a number {bound}", position)
        if value < at_least or (above is not None and value <= above):
            raise self._error(name, value, f"a number {bound}", position)
        return float(value)

    def _flag(self, values: Mapping[str, Any], name: str, default: bool, position: int | None = None) -> bool:
        value = values.get(name, default)
        if isinstance(value, bool):
            return value
        raise self._error(name, value, "true or false", position)

    def _refuse_unknown(self, values: Mapping[str, Any], known: tuple[str, ...], position: int | None) -> None:
        for name, value in values.items():
            if name not in known:
                close = get_close_matches(name, known, n=1)
                hint = f" (did you mean {close[0]}?)" if close else ""
                raise self._error(name, value, f"a known field{hint}; known are {', '.join(known)}", position)

    def _error(self, name: str, value: Any, expected: str, position: int | None = None) -> SettingError:
        line = self._line(name, position)
        where = f", line {line}" if line else ""
        field_name = name if position is None else f"models[{position}].{name}"
        found = "is missing" if value is None else f"is {shown(value)}"
        return SettingError(f"model catalogue {self._path}{where}: {field_name} {found}: expected {expected}")

    def _line(self, name: str, position: int | None) -> int | None:
        """Return the line of a field, counted from 1: tomllib keeps no positions, so the lines are searched.

        ``None`` where the file writes its tables in another way than one field to a line.
        """
        headers = [number for number, line in enumerate(self._lines) if re.match(r"\s*\[\[\s*models\s*]]", line)]
        if position is None:
            first, last = 0, headers[0] if headers else len(self._lines)
        elif position < len(headers):
            first, last = headers[position], [*headers, len(self._lines)][position + 1]
        else:
            return None
        key = re.escape(name.rpartition(".")[2])
        for number in range(first, last):
            if re.search(rf"(?:^|[\s{{,.\[]){key}[\"']?\s*[=\]]", self._lines[number].partition("#")[0]):
                return number + 1
        return first + 1 if position is not None else None


def shown(value: object) -> str:
    """A value as an error shows it, cut to a line."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
