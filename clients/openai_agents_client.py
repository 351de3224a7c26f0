"""openai-agents: a chat, a stream, a tool, an answer of a pydantic model, and an error, over both of OpenAI's interfaces."""

import asyncio
import os
from typing import Literal

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    RunConfig,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI, NotFoundError
from pydantic import BaseModel

set_tracing_disabled(True)
CLIENT = AsyncOpenAI(base_url=os.environ["BASE_URL"], api_key="none", max_retries=0)
#: openai-agents takes a response that was cut for an error, so the model has to come to an end by itself.
SETTINGS = ModelSettings(max_tokens=400, temperature=0)


class Color(BaseModel):
    """One color."""

    is_warm: bool


async def try_interface(interface: type) -> None:
    """All of it over one of OpenAI's interfaces."""
    model = interface(model=os.environ["MODEL"], openai_client=CLIENT)
    plain = Agent(name="painter", model=model, model_settings=SETTINGS)
    answer = await Runner.run(plain, "Hello!")
    assert answer.final_output
    stream = Runner.run_streamed(plain, "Hello!")
    events = [event async for event in stream.stream_events()]
    assert any(event.type == "raw_response_event" for event in events)
    assert stream.final_output == answer.final_output

    asked = []

    @function_tool
    def is_warm(color: Literal["red", "blue"]) -> str:
        """Whether a color is warm."""
        asked.append(color)
        return "yes"

    with_tool = Agent(
        name="painter",
        model=interface(model=os.environ["TOOLS_MODEL"], openai_client=CLIENT),
        model_settings=ModelSettings(max_tokens=400, temperature=0, tool_choice="required", parallel_tool_calls=False),
        tools=[is_warm],
        tool_use_behavior="stop_on_first_tool",
    )
    called = await Runner.run(with_tool, "Is red warm?", run_config=RunConfig(tracing_disabled=True))
    assert called.final_output == "yes"
    assert asked[0] in ("red", "blue")

    typed = Agent(name="painter", model=model, model_settings=SETTINGS, output_type=Color)
    found = await Runner.run(typed, "Is red warm?")
    assert isinstance(found.final_output.is_warm, bool)
    unknown = Agent(name="painter", model=interface(model="acme/none", openai_client=CLIENT), model_settings=SETTINGS)
    try:
        await Runner.run(unknown, "hello")
    except NotFoundError as error:
        assert error.code == "model_not_found", error
    else:
        raise AssertionError("no error")


async def main() -> None:
    """Try both interfaces."""
    for interface in (OpenAIChatCompletionsModel, OpenAIResponsesModel):
        await try_interface(interface)


asyncio.run(main())
