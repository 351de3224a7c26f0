"""instructor: an answer of a pydantic model, by a JSON schema."""

import os

import instructor
from openai import OpenAI
from pydantic import BaseModel


class Color(BaseModel):
    """One color."""

    is_warm: bool


client = instructor.from_openai(
    OpenAI(base_url=os.environ["BASE_URL"], api_key="none", max_retries=0), mode=instructor.Mode.JSON_SCHEMA
)
color = client.chat.completions.create(
    model=os.environ["MODEL"],
    messages=[{"role": "user", "content": "Is red warm?"}],
    response_model=Color,
    max_tokens=60,
    temperature=0,
    max_retries=0,
)
assert isinstance(color.is_warm, bool)
