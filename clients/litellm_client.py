"""LiteLLM: a chat, a stream, a tool, an answer of a pydantic model, and an error."""

import json
import os

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # or it asks another host for prices

import litellm
from pydantic import BaseModel


class Color(BaseModel):
    """One color."""

    is_warm: bool


options = {"api_base": os.environ["BASE_URL"], "api_key": "none", "max_tokens": 12, "temperature": 0, "num_retries": 0}
messages = [{"role": "user", "content": "Name three colors."}]
model, tools_model = f"openai/{os.environ['MODEL']}", f"openai/{os.environ['TOOLS_MODEL']}"
answer = litellm.completion(model=model, messages=messages, **options)
text = answer.choices[0].message.content
assert text
assert answer.usage.completion_tokens > 0
stream = litellm.completion(model=model, messages=messages, stream=True, **options)
assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == text

options["max_tokens"] = 60
asked = [{"role": "user", "content": "Is red warm?"}]
function = {"name": "judge", "description": "Judge a color.", "parameters": Color.model_json_schema()}
called = litellm.completion(
    model=tools_model,
    messages=asked,
    tools=[{"type": "function", "function": function}],
    tool_choice="required",
    **options,
)
call, *_ = called.choices[0].message.tool_calls
assert call.function.name == "judge", call
assert isinstance(json.loads(call.function.arguments)["is_warm"], bool), call
found = litellm.completion(model=tools_model, messages=asked, response_format=Color, **options)
assert isinstance(Color.model_validate_json(found.choices[0].message.content).is_warm, bool)
try:
    litellm.completion(model="openai/acme/none", messages=messages, **options)
except litellm.NotFoundError:
    pass
else:
    raise AssertionError("no error")
