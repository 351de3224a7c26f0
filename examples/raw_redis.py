"""Read one request's stream with redis-py alone, as a client in any language would: docs/wire-format.md says how.

python examples/raw_redis.py TASK_ID
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import redis

if TYPE_CHECKING:
    from collections.abc import Iterator


def entries(client: Any, task_id: str) -> Iterator[dict[str, Any]]:
    """Every entry of the journal, from its first to its last, as it is written."""
    name = f"celery-mlx:stream:{task_id}"
    position = "-"
    with client.pubsub() as bell:
        # Subscribe before the first look: an entry that is appended after that look is announced, and none is missed.
        bell.subscribe(name)
        while True:
            # A message may be lost, as pub/sub is at most once: after a second of silence, look anyway.
            bell.get_message(timeout=1.0)
            for entry_id, fields in client.xrange(name, min=position):
                position = f"({entry_id}"
                entry = json.loads(fields["d"])
                yield entry
                if entry["type"] in {"end", "error"}:
                    return


def main(task_id: str) -> int:
    """Print the text as it comes; 1 if the request failed."""
    url = os.environ.get("REDIS_URL", "redis://localhost:6379/0")
    with redis.Redis.from_url(url, decode_responses=True) as client:
        for entry in entries(client, task_id):
            if entry["type"] == "token" and entry["kind"] == "content":
                print(entry["text"], end="", flush=True)
            elif entry["type"] == "end":
                print(f"\n[{entry['finish_reason']}, {entry['usage']}]")
            elif entry["type"] == "error":
                print(f"\n[{entry['code']}: {entry['message']}]")
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]) if len(sys.argv) == 2 else __doc__)
