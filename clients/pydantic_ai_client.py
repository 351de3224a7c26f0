"""pydantic-ai: a chat, a stream, a tool, an answer of a pydantic model, and an error."""

import asyncio
import os

from pydantic import BaseModel
from pydantic_ai import Agent, ModelHTTPError
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.output import NativeOutput
from pydantic_ai.providers.openai import OpenAIProvider

PROVIDER = OpenAIProvider(base_url=os.environ["BASE_URL"], api_key="none")
SETTINGS = {"max_tokens": 60, "temperature": 0}


class Color(BaseModel):
    """One color."""

    is_warm: bool


def agent(model: str = os.environ["MODEL"], **options: object) -> Agent:
    """An agent of this model."""
    return Agent(OpenAIChatModel(model, provider=PROVIDER), model_settings=SETTINGS, retries=0, **options)


async def main() -> None:
    """Try all of it."""
    answer = await agent().run("Name three colors.")
    assert answer.output
    assert answer.usage.output_tokens > 0
    async with agent().run_stream("Name three colors.") as stream:
        assert "".join([text async for text in stream.stream_text(delta=True)]) == answer.output

    asked = []

    def is_warm(color: str) -> bool:
        """Whether a color is warm."""
        asked.append(color)
        return True

    # As an output, the tool has to be called, and its result ends the run: a small model would not come to an end otherwise.
    called = await agent(os.environ["TOOLS_MODEL"], output_type=is_warm).run("Is red warm?")
    assert called.output is True
    assert isinstance(asked[0], str)

    found = await agent(output_type=NativeOutput(Color)).run("Is red warm?")
    assert isinstance(found.output.is_warm, bool)
    try:
        await agent("acme/none").run("hello")
    except ModelHTTPError as error:
        assert error.status_code == 404, error
        assert "model_not_found" in str(error), error
    else:
        raise AssertionError("no error")


asyncio.run(main())
