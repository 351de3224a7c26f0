"""The command line ``llm``: a chat as a stream, a tool that it runs itself, an answer of a schema, and an error."""

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
    # A small model may go on and on: a chain's limit ends that, with an error.
    llm(folder, *options, "--functions", TOOL, "--cl", "2", "Look up the color red with look_up.")
    logged = json.loads(llm(folder, "logs", "--json", "-n", "0").stdout)
    calls = [call for answer in logged for call in answer["tool_calls"]]
    results = [result for answer in logged for result in answer["tool_results"]]
    assert calls[0]["name"] == "look_up", logged
    assert results[0]["output"].endswith(" is warm"), logged

    done = llm(folder, *options, "--schema", "is_warm bool", "Is red warm?")
    assert done.returncode == 0, done.stderr
    assert isinstance(json.loads(done.stdout)["is_warm"], bool), done.stdout

    done = llm(folder, "-m", "nobody", "hello")
    assert done.returncode != 0
    assert "acme/none" in done.stderr, done.stderr
