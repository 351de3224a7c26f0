"""An agent whose tools are Celery tasks: python -m examples.agent "How deep is the Baltic Sea?"

The tools run on a worker of their own, beside the fleet's: celery -A examples.agent worker -P threads
"""

import json
import os
import sys
from typing import Any

from celery import Celery, Task, chain, chord, uuid

from celery_mlx.generate import generate
from celery_mlx.worker_config.celeryconfig import broker_options
from celery_mlx.worker_config.settings import current_settings

app = Celery("agent", changes={**broker_options(current_settings()), "task_default_queue": "agent"})
app.conf.update(task_routes=("celery_mlx.models.routing.route_task",), task_acks_late=True)
app.conf.broker_transport_options |= {"visibility_timeout": 60, "unacked_restore_throttle": 1}  # after a worker's death
SEA = {"type": "object", "properties": {"sea": {"type": "string"}}, "required": ["sea"]}
TOOLS = [{"type": "function", "function": {"name": "depth", "parameters": SEA}}]
ROUNDS = 3  # of tools; then the model has to answer


@app.task(name="depth")
def depth(sea: str) -> str:
    return {"Baltic Sea": "459 m", "North Sea": "725 m"}.get(sea, "unknown")  # any work, with retries and limits


def turn(run: str, messages: list[dict[str, Any]], number: int = 0) -> Any:
    model, choice = os.environ.get("AGENT_MODEL", "qwen3-4b"), "auto" if number < ROUNDS else "none"
    ask = generate.s(messages=messages, tools=TOOLS, tool_choice=choice, model=model, temperature=0)
    return chain(ask.set(task_id=f"{run}.{number}"), act.s(messages, number))


@app.task(name="act", bind=True)
def act(self: Task, answer: dict[str, Any], messages: list[dict[str, Any]], number: int) -> Any:
    if not (calls := answer["tool_calls"]):
        return answer["text"]
    said = {"role": "assistant", "content": answer["text"], "tool_calls": calls}
    asked = [call["function"] for call in calls]
    tools = [app.tasks[tool["name"]].s(**json.loads(tool["arguments"])) for tool in asked]
    return self.replace(chord(tools, go_on.s([*messages, said], number + 1)))


@app.task(name="go_on", bind=True)
def go_on(self: Task, results: list[str], messages: list[dict[str, Any]], number: int) -> Any:
    ids = [call["id"] for call in messages[-1]["tool_calls"]]
    told = [{"role": "tool", "tool_call_id": id_, "content": text} for id_, text in zip(ids, results, strict=True)]
    return self.replace(turn(self.request.id, [*messages, *told], number))


def cancel(run: str) -> None:
    app.control.revoke([run, *(f"{run}.{number}" for number in range(ROUNDS + 1))], terminate=True)


if __name__ == "__main__":
    turn(run := uuid(), [{"role": "user", "content": sys.argv[1]}]).apply_async(task_id=run)
    print(run, app.AsyncResult(run).get(timeout=120))
