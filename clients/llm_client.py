"""The command line ``llm``: a chat as a stream, a chat that may call a tool, an answer of a schema, and an error."""

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

TOOL = """
def look_up(color: str) -> str:
    "What is known of a color."
    return f"{color} is warm"
"""
SCHEMA = {
    "type": "object",
    "properties": {"is_warm": {"type": "boolean"}},
    "required": ["is_warm"],
    "additionalProperties": False,
}
MODELS = """
- model_id: fleet
  model_name: {MODEL}
  api_base: {BASE_URL}
- model_id: fleet-tools
  model_name: {TOOLS_MODEL}
  api_base: {BASE_URL}
  supports_tools: true
  supports_schema: true
- model_id: nobody
  model_name: acme/none
  api_base: {BASE_URL}
"""


def llm(folder, *arguments):
    """What a command ends with."""
    return subprocess.run(
        [sys.executable, "-m", "llm", *arguments],
        env={**os.environ, "LLM_USER_PATH": folder},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


with TemporaryDirectory() as folder:
    Path(folder, "extra-openai-models.yaml").write_text(MODELS.format(**os.environ), encoding="utf-8")
    done = llm(folder, "-m", "fleet", "-o", "max_tokens", "12", "Name three colors.")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()

    options = ("-m", "fleet-tools", "-o", "max_tokens", "60", "-o", "temperature", "0")
    # It has no way to say that a tool has to be called, and a small model decides against it: the answer is text then.
    done = llm(folder, *options, "--functions", TOOL, "Look up the color red with look_up.")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()

    done = llm(folder, *options, "--schema", json.dumps(SCHEMA), "Is red warm?")
    assert done.returncode == 0, done.stderr
    assert isinstance(json.loads(done.stdout)["is_warm"], bool), done.stdout

    done = llm(folder, "-m", "nobody", "hello")
    assert done.returncode != 0
    assert "acme/none" in done.stderr, done.stderr
