"""``python -m benchmarks.structured``: answers by hundreds of schemas, each checked by another validator.

The schemas are generated, from a seed, or those of a folder: files with a schema each, or with a schema under ``schema``, as
the MaskBench data has them. Nothing that finished may be invalid; what was refused is counted by its reason.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema

from tasks.demo.bundled import ensure_model
from tasks.messages.constraint import Constraint
from tasks.messages.encoding import to_json
from tasks.messages.engine import (
    EngineConfig,
    Failed,
    Finished,
    LoadFailed,
    Ready,
    Sampling,
    Started,
    StepOutput,
    Submit,
    Tokens,
)
from tasks.worker.engines.process import EngineProcess

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FORMATS = ("date", "date-time", "time", "email", "ipv4", "uuid", "hostname", "uri")
PATTERNS = ("^[A-Z]{2,4}$", "^[0-9]{3}-[0-9]{2}$", "^(red|green|blue)s?$")
MOST_DEPTH = 3
AT_ONCE = 16


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; 1 if an answer that finished is invalid."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.structured", description=__doc__)
    parser.add_argument("--schemas", type=Path, help="a folder of JSON files; generated ones if left out")
    parser.add_argument("--model", type=Path, help="a model's folder; the bundled model if left out")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--temperature", type=float, default=0.0)
    options = parser.parse_args(arguments)
    schemas = _read(options.schemas) if options.schemas else generate(options.seed)
    asked = [schema for schema, _ in zip(schemas, range(options.count), strict=False)]
    sampling = Sampling(temperature=options.temperature, seed=options.seed)
    folder = options.model or ensure_model(lambda _about, _fraction: None)
    tally = _ask(folder, asked, options.max_tokens, sampling)
    print(tally.report(len(asked)))
    return 1 if tally.invalid else 0


def _read(folder: Path) -> Iterator[Any]:
    for path in sorted(folder.glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        yield found["schema"] if isinstance(found, dict) and isinstance(found.get("schema"), dict) else found


def generate(seed: int) -> Iterator[dict[str, Any]]:
    """Schemas like those of requests: closed objects of bounded values, some with definitions and alternatives."""
    number = 0
    while True:
        maker = _Maker(random.Random(f"{seed}-{number}"))
        yield maker.whole()
        number += 1


class _Maker:
    def __init__(self, draw: random.Random) -> None:
        self._draw = draw

    def whole(self) -> dict[str, Any]:
        schema = self._object(0)
        schema["$defs"] = {
            "Money": {"type": "object", "properties": {"amount": self._number(), "unit": {"enum": ["EUR", "USD"]}}}
        }
        schema["$defs"]["Money"] |= {"required": ["amount", "unit"], "additionalProperties": False}
        return schema

    def _value(self, depth: int) -> dict[str, Any]:
        kinds = ["text", "number", "enum", "boolean", "nullable", "ref"] + (
            ["object", "array", "union"] if depth < MOST_DEPTH else []
        )
        match self._draw.choice(kinds):
            case "text":
                return self._text()
            case "number":
                return self._number()
            case "enum":
                return {"enum": self._draw.sample(["a", "b", "ä", "日", 1, 2.5, None, True], 3)}
            case "boolean":
                return {"type": "boolean"}
            case "nullable":
                return {"type": ["string", "null"], "maxLength": 8}
            case "ref":
                return {"$ref": "#/$defs/Money"}
            case "object":
                return self._object(depth + 1)
            case "array":
                least = self._draw.randint(0, 2)
                return {"type": "array", "items": self._value(depth + 1), "minItems": least, "maxItems": least + 2}
        return {"anyOf": [self._value(depth + 1), self._value(depth + 1)]}

    def _text(self) -> dict[str, Any]:
        match self._draw.randrange(3):
            case 0:
                return {"type": "string", "format": self._draw.choice(FORMATS[:6])}
            case 1:
                return {"type": "string", "pattern": self._draw.choice(PATTERNS)}
        return {"type": "string", "minLength": self._draw.randint(0, 3), "maxLength": self._draw.randint(4, 16)}

    def _number(self) -> dict[str, Any]:
        least = self._draw.randint(-50, 50)
        kind = self._draw.choice(["integer", "number"])
        return {"type": kind, "minimum": least, "maximum": least + self._draw.randint(1, 5000)}

    def _object(self, depth: int) -> dict[str, Any]:
        names = [f"field_{number}" for number in range(self._draw.randint(1, 4))]
        required = [name for name in names if self._draw.random() < 0.8]
        properties = {name: self._value(depth) for name in names}
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


@dataclass(slots=True)
class _Tally:
    """What became of the schemas."""

    valid: int = 0
    cut_off: int = 0
    invalid: list[str] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)

    def report(self, asked: int) -> str:
        lines = [
            f"{asked} schemas: {self.valid} answers valid, {len(self.invalid)} invalid",
            f"  {self.cut_off} cut off by max_tokens, {self.refused.total()} refused, {self.failed.total()} failed",
        ]
        for about, counts in (("refused", self.refused), ("failed", self.failed)):
            lines += [f"  {about}, {count}: {reason}" for reason, count in counts.most_common()]
        return "\n".join([*lines, *(f"  invalid: {each}" for each in self.invalid)])


def _ask(folder: Path, schemas: list[Any], max_tokens: int, sampling: Sampling) -> _Tally:
    """Have the model answer by each of them, 16 at once."""
    tally, texts, started = _Tally(), [""] * len(schemas), set[int]()
    with EngineProcess.start(EngineConfig(model=folder.name, source=str(folder), max_batch=AT_ONCE)) as engine:
        while not isinstance(loaded := engine.receive(), Ready):
            if isinstance(loaded, LoadFailed):
                raise SystemExit(loaded.message)
        sent = ended = 0
        while ended < len(schemas):
            while sent < len(schemas) and sent - ended < AT_ONCE:
                engine.send(_request(sent, schemas[sent], max_tokens, sampling))
                sent += 1
            message = engine.receive()
            assert isinstance(message, StepOutput)
            for event in message.events:
                number = int(event.task_id)
                if isinstance(event, Tokens):
                    texts[number] += event.text
                elif isinstance(event, Started):
                    started.add(number)
                elif isinstance(event, Finished):
                    ended += 1
                    _judge(tally, event, texts[number], schemas[number])
                elif isinstance(event, Failed):
                    ended += 1
                    (tally.failed if number in started else tally.refused)[_reason(event.message)] += 1
                if isinstance(event, Finished | Failed):
                    print(f"\r{ended} of {len(schemas)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return tally


def _request(number: int, schema: Any, max_tokens: int, sampling: Sampling) -> Submit:
    return Submit(
        task_id=str(number),
        messages=[{"role": "user", "content": f"Give an example as JSON: {to_json(schema)[:600]}"}],
        prompt=None,
        max_tokens=max_tokens,
        sampling=sampling,
        constraint=Constraint(kind="json_schema", value=to_json(schema)),
    )


def _judge(tally: _Tally, end: Finished, text: str, schema: Any) -> None:
    if end.finish_reason != "stop":
        tally.cut_off += 1
        return
    try:
        validator = jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)
        validator(schema, format_checker=validator.FORMAT_CHECKER).validate(json.loads(text))
        tally.valid += 1
    except (ValueError, jsonschema.ValidationError) as error:
        tally.invalid.append(f"{str(error).splitlines()[0][:200]} in {text[:200]!r} by {to_json(schema)[:200]}")


def _reason(message: str) -> str:
    """A refusal without the place and the value."""
    said = message.partition(": ")[2]
    return (said.partition(": ")[2] if said.startswith("#") else said).partition("; ")[0][:80]


if __name__ == "__main__":
    sys.exit(main())
