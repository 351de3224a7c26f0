"""Each index once and in order, whatever pub/sub drops, repeats or delays."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.client.reader.chunks import Assembly, Chunk
from tasks.messages.journal import TYPES, Claim, End, Entry, Error, Release, Start, Token, decode

END = End(attempt=1, index=0, finish_reason="stop", usage={})


def token(index: int, text: str, ids: int | None = None, attempt: int = 1, kind: str = "content") -> Token:
    count = len(text) if ids is None else ids
    return Token(attempt=attempt, index=index, ids=list(range(index, index + count)), text=text, kind=kind)


KINDS = st.sampled_from(["content", "reasoning"])


@st.composite
def journals(draw: st.DrawFn) -> list[Entry]:
    """A journal of one or more attempts, each going on where the one before it stopped, up to an end."""
    entries: list[Entry] = []
    index = 0
    for attempt, sizes in enumerate(draw(st.lists(st.lists(st.integers(0, 4), max_size=6), min_size=1, max_size=3)), 1):
        entries.append(Claim(attempt=attempt, worker=f"w{attempt}"))
        entries.append(
            Start(attempt=attempt, model="m", revision="r", prompt_tokens=3, cached_tokens=0, prompt_hash="h")
        )
        for size in sizes:
            if size:
                text = "".join(chr(97 + (index + i) % 26) for i in range(size))
                entries.append(token(index, text, attempt=attempt, kind=draw(KINDS)))
                index += size
    return [*entries, replace(END, index=index, attempt=entries[-1].attempt)]


@given(entries=journals(), data=st.data())
def test_every_interleaving(entries: list[Entry], data: st.DataObject) -> None:
    """Any mix of dropped, repeated and late messages with reads of the stream gives each index once, in order."""
    assembly = Assembly()
    chunks: list[Chunk] = []
    written = 0

    def keep(outcome: Chunk | Error | None) -> None:
        if outcome is not None:
            assert isinstance(outcome, Chunk)
            chunks.append(outcome)

    def read_stream() -> None:
        start = data.draw(st.integers(0, written), label="read from")
        assembly.gap = False
        for entry in entries[start:written]:
            keep(assembly.read(entry, whole=start == 0))
        if assembly.gap:
            assembly.gap = False
            for entry in entries[:written]:
                keep(assembly.read(entry, whole=True))

    while written < len(entries):
        written = data.draw(st.integers(written + 1, len(entries)), label="written")
        for place in data.draw(st.lists(st.integers(0, written - 1), max_size=6), label="heard"):
            keep(assembly.hear(entries[place]))
        if assembly.gap or data.draw(st.booleans(), label="silence"):
            read_stream()
    read_stream()
    if not assembly.ended:
        for entry in entries:
            keep(assembly.read(entry, whole=True))

    ids = [id_ for chunk in chunks for id_ in chunk.ids]
    assert ids == list(range(len(ids)))
    assert [chunk.index for chunk in chunks] == [sum(len(c.ids) for c in chunks[:i]) for i in range(len(chunks))]
    for kind in ("content", "reasoning"):
        whole = "".join(entry.text for entry in entries if isinstance(entry, Token) and entry.kind == kind)
        assert "".join(chunk.text for chunk in chunks if chunk.kind == kind) == whole
    assert [chunk.finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].finish_reason == "stop"


def test_gap_is_noticed() -> None:
    """A token or an end beyond the next index is held back and asks for the stream; so does every error."""
    late: list[Entry] = [token(3, "d"), replace(END, index=3), Error(attempt=1, code="expired", message="late")]
    for entry in late:
        assembly = Assembly()
        assert assembly.hear(token(0, "ab")) is not None
        assert assembly.hear(entry) is None
        assert assembly.gap


def test_missing_for_good() -> None:
    """What even the whole stream lacks is never passed over: what a later attempt writes in its place comes, or else an error."""
    assembly = Assembly()
    assert assembly.read(token(0, "ab"), whole=True) is not None
    assert assembly.read(token(3, "d"), whole=False) is None
    assert assembly.gap
    assembly.gap = False
    assert assembly.read(token(3, "d"), whole=True) is None
    assert not assembly.gap
    assert assembly.read(token(2, "c", attempt=2), whole=True) == Chunk(text="c", index=2, ids=[2])
    outcome = assembly.read(replace(END, index=5), whole=True)
    assert isinstance(outcome, Error)
    assert outcome.code == "journal_failed"
    assert "tokens 3 to 4 are missing" in outcome.message


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    "entry",
    [
        Token(attempt=1, index=1, ids=[9], text="x"),
        Token(attempt=1, index=2, ids=[2, 9, 4], text="x"),
        Token(attempt=2, index=0, ids=[0, 1, 2, 4], text="x"),
        replace(END, index=2, finish_reason="length"),
    ],
)
def test_another_answer(entry: Entry, whole: bool) -> None:
    """An answer that was computed again with other tokens, or fewer, than came out is one error, and nothing after it."""
    assembly = Assembly()
    assembly.hear(token(0, "abcd"))
    outcome = assembly.read(entry, whole=whole)
    assert isinstance(outcome, Error)
    assert outcome.code == "answer_changed"
    assert assembly.read(token(4, "e"), whole=whole) is None


def test_a_shorter_answer_that_was_cut() -> None:
    """A cancel or a deadline may end a request before what came out, where Redis has lost a part."""
    assembly = Assembly()
    assembly.hear(token(0, "abcd"))
    assert assembly.hear(replace(END, index=2, finish_reason="cancelled")) is not None
    assert assembly.ended


def test_another_claim_of_a_number() -> None:
    """A claim of a number that was seen, and is not the one that was seen, says that the stream is another one."""
    assembly = Assembly()
    first = Claim(attempt=1, worker="w1", nonce="a")
    for entry in (first, first, Claim(attempt=2, worker="w2", nonce="b")):
        assembly.hear(entry)
        assert not assembly.rewritten
    assembly.hear(first)
    assert assembly.rewritten
    assembly.read(Claim(attempt=1, worker="w3", nonce="c"), whole=True)
    assert not assembly.rewritten


def test_straddling_chunk() -> None:
    """A chunk that begins before what was seen and ends after it gives its new ids and its new text."""
    assembly = Assembly()
    assembly.hear(token(0, "abcd"))
    logprobs = [{"id": index} for index in range(2, 6)]
    chunk = assembly.hear(replace(token(2, "cdef"), logprobs=logprobs))
    assert chunk == Chunk(text="ef", index=4, ids=[4, 5], logprobs=logprobs[2:])


def test_straddling_chunk_of_two_kinds() -> None:
    """Where a lost journal was written again in other chunks, a kind's text is compared with what was said of that kind."""
    assembly = Assembly()
    for entry in (token(0, "xy", kind="reasoning"), token(2, "ab"), token(4, "xy", kind="reasoning")):
        assembly.hear(entry)
    chunk = assembly.hear(token(5, "yz", kind="reasoning"))
    assert chunk == Chunk(text="z", index=6, ids=[6], kind="reasoning")


class Counted(str):
    """A text that counts how often somebody took a part of it."""

    __slots__ = ()
    slices = 0

    def __getitem__(self, index: object) -> str:
        Counted.slices += 1
        return str(self)[index]  # type: ignore[index]


def test_a_long_straddling_chunk() -> None:
    """Of a chunk of any length no more is compared than what was said last: the thread that does it serves all readers."""
    assembly = Assembly()
    assembly.hear(token(0, "abcd"))
    chunk = assembly.hear(replace(token(2, "x", ids=4), text=Counted("cd" + "x" * 100_000)))
    assert isinstance(chunk, Chunk)
    assert chunk.text == "x" * 100_000
    assert Counted.slices <= 4 + 1


def test_text_without_ids() -> None:
    """Text of each kind that was held back to the end comes out once, though its index cannot tell it from its copy."""
    assembly = Assembly()
    assembly.hear(token(0, "a"))
    for kind in ("reasoning", "content"):
        flush = token(1, "tail", ids=0, kind=kind)
        assert assembly.hear(flush) == Chunk(text="tail", index=1, kind=kind)
        assert assembly.read(flush, whole=True) is None
    assert assembly.hear(replace(END, index=1)) == Chunk(text="", index=1, finish_reason="stop", usage={}, timing={})


def test_nothing_after_the_end() -> None:
    """After its end a journal says nothing more, and an error in the stream is an end."""
    assembly = Assembly()
    error = Error(attempt=1, code="expired", message="late")
    assert assembly.read(error, whole=True) == error
    assert assembly.read(token(0, "a"), whole=True) is None
    assert assembly.hear(error) is None
    assert not assembly.gap


def test_what_is_known() -> None:
    """Claims, starts and releases say who holds the request."""
    assembly = Assembly()
    assembly.hear(Claim(attempt=2, worker="w"))
    assembly.hear(Start(attempt=2, model="m", revision="r", prompt_tokens=9, cached_tokens=0, prompt_hash="h"))
    assert (assembly.worker, assembly.attempt, assembly.prompt_tokens) == ("w", 2, 9)
    assembly.hear(Release(attempt=2, crashed=False))
    assert assembly.worker is None


UNSOUND = st.fixed_dictionaries(
    {
        "index": st.none() | st.integers(-2, 2) | st.text(),
        "ids": st.none() | st.lists(st.integers()),
        "text": st.none() | st.text(),
        "kind": st.none() | st.text() | st.lists(st.text()),
        "logprobs": st.none() | st.integers(),
        "choice": st.integers(0, 1),
    }
)


@given(UNSOUND)
def test_unsound_tokens(values: dict[str, object]) -> None:
    """A token entry of the wrong shape, or of another choice, is skipped and breaks nothing."""
    assembly = Assembly()
    assembly.hear(Token(attempt=1, **values))  # type: ignore[arg-type]
    assert isinstance(assembly.next_index, int)
    assert assembly.next_index >= 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=1_000, deadline=None)
@given(st.sampled_from(sorted(TYPES)), st.data())
def test_malformed_entries(kind: str, data: st.DataObject) -> None:
    """Entries whose fields are of any type and shape break nothing, and what comes out has its promised types."""
    names = [field.name for field in fields(TYPES[kind])]
    record = {"type": kind, **data.draw(st.fixed_dictionaries({}, optional=dict.fromkeys(names, JSON)))}
    assembly = Assembly()
    entry = decode(json.dumps(record))
    outcome = None if entry is None else assembly.read(entry, whole=True)
    if isinstance(outcome, Chunk):
        assert isinstance(outcome.text, str)
        assert isinstance(outcome.finish_reason, str | None)
    assert assembly.ended == (outcome is not None and kind != "token")


@pytest.mark.parametrize(
    "payload",
    [b"", b"{", b"null", b"7", b"[" * 100_000, b'{"type":[]}', b'{"type":"token"}', b'{"v":1,"type":"later"}', b"\xff"],
)
def test_garbage(payload: bytes) -> None:
    """Payloads that are no entries of this version decode to nothing."""
    assert decode(payload) is None
