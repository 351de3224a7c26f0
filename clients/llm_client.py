"""The command line ``llm``: a chat as a stream."""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

with TemporaryDirectory() as folder:
    models = f"- model_id: fleet\n  model_name: {os.environ['MODEL']}\n  api_base: {os.environ['BASE_URL']}\n"
    Path(folder, "extra-openai-models.yaml").write_text(models, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "llm", "-m", "fleet", "-o", "max_tokens", "12", "Name three colors."],
        env={**os.environ, "LLM_USER_PATH": folder},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
