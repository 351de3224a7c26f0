"""Several tokens of a row in one step: forced ones of a grammar, and copied ones, beside an engine without drafts."""

from __future__ import annotations

import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import psutil

from benchmarks.bench import Row
from benchmarks.figures import at_least
from benchmarks.load import words
from benchmarks.parts.engine import loaded_engine
from benchmarks.processes import BenchmarkError
from tasks.demo.bundled import MODEL
from tasks.messages.constraint import Constraint
from tasks.messages.encoding import to_json
from tasks.messages.engine import EngineConfig, Failed, Finished, Sampling, StepOutput, Submit
from worker_config.cache import bundled_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.bench import Bench
    from benchmarks.figures import Findings, Metrics
    from tasks.worker.engines.process import EngineProcess

ROWS = 16
#: Compact JSON of which a good quarter of the tokens is forced: the names of its fields, but for their first tokens.
INVOICE = Constraint(
    kind="json_schema",
    value=to_json(
        {
            "type": "object",
            "properties": {
                "customer_name": {"type": "string", "maxLength": 24},
                "invoice_number": {"type": "integer", "minimum": 1, "maximum": 99_999},
                "currency": {"enum": ["EUR", "USD"]},
                "city": {"type": "string", "maxLength": 24},
            },
            "required": ["customer_name", "invoice_number", "currency", "city"],
            "additionalProperties": False,
        }
    ),
)
#: 2 is <|im_end|>, 0 <|endoftext|>: an answer that copies ends by its length.
ENDLESS = Sampling(temperature=0.0, logit_bias={0: -100.0, 2: -100.0})


def measure(bench: Bench, found: Findings) -> None:
    """On two engines of the bundled model, with drafts and without, in turns."""
    documents, copied = bench.size(3 * ROWS, 4), bench.size(96, 24)
    with ExitStack() as stack:
        engines = {
            "with drafts": stack.enter_context(_engine(drafts=True)),
            "without": stack.enter_context(_engine(drafts=False)),
        }

        def extract(name: str, number: int) -> Metrics:
            return _run(engines[name], [_extraction(f"{number}-{n}") for n in range(documents)])

        def copy(name: str, number: int) -> Metrics:
            return _run(engines[name], [_copying(f"{number}", copied)])

        for engine in engines.values():
            _run(engine, [_copying("warm", 16)])
        extracted = bench.in_turns("extraction", {name: partial(extract, name) for name in engines})
        repeated = bench.in_turns("copying", {name: partial(copy, name) for name in engines})
    found.figure(
        f"documents/s, {ROWS} rows of compact JSON, with forced tokens in one step / without",
        extracted.ratio("with drafts", "without", "requests_per_s"),
        target=at_least(1.1, 1.3),
    )
    found.figure(
        "tokens/s, a single stream that repeats its prompt, with copied tokens in one step / without",
        repeated.ratio("with drafts", "without", "tokens_per_s"),
        target=at_least(1.5, 2.0),
    )
    for about, samples in (("extraction", extracted), ("copying", repeated)):
        ratio = samples.ratio("without", "with drafts", "processor_s")
        found.figure(f"{about}: the engine's processor time, without drafts / with them", ratio)
    for name in engines:
        found.measured(f"extraction, {name}: decode steps", extracted.values(name, "steps"), "")
        found.measured(f"copying, {name}", repeated.values(name, "tokens_per_s"), "tokens/s")


def _engine(*, drafts: bool) -> EngineProcess:
    config = EngineConfig(model=MODEL, source=str(bundled_folder(MODEL)), max_batch=ROWS, drafts=drafts)
    return loaded_engine(config)


def _extraction(name: str) -> Submit:
    return Submit(
        task_id=name,
        messages=None,
        prompt=f"Invoice for {words(12, name)}. As JSON: ",
        max_tokens=120,
        sampling=Sampling(temperature=0.7, seed=1),
        constraint=INVOICE,
    )


def _copying(name: str, tokens: int) -> Submit:
    text = words(24, name)
    return Submit(task_id=name, messages=None, prompt=f"{text}\n" * 3, max_tokens=tokens, sampling=ENDLESS)


def _run(engine: EngineProcess, requests: Sequence[Submit]) -> Metrics:
    """All of them at once, of which as many run as the engine has rows."""
    process = psutil.Process(engine.pid)
    started, left, tokens, steps = time.perf_counter(), len(requests), 0, set[int]()
    spent_s = sum(process.cpu_times()[:2])
    for request in requests:
        engine.send(request)
    while left:
        message = engine.receive()
        assert isinstance(message, StepOutput)
        steps.add(message.step)
        for event in message.events:
            if isinstance(event, Failed):
                raise BenchmarkError(event.message)
            if isinstance(event, Finished):
                left, tokens = left - 1, tokens + event.completion_tokens
    seconds = time.perf_counter() - started
    return {
        "requests_per_s": len(requests) / seconds,
        "tokens_per_s": tokens / seconds,
        "steps": len(steps),
        "processor_s": sum(process.cpu_times()[:2]) - spent_s,
    }


ROW = Row("drafts", "Several tokens of a row in one step, beside an engine without drafts.", measure)
