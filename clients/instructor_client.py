"""instructor: an answer of a pydantic model by a JSON schema, whole and as a stream, by a tool, and an error."""

import os

import instructor
from openai import NotFoundError, OpenAI
from pydantic import BaseModel


class Color(BaseModel):
    """One color."""

    is_warm: bool


openai = OpenAI(base_url=os.environ["BASE_URL"], api_key="none", max_retries=0)
by_schema = instructor.from_openai(openai, mode=instructor.Mode.JSON_SCHEMA).chat.completions
by_tool = instructor.from_openai(openai, mode=instructor.Mode.TOOLS).chat.completions
ask = {
    "messages": [{"role": "user", "content": "Is red warm?"}],
    "response_model": Color,
    "max_tokens": 60,
    "temperature": 0,
}
color = by_schema.create(model=os.environ["MODEL"], max_retries=0, **ask)
assert isinstance(color.is_warm, bool)
*_, last = by_schema.create_partial(model=os.environ["MODEL"], **ask)
assert last.is_warm == color.is_warm
color = by_tool.create(model=os.environ["TOOLS_MODEL"], max_retries=0, **ask)
assert isinstance(color.is_warm, bool)
try:
    by_schema.create(model="acme/none", max_retries=0, **ask)
except Exception as error:
    assert isinstance(error, NotFoundError) or "404" in str(error), error
else:
    raise AssertionError("no error")
