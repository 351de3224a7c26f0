"""Answers that are data: schemas, tools, thoughts, expressions and choices, of a tiny model whose words are noise."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import jsonschema

from benchmarks.chaos.judge import Reading, Wanted, Way
from benchmarks.chaos.mix import said
from benchmarks.parts.catalogue import write_catalogue
from benchmarks.parts.scripted_model import byte_tokenizer
from benchmarks.parts.tiny_model import CHAT_TEMPLATE, SPECIAL_TOKENS, make_tiny_model

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping
    from pathlib import Path

MODEL = "tiny"
MARKERS = ("<think>", "</think>", "<tool_call>", "</tool_call>")
TEMPLATE = (
    "{% for tool in tools or [] %}{{ tool.function | tojson }}{% endfor %}"
    '{% if false %}<tool_call>{"name": "{{ tool_call.name }}"{% endif %}'
    + CHAT_TEMPLATE.replace("assistant\n{%", "assistant\n<think>{% if enable_thinking == false %}</think>{% endif %}{%")
)
#: So many prompts of each kind; every fifth request is drawn with a temperature, and has nothing to be compared with.
PROMPTS, HOT = 12, 5
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "é", "日本"]}, "minItems": 1, "maxItems": 4},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "note", "parameters": SCHEMA}}
EXPRESSION, CHOICES = r"[A-Z]{8}-\d{12}", ["the first", "the second", "neither"]
AT_ONCE = {"chat_template_kwargs": {"enable_thinking": False}}
THOUGHT = {"thinking_budget": 24}
FORMAT = {"response_format": {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA}}}
KINDS: dict[str, dict[str, Any]] = {
    "schema": {**AT_ONCE, **FORMAT},
    "thought and schema": {**THOUGHT, **FORMAT},
    "call": {**AT_ONCE, "tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False},
    "thought and call": {**THOUGHT, "tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False},
    "choice": {**THOUGHT, "choice": CHOICES},
    "regex": {**AT_ONCE, "regex": EXPRESSION},
    "grammar": {**AT_ONCE, "grammar": 'start: "(" /[a-z]{20,40}/ ")"'},
    "thought and text": THOUGHT,
}
WAYS = (Way.STREAM, Way.STREAM, Way.LATE, Way.BESIDE)


def make_catalogue(folder: Path) -> Path:
    """The catalogue with the model, which is made."""
    tokenizer = byte_tokenizer(SPECIAL_TOKENS, MARKERS)
    ids = tokenizer.get_vocab()
    ends = {"bos_token_id": ids[SPECIAL_TOKENS[0]], "eos_token_id": ids[SPECIAL_TOKENS[2]]}
    shape: dict[str, Any] = {"vocab_size": tokenizer.get_vocab_size(), **ends}
    model = make_tiny_model(folder / MODEL, chat_template=TEMPLATE, **shape)
    tokenizer.save(str(model / "tokenizer.json"))
    return write_catalogue(folder, {MODEL: model})


class Answers:
    """Requests with constraints, tools and thoughts. Greedy ones are compared with the same on a fleet that is left alone."""

    def __init__(self) -> None:
        self._known: dict[str, Wanted] = {}

    def learn(self) -> None:
        """Ask for every answer that is to be compared, while nothing disturbs the fleet."""
        from celery import group

        from tasks import generate

        readings = [Reading(number, 0, Way.LATE) for number in range(len(KINDS) * PROMPTS * 2) if number % HOT]
        asked = {json.dumps(self.parameters(reading)): reading for reading in readings}
        answers = group(generate.s(**json.loads(key)) for key in asked).apply_async().get(timeout=600)
        for (key, reading), answer in zip(asked.items(), answers, strict=True):
            if fault := self.fault(reading, answer):
                raise SystemExit(f"undisturbed: {fault}")
            self._known[key] = Wanted(said(answer), answer["usage"]["completion_tokens"], answer["finish_reason"])

    def reading(self, number: int, draw: random.Random) -> Reading:
        """The request of this number; all are read to their ends."""
        reading = Reading(number, 0, draw.choice(WAYS))
        wanted = self.wanted(reading)
        reading.tokens = wanted.tokens if wanted is not None else 0
        return reading

    def parameters(self, reading: Reading) -> dict[str, Any]:
        """The kinds take turns."""
        number = reading.number
        kind = list(KINDS)[number % len(KINDS)]
        text = f"{kind} {number // len(KINDS) % PROMPTS}"
        hot = {"temperature": 1.0, "seed": number} if number % HOT == 0 else {"temperature": 0}
        asked = {"messages": [{"role": "user", "content": text}], "model": MODEL, "max_tokens": 240}
        return {**asked, **hot, **KINDS[kind]}

    def wanted(self, reading: Reading) -> Wanted | None:
        """What the fleet said while it was left alone."""
        return self._known.get(json.dumps(self.parameters(reading)))

    def fault(self, reading: Reading, answer: Mapping[str, Any]) -> str | None:
        """Whether an answer that ended is what it has to be, by another validator; an answer that was cut off says so."""
        asked, text = self.parameters(reading), answer["text"]
        # Drawn at a temperature, a thought may end with its first token.
        if "thinking_budget" in asked and not asked["temperature"] and not answer["reasoning"]:
            return f"no thought before {text!r}"
        if answer["finish_reason"] == "length":
            return "it is cut off, and parsed" if answer.get("parsed") is not None else None
        if "warnings" in answer:
            return f"{answer['warnings']}"
        values = [answer["parsed"]] if "response_format" in asked else []
        if "tools" in asked:
            values = [json.loads(call["function"]["arguments"]) for call in answer["tool_calls"] or []] or [None]
        try:
            for value in values:
                jsonschema.validate(value, SCHEMA)
        except jsonschema.ValidationError as error:
            return f"{answer['tool_calls'] or text!r}: {error}"
        expression = {"regex": EXPRESSION, "grammar": r"\([a-z]{20,40}\)", "choice": "|".join(CHOICES)}
        wrong = [kind for kind, pattern in expression.items() if kind in asked and not re.fullmatch(pattern, text)]
        return f"{text!r} is no {wrong[0]}" if wrong else None
