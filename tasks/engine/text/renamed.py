"""A tokenizer in which the same characters may be a token or text, as the caller says."""

from __future__ import annotations

import json
import logging
import re
import secrets
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: As many tokens of a copy are tried: some vocabularies have thousands that are never used.
MOST_TRIED = 32

logger = logging.getLogger(__name__)


class Segment(NamedTuple):
    """A part of a text. In a ``literal`` one no characters are a token of these."""

    text: str
    literal: bool


class _Copy(NamedTuple):
    """A copy of a tokenizer, and the tokenizer's ids of the tokens that have others in it."""

    tokenizer: Any
    ids: Mapping[int, int]

    def encode(self, text: str) -> list[int]:
        """The copy's ids."""
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def original(self, ids: Iterable[int]) -> list[int]:
        """The tokenizer's ids for the copy's."""
        return [self.ids.get(token_id, token_id) for token_id in ids]


class RenamedTokenizer:
    """A copy of a tokenizer in which some tokens have other names, which no text has.

    In a literal segment their old names are ordinary text, which is cut into pieces and merged with its neighbours as any.
    Everything else is the tokenizer's own business: its rules for spaces around a token, its normaliser, its other tokens.
    The copy shares the vocabulary, so that making it takes milliseconds. Where the vocabulary itself can make such a token
    of text, a copy with another vocabulary is made: that takes a second or two for a large one.

    Args:
        hf: the tokenizer, of transformers.
        ids: the tokens to rename, by their names.
        names: a regular expression of the names, of those that begin alike the longest first.
    """

    def __init__(self, hf: Any, ids: Mapping[str, int], names: str) -> None:
        self._hf = hf
        self._names = re.compile(names)
        self._ids = frozenset(ids.values())
        nonce = secrets.token_hex(8)
        self._new = {name: f"\U00100000{nonce}{number:x}\U00100000" for number, name in enumerate(ids)}
        self._shared = self._checked(self._sharing())

    def encode(self, segments: Sequence[Segment]) -> list[int]:
        """The ids of these segments, as of one text."""
        if self._shared is None:
            return self._piecewise(segments)
        text = "".join(text if literal else self._renamed(text) for text, literal in segments)
        ids = self._shared.encode(text)
        if self._ids.isdisjoint(ids):
            return self._shared.original(ids)
        return self._thorough.original(self._thorough.encode(text))

    def _renamed(self, text: str) -> str:
        return self._names.sub(lambda match: self._new[match[0]], text)

    def _sharing(self) -> _Copy | None:
        """A copy with the tokenizer's own vocabulary; ``None`` for a tokenizer that is not Rust's."""
        backend = getattr(self._hf, "backend_tokenizer", None)
        if backend is None:
            return None
        from tokenizers import AddedToken, Tokenizer

        copy: Any = Tokenizer(backend.model)
        if backend.normalizer is not None:
            copy.normalizer = backend.normalizer
        if backend.pre_tokenizer is not None:
            copy.pre_tokenizer = backend.pre_tokenizer
        added = backend.get_added_tokens_decoder()
        rules = ("single_word", "lstrip", "rstrip", "normalized", "special")
        names = {token_id: self._new.get(token.content, token.content) for token_id, token in added.items()}
        copy.add_tokens(
            [
                AddedToken(names[token_id], **{rule: getattr(token, rule) for rule in rules})
                for token_id, token in sorted(added.items())
            ]
        )
        return _Copy(copy, {copy.token_to_id(name): token_id for token_id, name in names.items()})

    @cached_property
    def _thorough(self) -> _Copy:
        """A copy whose vocabulary has the new names too, so that no characters of a text become such a token."""
        from tokenizers import Tokenizer

        described, new = json.loads(self._hf.backend_tokenizer.to_str()), self._new
        added = {token["content"]: token["id"] for token in described["added_tokens"]}
        for token in described["added_tokens"]:
            token["content"] = new.get(token["content"], token["content"])
        model = described["model"]
        if isinstance(model["vocab"], dict):
            model["vocab"] = {new.get(name, name): token_id for name, token_id in model["vocab"].items()}
            model["merges"] = [pair for pair in model.get("merges", ()) if "".join(pair) not in new]
        else:
            model["vocab"] = [[new.get(name, name), score] for name, score in model["vocab"]]
        if model.get("unk_token") in new:
            model["unk_token"] = new[model["unk_token"]]
        copy: Any = Tokenizer.from_str(json.dumps({**described, "truncation": None, "padding": None}, allow_nan=False))
        return _Copy(copy, {copy.token_to_id(new.get(name, name)): token_id for name, token_id in added.items()})

    def _checked(self, copy: _Copy | None) -> _Copy | None:
        """The copy, if it reads the tokens, beside words and white space, as the tokenizer does."""
        if copy is None:
            return None
        for name in [*self._new][:MOST_TRIED]:
            text = f"a {name} b\n{name}{name}c"
            if copy.original(copy.encode(self._renamed(text))) != list(self._hf.encode(text, add_special_tokens=False)):
                logger.warning(
                    "%s does more than tokenizer.json says; control tokens in messages are cut", type(self._hf)
                )
                return None
        return copy

    def _piecewise(self, segments: Sequence[Segment]) -> list[int]:
        """The ids of the text cut behind the first character of each literal segment, so that none is a token."""
        ids: list[int] = []
        before = ""
        for text, literal in segments:
            before += text[:1] if literal else text
            if literal:
                ids += self._hf.encode(before, add_special_tokens=False)
                before = text[1:]
        return [*ids, *self._hf.encode(before, add_special_tokens=False)] if before else ids


def alternatives(names: Iterable[str]) -> str:
    """A regular expression of these names, the longest first; as a tree, since a vocabulary has up to thousands of them."""
    tree: dict[str, Any] = {}
    for name in names:
        node = tree
        for char in name:
            node = node.setdefault(char, {})
        node[""] = {}
    return _branches(tree) or "(?!)"


def _branches(tree: dict[str, Any]) -> str:
    branches = [re.escape(char) + _branches(below) for char, below in tree.items() if char]
    if not branches:
        return ""
    joined = branches[0] if len(branches) == 1 and "" not in tree else f"(?:{'|'.join(branches)})"
    return f"{joined}?" if "" in tree else joined
