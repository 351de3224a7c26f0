"""LangChain: a chat, a stream, and an error."""

import os

from langchain_openai import ChatOpenAI

options = {"base_url": os.environ["BASE_URL"], "api_key": "none", "max_retries": 0, "max_tokens": 12}
chat = ChatOpenAI(model=os.environ["MODEL"], temperature=0, **options)
answer = chat.invoke("Name three colors.")
assert answer.content
assert answer.usage_metadata["output_tokens"] > 0
chunks = list(chat.stream("Name three colors.", stream_usage=True))
assert "".join(chunk.content for chunk in chunks) == answer.content
assert any(chunk.usage_metadata for chunk in chunks)
try:
    ChatOpenAI(model="acme/none", **options).invoke("hello")
except Exception as error:
    assert "model_not_found" in str(error), error
else:
    raise AssertionError("no error")
