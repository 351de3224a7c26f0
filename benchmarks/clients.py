"""``make clients``: other people's clients of OpenAI's interface, unmodified, against a gateway and a worker with a real model.

Each script of ``clients/`` runs in an installation of its own, in a temporary folder; it fails if its client does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING

from benchmarks.parts.catalogue import write_catalogue
from tasks.demo.bundled import ensure_model
from tasks.demo.embedded import EmbeddedServer, free_port
from tasks.demo.process import GuardedProcess
from worker_config.settings import environment_with

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parent.parent
SCRIPTS = ROOT / "clients"
MODEL = "smollm2-135m"
TOOLS_MODEL = "smollm2-tools"
INSTALL_S, RUN_S = 600, 300


@dataclass(frozen=True)
class Client:
    """One client: its script, and what is installed for it."""

    script: str
    packages: tuple[str, ...]

    @property
    def is_node(self) -> bool:
        """Whether npm installs it."""
        return self.script.endswith(".mjs")


CLIENTS = (
    Client("langchain_client.py", ("langchain-openai==1.7.4",)),
    Client("litellm_client.py", ("litellm",)),
    Client("llama_index_client.py", ("llama-index-llms-openai-like==0.8.1",)),
    Client("instructor_client.py", ("instructor==1.17",)),
    Client("llm_client.py", ("llm==0.36",)),
    Client("pydantic_ai_client.py", ("pydantic-ai-slim[openai]",)),
    Client("openai_agents_client.py", ("openai-agents",)),
    Client("schemathesis_client.py", ("schemathesis==4.32.5",)),
    Client("openai_node.mjs", ("openai@6",)),
    Client("ai_sdk.mjs", ("ai@6", "@ai-sdk/openai-compatible@2")),
)


def main(names: Sequence[str]) -> int:
    """Run all, or those whose scripts begin with one of these names; the number that failed."""
    chosen = [client for client in CLIENTS if not names or client.script.startswith(tuple(names))]
    source = ensure_model(lambda *_: None)
    failed = 0
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="clients-")))
        url = serve(stack, folder, write_catalogue(folder, {TOOLS_MODEL: with_tools(source, folder / TOOLS_MODEL)}))
        for client in chosen:
            said = _try(client, folder / client.script.replace(".", "-"), url)
            print(f"{client.script:24} {'ok' if said is None else 'FAILED'}", flush=True)
            if said is not None:
                failed += 1
                print(said)
    return failed


def with_tools(source: Path, folder: Path) -> Path:
    """The bundled model with a chat template that has tools, which its own leaves out."""
    folder.mkdir()
    for path in source.iterdir():
        if path.name not in ("tokenizer_config.json", "chat_template.jinja"):
            (folder / path.name).symlink_to(path)
    described = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))
    described["chat_template"] = (SCRIPTS / "tools.jinja").read_text(encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(described), encoding="utf-8")
    return folder


def serve(stack: ExitStack, folder: Path, catalogue: Path) -> str:
    """Redis, a worker with the bundled model and a gateway, until the stack ends; the gateway's address."""
    server = stack.enter_context(EmbeddedServer())
    port = free_port()
    environment = environment_with(REDIS_URL=server.url, CELERY_MLX_MODELS=MODEL, CELERY_MLX_CATALOGUE=str(catalogue))
    for name, options in (("worker", ("-c", "4")), ("gateway", ("--port", str(port)))):
        process = GuardedProcess(
            [sys.executable, "-m", "celery", "-A", "tasks", name, *options],
            log=folder / f"{name}.log",
            grace_s=20,
            env=environment,
        )
        stack.callback(process.stop)
    url = f"http://127.0.0.1:{port}/v1"
    ask = [sys.executable, "-m", "celery", "-A", "tasks", "ask", "--max-tokens", "1", "Hello"]
    subprocess.run(ask, env=environment, check=True, capture_output=True, timeout=RUN_S)
    return url


def _try(client: Client, folder: Path, url: str) -> str | None:
    """What a client said if it failed."""
    folder.mkdir()
    begun = time.monotonic()
    try:
        command = _install(client, folder)
        print(f"{client.script:24} installed in {time.monotonic() - begun:.0f} s", flush=True)
        subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "BASE_URL": url, "MODEL": MODEL, "TOOLS_MODEL": TOOLS_MODEL},
            check=True,
            capture_output=True,
            text=True,
            timeout=RUN_S,
        )
    except subprocess.CalledProcessError as error:
        return f"{error.stdout}{error.stderr}"
    except (subprocess.TimeoutExpired, OSError) as error:
        return str(error)
    return None


def _install(client: Client, folder: Path) -> list[str]:
    """Install what a client needs; the command that runs its script."""
    script = SCRIPTS / client.script
    if client.is_node:
        (folder / client.script).write_text(script.read_text(encoding="utf-8"), encoding="utf-8")
        _run(folder, "npm", "init", "-y")
        _run(folder, "npm", "install", "--silent", *client.packages)
        return ["node", client.script]
    _run(folder, sys.executable, "-m", "venv", "venv")
    uv = which("uv", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])))
    install = (
        [uv, "pip", "install", "--python", "venv/bin/python"] if uv else ["venv/bin/python", "-m", "pip", "install"]
    )
    _run(folder, *install, "--quiet", *client.packages)
    return [str(folder / "venv/bin/python"), str(script)]


def _run(folder: Path, *command: str) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=INSTALL_S)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
