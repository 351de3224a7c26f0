"""Server-sent events with FastAPI: pip install fastapi uvicorn; uvicorn examples.fastapi_sse:web --port 8080

curl -N "localhost:8080/chat?question=Why+is+the+sky+blue"
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from fastapi import FastAPI, HTTPException
from fastapi.responses import StreamingResponse

from celery_mlx import generate
from celery_mlx.errors import GenerationError, InvalidRequest, QueueFull

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from celery_mlx.client.result import GenerateResult

web = FastAPI()


@web.get("/chat")
async def chat(question: str, max_tokens: int = 128) -> StreamingResponse:
    """One answer as events; a client that leaves frees its place in the batch."""
    try:
        messages = [{"role": "user", "content": question}]
        result = await generate.adelay(messages=messages, max_tokens=max_tokens, require_worker=True)
    except InvalidRequest as error:
        raise HTTPException(400, str(error)) from error
    except QueueFull as error:
        raise HTTPException(429, str(error), {"Retry-After": str(int(error.retry_after_s or 1))}) from error
    except GenerationError as error:  # Redis is away, or no worker serves the model
        raise HTTPException(503, str(error)) from error
    return StreamingResponse(events(result), media_type="text/event-stream")


async def events(result: GenerateResult) -> AsyncIterator[str]:
    """The chunks of one answer, as server-sent events."""
    try:
        async for chunk in result.astream(idle_timeout=120, cancel_on_close=True):
            data = {"kind": chunk.kind, "text": chunk.text, "finish_reason": chunk.finish_reason}
            yield f"data: {json.dumps(data)}\n\n"
    except GenerationError as error:
        yield f"event: error\ndata: {json.dumps({'code': error.code, 'message': str(error)})}\n\n"
