"""Redacts a request for monitors."""

from __future__ import annotations

from typing import Any


def redact(values: dict[str, Any]) -> str:
    """The request as monitors may see it: the model and lengths, no word of the prompt."""
    shown = []
    # The model first: monitors cut long lines.
    for name, value in sorted(values.items(), key=lambda item: item[0] != "model"):
        if name == "messages" and isinstance(value, list):
            characters = sum(len(str(message.get("content") or "")) for message in value if isinstance(message, dict))
            shown.append(f"messages=<{len(value)} messages, {characters} characters>")
        elif name == "prompt":
            shown.append(f"prompt=<{len(str(value))} characters>")
        elif name == "input":
            count = len(value) if isinstance(value, list) else 1
            shown.append(f"input=<{count} inputs, {len(str(value))} characters>")
        elif name == "query":
            shown.append(f"query=<{len(str(value))} characters>")
        elif name == "documents":
            count = len(value) if isinstance(value, list) else 1
            shown.append(f"documents=<{count} documents, {len(str(value))} characters>")
        elif name in (
            "model",
            "max_tokens",
            "temperature",
            "seed",
            "dimensions",
            "encoding_format",
            "input_type",
            "top_n",
        ):
            shown.append(f"{name}={value!r}")
    return f"{{{', '.join(shown)}}}"
