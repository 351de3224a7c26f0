"""LangChain: a chat, a stream, a tool, an answer of a pydantic model, and an error."""

import os

from langchain_openai import ChatOpenAI
from pydantic import BaseModel


class Color(BaseModel):
    """One color."""

    is_warm: bool


options = {"base_url": os.environ["BASE_URL"], "api_key": "none", "max_retries": 0, "max_tokens": 12}
chat = ChatOpenAI(model=os.environ["MODEL"], temperature=0, **options)
answer = chat.invoke("Name three colors.")
assert answer.content
assert answer.usage_metadata["output_tokens"] > 0
chunks = list(chat.stream("Name three colors.", stream_usage=True))
assert "".join(chunk.content for chunk in chunks) == answer.content
assert any(chunk.usage_metadata for chunk in chunks)
with_tool = ChatOpenAI(model=os.environ["TOOLS_MODEL"], temperature=0, **{**options, "max_tokens": 60})
called = with_tool.bind_tools([Color], tool_choice="Color").invoke("Is red warm?")
assert isinstance(called.tool_calls[0]["args"]["is_warm"], bool)
found = with_tool.with_structured_output(Color, method="json_schema").invoke("Is red warm?")
assert isinstance(found.is_warm, bool)
try:
    ChatOpenAI(model="acme/none", **options).invoke("hello")
except Exception as error:
    assert "404" in str(error), error
    assert "acme/none" in str(error), error
else:
    raise AssertionError("no error")
