"""Prefix: what a prompt costs whose beginning the engine has computed before."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.bench import Row
from benchmarks.contenders.ours import asker
from benchmarks.figures import at_most
from benchmarks.load import Request, words
from benchmarks.processes import QUEUE, worker
from tasks.demo.bundled import MODEL

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from benchmarks.figures import Findings, Metrics

LENGTHS = (100, 500, 1500)
TAIL_TOKENS = 8


def measure(bench: Bench, found: Findings) -> None:
    """Cold and warm at three lengths, and the second turn of a conversation."""
    firsts: dict[str, list[float | None]] = {"cold": [], "warm": []}
    lengths = (100, 200) if bench.quick else LENGTHS
    with worker(bench, MODEL, 4):
        asker(MODEL)(Request(prompt=words(4, "warm"), max_tokens=2))
        for length in lengths:
            samples = bench.in_turns(f"prefix, {length} tokens", {"ours": partial(_twice, length)})
            target = at_most(0.06, 0.045) if length == LENGTHS[-1] else None
            ratio = samples.ratio("ours", "ours", "warm_ms", "cold_ms")
            found.figure(f"prefix of {length} tokens: first token, warm / cold", ratio, target=target)
            for how, values in firsts.items():
                found.measured(f"prefix of {length} tokens, {how}", samples.values("ours", f"{how}_ms"), "ms")
                values.append(samples.median("ours", f"{how}_ms"))
        turns = bench.in_turns("prefix, conversation", {"ours": _converse})
    ratio = turns.ratio("ours", "ours", "prefilled", "new")
    found.figure("second turn of a conversation: prefilled / new tokens", ratio, target=at_most(1.2, 1.0))
    found.measured("second turn of a conversation, prefilled", turns.values("ours", "prefilled"), "tokens")
    found.measured("second turn of a conversation, new", turns.values("ours", "new"), "tokens")
    found.chart("First token by prefix", "ms", [f"{length} tokens" for length in lengths], firsts)


def _twice(length: int, number: int) -> Metrics:
    """A prompt that nobody has sent before, then its beginning with another end."""
    prefix = words(length, "prefix", number, length)
    ask = asker(MODEL)
    cold, warm = (
        ask(Request(prompt=f"{prefix} {words(TAIL_TOKENS, tail, number)}", max_tokens=1)).first_ms
        for tail in ("a", "b")
    )
    return {"cold_ms": cold, "warm_ms": warm}


def _converse(number: int) -> Metrics:
    """Two turns; new is what the second one's prompt has beyond the first one's prompt and answer."""
    messages = [{"role": "user", "content": f"Tell me about these: {words(40, 'conversation', number)}."}]
    first = _chat(messages)
    messages += [
        {"role": "assistant", "content": first["text"]},
        {"role": "user", "content": f"And about these: {words(20, 'more', number)}?"},
    ]
    second = _chat(messages)["usage"]
    new = second["prompt_tokens"] - first["usage"]["prompt_tokens"] - first["usage"]["completion_tokens"]
    return {"new": new, "prefilled": second["prompt_tokens"] - second["cached_tokens"]}


def _chat(messages: list[dict[str, str]]) -> dict[str, Any]:
    from tasks import generate

    values = {"messages": messages, "model": MODEL, "max_tokens": 16, "temperature": 0}
    answer: dict[str, Any] = generate.apply_async(kwargs=values, queue=QUEUE).get(timeout=120)
    return answer


ROW = Row("prefix", "Time to the first token where the engine has computed the prompt's beginning before.", measure)
