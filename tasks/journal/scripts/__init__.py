"""The Lua scripts that write journals, read from the files beside this one."""

from __future__ import annotations

from hashlib import sha1
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from redis.exceptions import NoScriptError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis import Redis


class Script:
    """One script, called by its digest. redis-py's own scripts cost a second round trip inside a pipeline."""

    def __init__(self, name: str) -> None:
        self.source = files(__name__).joinpath(f"{name}.lua").read_text(encoding="utf-8")
        self.digest = sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, client: Redis, keys: Sequence[str], args: Sequence[str | int]) -> Any:
        """What the script replies; it is loaded first where the server does not have it.

        Raises:
            redis.exceptions.RedisError: untranslated.
        """
        try:
            return client.evalsha(self.digest, len(keys), *keys, *args)
        except NoScriptError:
            client.script_load(self.source)
            return client.evalsha(self.digest, len(keys), *keys, *args)


CLAIM = Script("claim")
APPEND = Script("append")
REWRITE = Script("rewrite")
END = Script("end")
