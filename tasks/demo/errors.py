"""What keeps the demo or its parts from running."""

from __future__ import annotations


class SetupError(Exception):
    """Something that has to be there is not; the one-line message says what, and what to do."""
