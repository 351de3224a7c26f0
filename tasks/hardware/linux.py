"""Reads the answers of Linux, its containers and other systems about a machine."""

from __future__ import annotations

import shlex
from math import floor
from typing import TYPE_CHECKING

from tasks.hardware.apple import parse_lines
from tasks.hardware.cgroup import Cgroup

if TYPE_CHECKING:
    from tasks.hardware.findings import Findings
    from tasks.hardware.machine import Machine


def ask_linux(machine: Machine, found: Findings) -> None:
    """Fills in processor, cores, memory and system. A container is as large as its control groups let it be."""
    cgroup = Cgroup(machine.read)
    memory_bytes, memory_source = machine.memory()
    level = cgroup.tightest_memory()
    if level and level.limit_bytes < memory_bytes:
        memory_bytes, memory_source = level.limit_bytes, "cgroup"
    found.add(memory_source, memory_bytes=memory_bytes)

    cpus, cpus_source = machine.cpus()
    limit = cgroup.cpu_limit()
    if limit is not None and limit < cpus:
        cpus, cpus_source = max(1, floor(limit)), "cgroup"
    found.add(cpus_source, cpu_cores=cpus)

    found.add("proc", chip=parse_lines(machine.read("/proc/cpuinfo")).get("model name"))
    found.add("platform", chip=f"{machine.system} {machine.architecture}", accelerator="cpu")
    release = _os_release(machine)
    found.add("os-release", os_name=release.get("NAME"), os_version=release.get("VERSION_ID"))
    found.add("platform", os_name=machine.system)


def _os_release(machine: Machine) -> dict[str, str]:
    text = machine.read("/etc/os-release") or machine.read("/usr/lib/os-release")
    try:
        words = shlex.split(text, comments=True)
    except ValueError:
        return {}
    pairs = (word.partition("=") for word in words)
    return {name: value for name, _, value in pairs if value}
