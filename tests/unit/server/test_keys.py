"""The table of keys in tasks/server/keys.py."""

from __future__ import annotations

import re

from tasks.server import keys


def test_every_key_is_in_the_table() -> None:
    """Somebody who finds a key in Redis can look up its type, its writer and how long it lives."""
    assert keys.__doc__
    listed = set(re.findall(r"``(\w+)``", keys.__doc__))
    functions = {name for name, value in vars(keys).items() if callable(value) and value.__module__ == keys.__name__}
    constants = {
        name for name, value in vars(keys).items() if name.isupper() and value != keys.PREFIX and value[-1] != ":"
    }
    missing = (functions | constants) - listed
    assert missing == {"channel_prefix", "connection"}, "the first is no key, the second is a client's name"
