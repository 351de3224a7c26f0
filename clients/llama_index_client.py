"""LlamaIndex: a chat, a stream, and an error."""

import os

from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

options = {"api_base": os.environ["BASE_URL"], "api_key": "none", "is_chat_model": True, "max_retries": 0}
chat = OpenAILike(model=os.environ["MODEL"], temperature=0, max_tokens=12, **options)
question = [ChatMessage(role="user", content="Name three colors.")]
text = chat.chat(question).message.content
assert text
assert list(chat.stream_chat(question))[-1].message.content == text
try:
    OpenAILike(model="acme/none", **options).chat(question)
except Exception as error:
    assert "404" in str(error), error
    assert "acme/none" in str(error), error
else:
    raise AssertionError("no error")
