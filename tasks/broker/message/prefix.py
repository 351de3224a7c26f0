"""The beginnings of a request's prompt, as digests: requests that begin alike have a digest in common.

Producers have no tokenizer, so a beginning is a number of characters, counted over the messages as they are sent. A beginning
ends where a message ends, and at a few fixed lengths, so that a long text which several prompts begin with is found as well.
The next turn of a conversation begins with all messages of the turn before it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.messages.encoding import to_sorted_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: A shorter beginning costs less than it gains to look for: it has about 64 tokens, the least that an engine caches.
LEAST_CHARACTERS = 256
#: Where a beginning ends, too, wherever messages end.
BLOCKS = (1_024, 4_096, 16_384)
#: The number of the last messages whose ends are kept, beside the first one's: an agent's turn adds up to three messages.
LAST_MESSAGES = 4
#: The characters that a chat template writes before the messages.
BEFORE_MESSAGES = ("tools", "chat_template_kwargs")
#: The parameter with which a producer names requests that belong together.
NAMED = "prompt_cache_key"


@dataclass(frozen=True, slots=True)
class Prefix:
    """The beginning of a prompt: its digest, and its length in characters."""

    digest: str
    characters: int


def prefixes_of(values: Mapping[str, Any], default_model: str) -> list[Prefix]:
    """The beginnings of a request's prompt, the longest first; none where it has no prompt, or a short one.

    The producer's ``prompt_cache_key`` comes before them all, with the length of the whole prompt.

    Args:
        values: the parameters as they are sent; nothing is assumed of them.
        default_model: the model where they name none.
    """
    parts = list(_parts(values))
    name = values.get(NAMED)
    is_named = isinstance(name, str) and bool(name and parts)
    if not is_named and sum(map(len, parts)) < LEAST_CHARACTERS:
        return []
    model = values.get("model") or default_model
    before = {name: values[name] for name in BEFORE_MESSAGES if values.get(name)}
    hasher = hashlib.blake2b(_bytes(_text([model, before])), digest_size=8)
    blocks: list[Prefix] = []
    messages: list[Prefix] = []
    length = 0
    for part in parts:
        for block in BLOCKS:
            if length < block < length + len(part):
                to_block = hasher.copy()
                to_block.update(_bytes(part[: block - length]))
                blocks.append(Prefix(to_block.hexdigest(), block))
        hasher.update(_bytes(part))
        length += len(part)
        messages.append(Prefix(hasher.hexdigest(), length))
    kept = {*messages[:1], *messages[-LAST_MESSAGES:], *blocks}
    found = sorted(
        (prefix for prefix in kept if prefix.characters >= LEAST_CHARACTERS), key=lambda prefix: -prefix.characters
    )
    if is_named:
        named = hashlib.blake2b(_bytes(_text([model, NAMED, name])), digest_size=8)
        found.insert(0, Prefix(named.hexdigest(), length))
    return found


def _parts(values: Mapping[str, Any]) -> Iterator[str]:
    messages, prompt = values.get("messages"), values.get("prompt")
    if isinstance(messages, list):
        for message in messages:
            # The role first, as a template writes it: JSON's keys are sorted, and two long texts may part at their ends alone.
            yield f"{message.get('role') if isinstance(message, dict) else ''}\n{_text(message)}"
    elif isinstance(prompt, str):
        yield prompt


def _text(value: Any) -> str:
    return to_sorted_json(value)


def _bytes(text: str) -> bytes:
    return text.encode(errors="replace")
