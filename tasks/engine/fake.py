"""A model that computes nothing: deterministic, timed, without MLX, for tests and for measuring everything else.

It is called ``fake:STEP_MS``, with options behind it: ``fake:10:load_s=2:context=4096``, ``fake:0:load_error=REASON``,
``fake:0:load_exit=3``, whose process ends without a word, ``fake:10:weights_mb=64``, which takes so much memory.
``fake:10:dimensions=8`` makes vectors instead, and ``fake:10:ranks=1`` scores (:mod:`tasks.engine.embedding.fake`).
Token k of a request is a function of prompt, seed and k alone; some characters take two tokens. Words in a prompt make
faults: ``!crash@N`` ends the process before token N, ``!crash-once@N`` only where no attempt came before,
``!hang@N`` and ``!hang-once@N`` stop stepping for ever, ``!oom@N`` runs out of memory once, ``!break@N`` raises,
``!nan@N`` computes logits that are no numbers,
``!fail`` cannot be tokenised, ``!die`` ends the process meanwhile, and ``!slow@S`` takes S seconds.
``!think@N`` makes the first N tokens reasoning.
"""

from __future__ import annotations

import codecs
import hashlib
import os
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.engine.fake_options import fake_facts, load_fake, parse_options
from tasks.engine.generation.runner import Draw, OutOfDeviceMemory
from tasks.engine.text.piece import Piece
from tasks.engine.text.prompt import Prompt
from tasks.engine.text.stop import StopMatcher
from tasks.errors import InvalidRequest
from tasks.messages.engine import TokenLogprob

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tasks.engine.constraint.grammar import Grammar
    from tasks.engine.generation.sequence import Request
    from tasks.messages.answer import Kind
    from tasks.messages.engine import EngineConfig, Submit

CRASH_EXITCODE = 70
# fmt: off
_WORDS = (
    "time", "river", "light", "stone", "cloud", "garden", "window", "letter", "summer", "winter", "morning", "evening",
    "silver", "copper", "paper", "harbour", "mountain", "valley", "forest", "meadow", "island", "bridge", "market",
    "village", "station", "lantern", "mirror", "ribbon", "anchor", "compass", "feather", "naïve", "café", "über", "façade",
    "señor", "jalapeño", "crème", "brûlée", "Zürich", "København", "Ελλάδα", "Москва", "東京", "서울", "العربية", "नमस्ते",
)
# fmt: on
_EMOJI = "🌍🚀🎈🦊🌻🍀🐙🎻"
#: Every eighth pair of tokens from the sixth on is one emoji, cut in two in the middle of its bytes.
_PERIOD, _HEAD, _TAIL = 8, 5, 6
_VOCABULARY: tuple[bytes, ...] = (
    *(f"{word} ".encode() for word in _WORDS),
    *(sign.encode()[:2] for sign in _EMOJI),
    *(sign.encode()[2:] + b" " for sign in _EMOJI),
)
_FAULT = re.compile(r"!(crash|crash-once|hang|hang-once|oom|break|nan)@(\d+)")
_THINK = re.compile(r"!think@(\d+)")
_SLOW = re.compile(r"!slow@(\d+(?:\.\d+)?)")
_PIECE = re.compile(r"\s*\S+|\s+$")


def fake_text(prompt: str, seed: int | None, n: int) -> str:
    """Return the answer of the fake engine with ``max_tokens=n`` to a raw prompt; messages count as :func:`chat_prompt`."""
    return b"".join(_VOCABULARY[fake_token(prompt, seed, k)] for k in range(n)).decode(errors="replace")


def fake_token(prompt: str, seed: int | None, k: int) -> int:
    """The id of token ``k``."""
    kind = k % _PERIOD
    if kind not in {_HEAD, _TAIL}:
        return _digest(prompt, seed, k) % len(_WORDS)
    sign = _digest(prompt, seed, k - kind) % len(_EMOJI)
    return len(_WORDS) + sign + (len(_EMOJI) if kind == _TAIL else 0)


def chat_prompt(messages: list[dict[str, Any]]) -> str:
    """The raw prompt that these messages stand for."""
    return "\n".join(f"{message.get('role')}: {message.get('content')}" for message in messages)


def _digest(prompt: str, seed: int | None, k: int) -> int:
    data = f"{seed}\0{k}\0{prompt}".encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


class FakeAssembler:
    """The fake vocabulary's text, cut at stop strings; the first ``reasoning_tokens`` are reasoning."""

    __slots__ = ("_left", "_matcher", "_utf8")

    def __init__(self, stop: tuple[str, ...], reasoning_tokens: int = 0) -> None:
        self._left = reasoning_tokens
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._matcher = StopMatcher(stop)

    @property
    def kind(self) -> Kind:
        """The kind of the next text."""
        return "reasoning" if self._left else "content"

    @property
    def stopped(self) -> bool:
        """Whether a stop string was completed."""
        return self._matcher.stopped

    @property
    def calls(self) -> int:
        """It calls nothing."""
        return 0

    @property
    def warnings(self) -> Sequence[str]:
        """Nothing to warn of."""
        return ()

    def push(self, token_id: int) -> list[Piece]:
        """Take a token, return the text that is safe to show."""
        text = self._utf8.decode(_VOCABULARY[token_id])
        if not self._left:
            return _pieces("content", self._matcher.push(text))
        self._left -= 1
        return _pieces("reasoning", text if self._left else text + self._utf8.decode(b"", final=True))

    def finish(self) -> list[Piece]:
        """Return the text that was held back."""
        held = self._utf8.decode(b"", final=True)
        return _pieces(self.kind, held if self._left else self._matcher.push(held) + self._matcher.finish())


def _pieces(kind: Kind, text: str) -> list[Piece]:
    return [Piece(kind, text)] if text else []


@dataclass(slots=True)
class _Row:
    request: Request
    prompt: str
    faults: dict[int, str]


class FakeRunner:
    """The fake model behind the engine's real loop. ``flush`` empties the pipe before a made-up crash."""

    gather_s = 0.0

    def __init__(self, config: EngineConfig, flush: Callable[[], None]) -> None:
        options = parse_options(config.model)
        self._weights = load_fake(config, options, flush)
        self.facts = fake_facts(config, options, len(self._weights))
        self.prefilled_tokens = 0
        self._step_s = options.step_ms / 1000
        self._beat = 0.0
        self._flush = flush
        self._rows: dict[int, _Row] = {}
        self._spent: set[str] = set()

    def encode(self, submit: Submit) -> Prompt:
        """One id for each word."""
        prompt = _raw_prompt(submit)
        if "!fail" in prompt.split():
            raise InvalidRequest("prompt: asked the fake engine to fail")
        if "!die" in prompt.split():
            self._flush()
            os._exit(CRASH_EXITCODE)
        if (slow := _SLOW.search(prompt)) is not None:
            time.sleep(float(slow[1]))
        return Prompt([_digest(piece, None, 0) % (1 << 31) for piece in _PIECE.findall(prompt)])

    def assembler(self, submit: Submit, prompt: Prompt, grammar: Grammar | None) -> FakeAssembler:
        """A new assembler."""
        thinks = _THINK.search(_raw_prompt(submit))
        return FakeAssembler(submit.stop, int(thinks[1]) if thinks else 0)

    def grammar(self, submit: Submit, prompt: Prompt) -> None:
        """None: its tokens are whole words, made up by a rule.

        Raises:
            InvalidRequest: a constraint is asked for.
        """
        if submit.is_bounded:
            raise InvalidRequest("the fake engine keeps to no constraint and no thinking_budget; use a real model")

    def shares_prefill(self, request: Request) -> bool:
        """Never."""
        return False

    def insert(self, request: Request) -> int:
        """Add a row, which decodes at once."""
        prompt = _raw_prompt(request.submit)
        faults = {int(index): fault for fault, index in _FAULT.findall(prompt)}
        self._rows[request.uid] = _Row(request, prompt, faults)
        self.prefilled_tokens += len(request.prompt) + len(request.ids)
        return 0

    def compute_alone(self, request: Request) -> list[Draw]:
        """Its first token."""
        return [self._draw(self._rows[request.uid])]

    def decode(self, pause: Callable[[], None] | None = None) -> list[Draw]:
        """One token for each row, ``step_ms`` after the last."""
        if not self._rows:
            return []
        rows = list(self._rows.values())
        if self._step_s:
            self._keep_time()
        if pause is not None:
            pause()
        return [self._draw(row) for row in rows]

    def prefill(self, pause: Callable[[], None] | None = None) -> list[Draw]:
        """Nothing to do: rows count as prefilled when they are added."""
        return []

    def remove(self, uids: Sequence[int], *, keep: bool) -> None:
        """Take rows out."""
        for uid in uids:
            self._rows.pop(uid, None)

    def limit_prompt_cache(self, most_bytes: int) -> None:
        """Nothing to do."""

    def reset(self) -> None:
        """Drop all rows."""
        self._rows.clear()

    def memory(self) -> None:
        """Unknown."""
        return

    def _keep_time(self) -> None:
        now = time.monotonic()
        # A step right after the last keeps the beat; after a pause a new beat starts.
        if now - self._beat > self._step_s:
            self._beat = now
        self._beat += self._step_s
        time.sleep(max(0.0, self._beat - now))

    def _draw(self, row: _Row) -> Draw:
        submit = row.request.submit
        index = len(row.request.ids)
        if row.faults:
            self._fault(row, index)
        token = fake_token(row.prompt, submit.sampling.seed, index)
        sound = "nan" not in self._due(row, index)
        return Draw(row.request.uid, token, sound, _logprob(row, index, token) if submit.sampling.logprobs else None)

    @staticmethod
    def _due(row: _Row, index: int) -> list[str]:
        return [fault for at, fault in row.faults.items() if index >= at]

    def _fault(self, row: _Row, index: int) -> None:
        due = self._due(row, index)
        first = row.request.submit.resume is None
        if "crash" in due or ("crash-once" in due and first):
            self._flush()
            os._exit(CRASH_EXITCODE)
        if "break" in due:
            raise RuntimeError("a prompt asked the fake engine to break")
        while "hang" in due or ("hang-once" in due and first):
            time.sleep(3600)
        if "oom" in due and row.request.task_id not in self._spent:
            self._spent.add(row.request.task_id)
            raise OutOfDeviceMemory("the fake engine was asked to run out of memory")


def _raw_prompt(submit: Submit) -> str:
    return chat_prompt(submit.messages or []) if submit.prompt is None else submit.prompt


def _logprob(row: _Row, index: int, token: int) -> TokenLogprob:
    """A made-up distribution: each alternative is half as likely as the one before."""
    others = [(token + n) % len(_VOCABULARY) for n in range(row.request.submit.sampling.top_logprobs)]
    top = tuple((other, _text(other), -0.7 * (n + 1)) for n, other in enumerate(others))
    return TokenLogprob(token, _text(token), -0.7, top)


def _text(token: int) -> str:
    return _VOCABULARY[token].decode(errors="replace")
