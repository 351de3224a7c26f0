"""What monitors may see of a request."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tasks.client.request.parameters import Parameters
from tasks.client.sending.redaction import redact
from tests.garbage import JSON


def test_shows_lengths() -> None:
    """Monitors see the model, the lengths and a few harmless numbers."""
    shown = redact(
        {
            "model": "m",
            "messages": [{"role": "user", "content": "a secret"}],
            "max_tokens": 5,
            "temperature": 0.5,
            "seed": 1,
        }
    )
    assert shown == "{model='m', messages=<1 messages, 8 characters>, max_tokens=5, temperature=0.5, seed=1}"
    assert redact({"prompt": "a secret"}) == "{prompt=<8 characters>}"


@given(
    JSON,
    st.sampled_from(sorted({*Parameters.model_fields, "secret"} - {"model", "max_tokens", "temperature", "seed"})),
)
def test_shows_no_word(value: Any, name: str) -> None:
    """No field that may hold a person's words is shown, whatever its shape."""
    shown = redact(
        {name: [value, "geheimnis"], "messages": [{"role": "geheimnis", "content": ["geheimnis"]}, "geheimnis"]}
    )
    assert "geheimnis" not in shown
