"""What a model's authors wrote into its files decides, through the whole product; the catalogue's word goes before it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.parts.tiny_model import CHAT_TEMPLATE, CONTEXT_TOKENS, make_tiny_model

if TYPE_CHECKING:
    from celery import Celery

    from tasks.generate import GenerateTask
    from tests.conftest import StartWorker

pytestmark = pytest.mark.xdist_group("model-files")
WAIT_S = 60.0

GENERATION = "generation_config.json"
NAMED = "additional_chat_templates/rag.jinja"

SCRIPT = "say it"
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": CONTEXT_TOKENS}

#: Models by name: files that are put beside those of the tiny model, and what its catalogue entry says.
MODELS: dict[str, tuple[dict[str, Any], str]] = {
    "random": ({}, ""),
    "top-k-1": ({GENERATION: {"do_sample": True, "temperature": 0.6, "top_k": 1, "eos_token_id": [None]}}, ""),
    "catalogued": ({GENERATION: {"top_k": 1}}, "defaults = { top_k = 0 }"),
    "yarn-8k": ({"config": {"rope_scaling": YARN}}, ""),
    "plain-8k": ({}, "context_tokens = 8192"),
    "template-by-name": ({NAMED: CHAT_TEMPLATE}, 'chat_template = "rag"'),
}


@pytest.fixture(scope="module")
def generate(shared_app: Celery) -> GenerateTask:
    from tasks import generate

    return generate


@pytest.fixture(scope="module", autouse=True)
def node(shared_worker: StartWorker, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A worker whose catalogue names the models above."""
    root = tmp_path_factory.mktemp("models")
    entries = []
    for name, (files, entry) in MODELS.items():
        made = {"script": SCRIPT, **files.get("config", {})} if name.endswith("8k") else {}
        folder = make_tiny_model(root / name, chat_template=not name.startswith("template"), **made)
        for path, content in files.items():
            if path == "config":
                continue
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(content if isinstance(content, str) else json.dumps(content))
        entries.append(f'[[models]]\nname = "{name}"\nsource = "{folder}"\n{entry}\n')
    catalogue = root / "models.toml"
    catalogue.write_text("".join(entries))
    shared_worker(
        "-c", "6", "-Q", "tier-under-3B", env={"CELERY_MLX_CATALOGUE": str(catalogue), "CELERY_MLX_MODELS": ""}
    )


def ask(generate: GenerateTask, model: str, **values: Any) -> Any:
    """Sent raw: this process's catalogue has other models."""
    prompt = {} if "messages" in values else {"prompt": "hello"}
    kwargs = {"model": model, "max_tokens": 8, **prompt, **values}
    return generate.app.send_task("tasks.generate", kwargs=kwargs, queue="tier-under-3B")


@pytest.mark.parametrize(("model", "alike"), [("top-k-1", True), ("random", False), ("catalogued", False)])
def test_the_authors_sampling_is_used_where_nobody_says_otherwise(
    generate: GenerateTask, model: str, alike: bool
) -> None:
    """``top_k: 1`` makes requests alike, unless the catalogue switches the filter off."""
    sent = [ask(generate, model) for _ in range(4)]
    texts = {result.get(timeout=WAIT_S)["text"] for result in sent}
    assert (len(texts) == 1) is alike


def test_a_request_goes_before_the_authors(generate: GenerateTask) -> None:
    """A seed and a temperature of its own make it draw as it does from a model without defaults."""
    values = {"temperature": 1.0, "top_k": 0, "seed": 5}
    own, plain = ask(generate, "top-k-1", **values), ask(generate, "random", **values)
    assert own.get(timeout=WAIT_S)["text"] == plain.get(timeout=WAIT_S)["text"]


def test_a_template_is_chosen_by_the_catalogue(generate: GenerateTask) -> None:
    """The prompt is as long as with the same template as the model's default."""
    messages = [{"role": "user", "content": "hello"}]
    usual, here = ask(generate, "random", messages=messages), ask(generate, "template-by-name", messages=messages)
    tokens = [result.get(timeout=WAIT_S)["usage"]["prompt_tokens"] for result in (usual, here)]
    assert tokens[0] == tokens[1] > len("hello")


def test_a_context_of_8192_tokens_is_used(generate: GenerateTask) -> None:
    """A rotary scaling's factor counts, and a catalogue may say more than config.json. Both models load at once, each with a
    request that is longer than what an engine starts with, and wait for what the other gives back."""
    sent = [ask(generate, model, max_tokens=6000, temperature=0) for model in ("yarn-8k", "plain-8k")]
    assert [result.get(timeout=WAIT_S)["text"] for result in sent] == [SCRIPT, SCRIPT]
