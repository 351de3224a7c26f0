"""Collects the sources' answers about a machine, in order of trust."""

from __future__ import annotations

from typing import Any

from tasks.hardware.record import Hardware


class Findings:
    """Collects the fields of a :class:`Hardware`. The first source that knows a field has it; later ones fill gaps."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._sources: dict[str, str] = {}

    def add(self, source: str, **values: Any) -> None:
        """Takes the values that are known (not ``None``) and not yet found."""
        for name, value in values.items():
            if value is not None and name not in self._values:
                self._values[name] = value
                self._sources[name] = source

    def get(self, name: str) -> Any:
        """Return the value of a field; ``None`` if none was found."""
        return self._values.get(name)

    def source(self, name: str) -> str:
        """Return the source of a field's value; empty if none was found."""
        return self._sources.get(name, "")

    def hardware(self) -> Hardware:
        """Return the record; an unknown value has the source ``unknown``."""
        self.add("unknown", chip="unknown", gpu_cores=0, cpu_cores=1, memory_bytes=0, accelerator="cpu")
        self.add("unknown", os_name="unknown", os_version="unknown")
        self.add(self.source("accelerator"), engine_accelerator=self.get("accelerator"))
        sources = {name: self._sources.get(name, "unknown") for name in RECORDED}
        values: dict[str, Any] = {name: self._values.get(name) for name in RECORDED}
        return Hardware(**values, sources=sources, overridden="override" in sources.values())


#: The fields that a source may know.
RECORDED = tuple(name for name in Hardware.__dataclass_fields__ if name not in ("sources", "overridden"))
