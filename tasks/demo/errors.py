"""The error of a demo that cannot run."""

from __future__ import annotations


class SetupError(Exception):
    """Something that has to be there is not; the one-line message says what, and what to do."""
