"""A Lua script in Redis, called by its digest."""

from __future__ import annotations

from hashlib import sha1
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Protocol

from redis.exceptions import NoScriptError

if TYPE_CHECKING:
    from collections.abc import Sequence


class Evaluator(Protocol):
    """Runs scripts: redis-py's client does, and :class:`tasks.server.pipeline.AutoPipeline`."""

    def evalsha(self, sha: str, numkeys: int, /, *keys_and_args: str | int) -> Any:
        """Call the script of this digest."""

    def script_load(self, script: str, /) -> Any:
        """Have the server know a script."""


class Script:
    """One script, in one round trip; redis-py's own scripts cost a second one inside a pipeline.

    Args:
        source: the Lua text.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.digest = sha1(source.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, client: Evaluator, keys: Sequence[str], args: Sequence[str | int]) -> Any:
        """Call the script; it is loaded first where the server does not have it.

        Raises:
            redis.exceptions.RedisError: untranslated.
        """
        try:
            return client.evalsha(self.digest, len(keys), *keys, *args)
        except NoScriptError:
            client.script_load(self.source)
            return client.evalsha(self.digest, len(keys), *keys, *args)


def read_script(package: str, name: str) -> str:
    """The text of a script beside the modules of a package."""
    return files(package).joinpath(f"{name}.lua").read_text(encoding="utf-8")
