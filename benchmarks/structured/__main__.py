"""``python -m benchmarks.structured``: answers by hundreds of schemas, each checked by another validator.

The schemas are made up, from a seed, or those of a folder. Nothing that finished may be invalid; what was refused is counted by
its reason.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema

from benchmarks.parts.engine import loaded_engine
from benchmarks.structured.cost import measure
from benchmarks.structured.folder import of_json_schema, read
from benchmarks.structured.generated import generate
from tasks.demo.bundled import ensure_model
from tasks.messages.constraint import Constraint
from tasks.messages.encoding import to_json
from tasks.messages.engine import (
    EngineConfig,
    Failed,
    Finished,
    Sampling,
    Started,
    StepOutput,
    Submit,
    Tokens,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

AT_ONCE = 16


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, until all are answered or Ctrl-C; 1 if an answer that finished is invalid, or a request failed after it had begun."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.structured", description=__doc__)
    parser.add_argument("--schemas", type=Path, help="a folder of JSON files; schemas that are made up if left out")
    parser.add_argument("--known-only", action="store_true", help="drop keywords that JSON Schema does not have")
    parser.add_argument("--model", type=Path, help="a model's folder; the bundled model if left out")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--temperature", type=float, default=0.0)
    options = parser.parse_args(arguments)
    left_out = Counter[str]()
    schemas = read(options.schemas, left_out) if options.schemas else generate(options.seed)
    asked = [
        Asked(schema, of_json_schema(deepcopy(schema)) if options.known_only else schema)
        for schema in islice(schemas, options.count)
    ]
    sampling = Sampling(temperature=options.temperature, seed=options.seed)
    folder = options.model or ensure_model(lambda _about, _fraction: None)
    with suppress(KeyboardInterrupt):  # what has come is worth a report
        answer_all(folder, asked, options.max_tokens, sampling)
    ended = [request for request in asked if request.end is not None]
    tally = Tally(refused=left_out)
    for request in ended:
        tally.add(request)
    print(tally.report())
    cost = measure(folder, [(request.constraint, request.ids) for request in ended if request.ids])
    print("\n".join(cost.report()))
    return 1 if tally.invalid or tally.failed else 0


@dataclass(slots=True)
class Asked:
    """A schema, the one that was sent for it, and what came back."""

    schema: Any
    sent: Any
    started: bool = False
    ids: list[int] = field(default_factory=list)
    text: str = ""
    end: Finished | Failed | None = None

    @property
    def constraint(self) -> Constraint:
        """What the answer is held to."""
        return Constraint(kind="json_schema", value=to_json(self.sent))

    def add(self, event: Any) -> None:
        """Take what the engine says of it."""
        if isinstance(event, Tokens):
            self.ids += event.ids
            self.text += event.text
        elif isinstance(event, Started):
            self.started = True
        elif isinstance(event, Finished | Failed):
            self.end = event


@dataclass(slots=True)
class Tally:
    """What became of the schemas."""

    valid: int = 0
    cut_off: int = 0
    tokens: int = 0
    invalid: list[str] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    not_judged: Counter[str] = field(default_factory=Counter)

    def add(self, request: Asked) -> None:
        """Judge an answer that has come to its end."""
        self.tokens += len(request.ids)
        if isinstance(request.end, Failed):
            (self.failed if request.started else self.refused)[_reason(request.end.message)] += 1
        elif request.end is not None and request.end.finish_reason != "stop":
            self.cut_off += 1
        else:
            self._judge(request)

    def _judge(self, request: Asked) -> None:
        try:
            validator = jsonschema.validators.validator_for(request.schema, jsonschema.Draft202012Validator)
            validator(request.schema, format_checker=validator.FORMAT_CHECKER).validate(json.loads(request.text))
            self.valid += 1
        except re.error as error:  # an expression of JavaScript's that Python does not read
            self.not_judged[f"a pattern: {error.msg}"] += 1
        except (ValueError, jsonschema.ValidationError) as error:
            said = str(error).splitlines()[0][:200]
            self.invalid.append(f"{said} in {request.text[:200]!r} by {to_json(request.schema)[:200]}")

    def report(self) -> str:
        """All of it, in lines."""
        ended = self.valid + len(self.invalid) + self.not_judged.total()
        lines = [
            f"{ended + self.cut_off} answers of {self.tokens} tokens: {self.valid} valid, {len(self.invalid)} invalid,",
            f"  {self.cut_off} cut off by max_tokens, {self.not_judged.total()} not judged",
            f"  {self.refused.total()} schemas refused, {self.failed.total()} answers failed",
        ]
        for about in ("refused", "failed", "not_judged"):
            counts: Counter[str] = getattr(self, about)
            lines += [f"  {about}, {count}: {reason}" for reason, count in counts.most_common()]
        return "\n".join([*lines, *(f"  invalid: {fault}" for fault in self.invalid)])


def answer_all(folder: Path, asked: list[Asked], max_tokens: int, sampling: Sampling) -> None:
    """Have the model answer all of them, 16 at once."""
    with loaded_engine(EngineConfig(model=folder.name, source=str(folder), max_batch=AT_ONCE)) as engine:
        sent = ended = 0
        while ended < len(asked):
            while sent < len(asked) and sent - ended < AT_ONCE:
                engine.send(_request(sent, asked[sent], max_tokens, sampling))
                sent += 1
            message = engine.receive()
            assert isinstance(message, StepOutput)
            for event in message.events:
                asked[int(event.task_id)].add(event)
                if isinstance(event, Finished | Failed):
                    ended += 1
                    print(f"\r{ended} of {len(asked)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)


def _request(number: int, asked: Asked, max_tokens: int, sampling: Sampling) -> Submit:
    return Submit(
        task_id=str(number),
        messages=[{"role": "user", "content": f"Give a short example as JSON: {to_json(asked.schema)[:300]}"}],
        prompt=None,
        max_tokens=max_tokens,
        sampling=sampling,
        constraint=asked.constraint,
    )


def _reason(message: str) -> str:
    """A refusal without the place and the value."""
    said = message.partition(": ")[2]
    return (said.partition(": ")[2] if said.startswith("#") else said).partition("; ")[0][:80]


if __name__ == "__main__":
    sys.exit(main())
