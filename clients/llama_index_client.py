"""LlamaIndex: a chat, a stream, a tool, an answer of a pydantic model, and an error."""

import os

from llama_index.core import PromptTemplate
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel


class Color(BaseModel):
    """One color."""

    is_warm: bool


def look_up(color: str) -> str:
    """What is known of a color."""
    return f"{color} is warm"


options = {"api_base": os.environ["BASE_URL"], "api_key": "none", "is_chat_model": True, "max_retries": 0}
chat = OpenAILike(model=os.environ["MODEL"], temperature=0, max_tokens=12, **options)
question = [ChatMessage(role="user", content="Name three colors.")]
text = chat.chat(question).message.content
assert text
assert list(chat.stream_chat(question))[-1].message.content == text
with_tools = OpenAILike(
    model=os.environ["TOOLS_MODEL"], temperature=0, max_tokens=60, is_function_calling_model=True, **options
)
tool = FunctionTool.from_defaults(look_up)
answer = with_tools.chat_with_tools([tool], user_msg="Look up red.", tool_required=True)
(call, *_) = with_tools.get_tool_calls_from_response(answer)
assert call.tool_name == "look_up", call
assert isinstance(call.tool_kwargs["color"], str), call
found = with_tools.structured_predict(Color, PromptTemplate("Is red warm?"))
assert isinstance(found.is_warm, bool), found
try:
    OpenAILike(model="acme/none", **options).chat(question)
except Exception as error:
    assert "404" in str(error), error
    assert "acme/none" in str(error), error
else:
    raise AssertionError("no error")
