"""The limits that Linux control groups, and with them containers, put on memory and processor time.

Both versions are read, also side by side. Groups nest: the tightest limit on the way up to the root counts.
Sources: the kernel's admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst, proc(5) for the two files in /proc/self.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Reader = Callable[[str], str]

#: Version 1 has no word for "no limit" but a huge number that depends on the page size.
NO_LIMIT_BYTES = 2**60


@dataclass(frozen=True, slots=True)
class MemoryLevel:
    """One group with a memory limit. ``used_bytes`` leaves out the file cache that the kernel would drop first."""

    limit_bytes: int
    used_bytes: int


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted hierarchy; ``folders`` are this process's group and those above it, innermost first."""

    version: int
    controllers: frozenset[str]
    folders: tuple[str, ...]


class Cgroup:
    """This process's control groups. Where there are none (macOS, no limits) every answer is ``None``."""

    def __init__(self, read: Reader) -> None:
        self._read = read
        mounted = _hierarchies(read("/proc/self/mountinfo"), read("/proc/self/cgroup"))
        # Side by side, version 1 has the controllers and version 2 only the names of the groups.
        self._hierarchies = tuple(sorted(mounted, key=lambda hierarchy: hierarchy.version))

    def tightest_memory(self) -> MemoryLevel | None:
        """The group that leaves the least memory in all."""
        levels = [level for hierarchy in self._having("memory") for level in self._memory_levels(hierarchy)]
        return min(levels, key=lambda level: level.limit_bytes, default=None)

    def cpu_limit(self) -> float | None:
        """The processors that the tightest quota amounts to, as in 1.5."""
        limits = [limit for hierarchy in self._having("cpu") for limit in self._cpu_limits(hierarchy)]
        return min(limits, default=None)

    def cpu_seconds(self) -> float | None:
        """The processor time that this process's group has used."""
        for hierarchy in self._having("cpuacct"):
            for line in self._read(f"{hierarchy.folders[0]}/cpu.stat").splitlines():
                if line.startswith("usage_usec "):
                    return int(line.split()[1]) / 1e6
            nanoseconds = self._number(f"{hierarchy.folders[0]}/cpuacct.usage")
            if nanoseconds is not None:
                return nanoseconds / 1e9
        return None

    def _having(self, controller: str) -> Iterator[Hierarchy]:
        return (
            hierarchy
            for hierarchy in self._hierarchies
            if hierarchy.version == 2 or controller in hierarchy.controllers
        )

    def _memory_levels(self, hierarchy: Hierarchy) -> Iterator[MemoryLevel]:
        limit_name, used_name, cache_name = (
            ("memory.max", "memory.current", "inactive_file")
            if hierarchy.version == 2
            else ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        )
        for folder in hierarchy.folders:
            limit = self._number(f"{folder}/{limit_name}")
            if limit is not None and limit < NO_LIMIT_BYTES:
                used = self._number(f"{folder}/{used_name}") or 0
                statistics = dict(line.split(" ", 1) for line in _lines(self._read(f"{folder}/memory.stat")))
                yield MemoryLevel(limit, max(0, used - int(statistics.get(cache_name, 0))))

    def _cpu_limits(self, hierarchy: Hierarchy) -> Iterator[float]:
        for folder in hierarchy.folders:
            if hierarchy.version == 2:
                quota, period = (_lines(self._read(f"{folder}/cpu.max")) or ["max 1"])[0].split()
            else:
                quota = self._read(f"{folder}/cpu.cfs_quota_us").strip()
                period = self._read(f"{folder}/cpu.cfs_period_us").strip()
            if quota.isdigit() and period.isdigit() and int(period):
                yield int(quota) / int(period)

    def _number(self, path: str) -> int | None:
        text = self._read(path).strip()
        return int(text) if text.isdigit() else None


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if " " in line]


def _hierarchies(mountinfo: str, groups: str) -> Iterator[Hierarchy]:
    """Pairs each mounted hierarchy with this process's group in it."""
    paths = _group_paths(groups)
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        place, mount = before.split(), after.split(maxsplit=2)
        if len(place) < 5 or len(mount) < 3:
            continue
        root, point = place[3:5]
        kind, _, options = mount
        if kind == "cgroup2" and "" in paths:
            yield Hierarchy(2, frozenset(), tuple(_folders(point, root, paths[""])))
        elif kind == "cgroup":
            controllers = frozenset(options.split(",")) & paths.keys()
            for name in sorted(controllers)[:1]:
                yield Hierarchy(1, controllers, tuple(_folders(point, root, paths[name])))


def _group_paths(text: str) -> dict[str, str]:
    """Controller → path out of /proc/self/cgroup; version 2 has the empty name."""
    paths: dict[str, str] = {}
    for line in text.splitlines():
        _, first, rest = line.partition(":")
        controllers, second, path = rest.partition(":")
        if first and second:
            paths.update(dict.fromkeys(controllers.split(","), path))
    return paths


def _folders(point: str, root: str, path: str) -> Iterator[str]:
    """The folders of a group and those above it, up to the mount point.

    A container without its own cgroup namespace sees the host's path while its mount begins at its own group; then the
    root of the mount is cut off, and what lies outside the mount cannot be read.
    """
    above = root.rstrip("/")
    inside = path.removeprefix(above) if f"{path}/".startswith(f"{above}/") and ".." not in path else ""
    parts = [part for part in inside.split("/") if part]
    for count in range(len(parts), -1, -1):
        yield "/".join([point, *parts[:count]])
