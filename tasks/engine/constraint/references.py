"""Where the references of a JSON Schema lead, in the schema itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urljoin

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Keywords that give a schema an address: since draft 6, and in any draft.
_ADDRESSES = (("$id",), ("$id", "id"))
_NAMES = {"$id", "id", "$anchor"}
_NOWHERE = object()


class References:
    """Finds what references lead to: by a JSON pointer or an anchor, in the whole or in a part with an address of its own.

    See sections 8.2 and 9.2 of JSON Schema 2020-12, and section 6 of RFC 6901. Parts may be changed in place meanwhile.

    Args:
        root: the whole schema.
    """

    def __init__(self, root: Any) -> None:
        self.root = root
        self._documents: dict[str, Any] = {}
        self._anchors: dict[tuple[str, str], Any] = {}
        #: The addresses that references stand in, by the identity of their parts.
        self._bases: dict[int, tuple[str, ...]] = {}
        stack: list[tuple[Any, tuple[str, ...]]] = [(root, ("",) * len(_ADDRESSES))]
        while stack:
            value, bases = stack.pop()
            if isinstance(value, dict) and not _NAMES.isdisjoint(value):
                bases = tuple(self._entered(value, bases))
            if isinstance(value, dict) and "$ref" in value:
                self._bases[id(value)] = bases
            inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
            stack += [(part, bases) for part in inner if isinstance(part, dict | list)]

    def target(self, part: dict[str, Any]) -> Any:
        """Return the target of a schema's reference; ``None`` where it is not in the whole, or may be one of several."""
        found = self.targets(part)
        return found[0] if len(found) == 1 else None

    def targets(self, part: dict[str, Any]) -> list[Any]:
        """All that a schema's reference leads to, as one draft or another reads it."""
        reference = part.get("$ref")
        if not isinstance(reference, str):
            return []
        document, _, fragment = reference.partition("#")
        addresses = dict.fromkeys(_joined(base, document) for base in (*self._bases.get(id(part), ()), ""))
        found = {id(target): target for address in addresses if (target := self._at(address, fragment)) is not _NOWHERE}
        return list(found.values())

    def _entered(self, part: dict[str, Any], bases: tuple[str, ...]) -> Iterator[str]:
        """Note a part's names, and return the addresses that references in it stand in."""
        for base, keywords in zip(bases, _ADDRESSES, strict=True):
            here = base
            for address in (part.get(keyword) for keyword in keywords):
                if isinstance(address, str):
                    document, _, anchor = address.partition("#")
                    here = _joined(base, document)
                    if document:
                        self._documents.setdefault(here, part)
                    if anchor:  # until draft 7
                        self._anchors.setdefault((here, anchor), part)
            if isinstance(part.get("$anchor"), str):
                self._anchors.setdefault((here, part["$anchor"]), part)
            yield here

    def _at(self, address: str, fragment: str) -> Any:
        pointer = unquote(fragment)
        if (address, pointer) in self._anchors:
            return self._anchors[address, pointer]
        found = self._documents.get(address, _NOWHERE) if address else self.root
        if pointer and not pointer.startswith("/"):
            return _NOWHERE
        for name in pointer.split("/")[1:]:
            key = name.replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and key.isdecimal() and int(key) < len(found):
                found = found[int(key)]
            elif isinstance(found, dict) and key in found:
                found = found[key]
            else:
                return _NOWHERE
        return found


def _joined(base: str, document: str) -> str:
    if not document:
        return base
    try:
        return urljoin(base, document)
    except ValueError:  # it is no address
        return document
