"""The one line of a worker that is ready: the models that it serves, and how to send it a request."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tasks.errors import GenerationError
from tasks.models.footprint import local_source
from tasks.models.routing import tier_of
from tasks.names import COMMAND
from worker_config.hub import hub_is_offline
from worker_config.tiers import TIERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tasks.worker.profile.profile import Profile
    from worker_config.catalogue import ModelEntry

#: More names than these are counted.
MOST_NAMES = 4


def ready_line(profile: Profile) -> tuple[str, dict[str, Any]]:
    """The line, and its fields for a log in JSON."""
    tiers = [tier.name for tier in TIERS if tier.queue in profile.queues]
    here, elsewhere = served_models(profile.catalogue.models.values(), profile.queues)
    elsewhere = [] if hub_is_offline() else elsewhere
    fields = {
        "node": profile.node,
        "slots": profile.capacity.slots.total,
        "tiers": tiers,
        "models_here": here,
        "models_on_hub": elsewhere,
        "models_kept": list(profile.settings.models),
    }
    return _sentence(fields, _example(here, profile)), fields


def served_models(entries: Iterable[ModelEntry], queues: Sequence[str]) -> tuple[list[str], list[str]]:
    """The models of these queues' tiers: those whose files are on this disk, and those that the hub has."""
    here: list[str] = []
    elsewhere: list[str] = []
    for entry in entries:
        with suppress(GenerationError, OSError):  # a request for the model reports what is wrong with its files
            found = local_source(entry)
            if tier_of(entry).queue in queues:
                (elsewhere if found is None else here).append(entry.name)
    return here, elsewhere


def _example(here: Sequence[str], profile: Profile) -> str:
    """A command that the worker can answer; the model is named where the default one is not here."""
    default = profile.settings.default_model
    names = [*profile.settings.models, *here]
    option = "" if default in names or not names else f"--model {names[0]} "
    return f'{COMMAND} ask {option}"Why is the sky blue?"'


def _sentence(fields: dict[str, Any], example: str) -> str:
    slots, tiers = fields["slots"], fields["tiers"]
    tier = f" for tier{'s' if len(tiers) > 1 else ''} {', '.join(tiers)}" if tiers else ""
    parts = [f"{fields['node']} is ready: {slots} slot{'' if slots == 1 else 's'}{tier}"]
    if fields["models_kept"]:
        parts.append(f"loads now: {_names(fields['models_kept'])}")
    if fields["models_here"]:
        parts.append(f"on this disk: {_names(fields['models_here'])}")
    if fields["models_on_hub"]:
        parts.append(f"from the hub at first use: {_names(fields['models_on_hub'])}")
    return f"{'; '.join(parts)}. Send a request: {example}"


def _names(names: Sequence[str]) -> str:
    if len(names) <= MOST_NAMES:
        return ", ".join(names)
    shown = MOST_NAMES - 1
    return f"{', '.join(names[:shown])} and {len(names) - shown} more"
