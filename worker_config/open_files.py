"""The open files that this process may have: sockets count."""

from __future__ import annotations

import resource


def allow_open_files(wanted: int) -> None:
    """Raise this process's limit to so many, or as far as the system lets it; macOS gives 256 unless a process asks for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
