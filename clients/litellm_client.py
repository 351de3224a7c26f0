"""LiteLLM: a chat, a stream, and an error."""

import os

import litellm

options = {"api_base": os.environ["BASE_URL"], "api_key": "none", "max_tokens": 12, "temperature": 0, "num_retries": 0}
messages = [{"role": "user", "content": "Name three colors."}]
model = f"openai/{os.environ['MODEL']}"
answer = litellm.completion(model=model, messages=messages, **options)
text = answer.choices[0].message.content
assert text
assert answer.usage.completion_tokens > 0
stream = litellm.completion(model=model, messages=messages, stream=True, **options)
assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == text
try:
    litellm.completion(model="openai/acme/none", messages=messages, **options)
except litellm.NotFoundError:
    pass
else:
    raise AssertionError("no error")
