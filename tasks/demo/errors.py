"""The error of a demo that cannot run."""

from __future__ import annotations


class SetupError(Exception):
    """Something that the demo needs is missing; the one-line message names it and the remedy."""
