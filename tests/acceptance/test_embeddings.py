"""A real embedding model on a real worker: its vectors are those of another implementation, and they mean something."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from benchmarks.parts.minilm import fetched_minilm
from tasks.engine.embedding.tokens import TextTokens
from tasks.models.embedding import read_recipe
from tests.reference_encoder import ReferenceEncoder, cosines
from tests.support import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import StartWorker

#: Of 3 to 100 tokens.
TEXTS = ["hi", "A man is eating food.", "Бананы 🍌 and naïve cafés", "The quick brown fox jumps. " * 15]

ASK = """
import json, sys
from celery_mlx import embed
texts = json.loads(sys.argv[1])
together = embed.delay(input=texts, model="all-minilm-l6-v2").get(timeout=120)["data"]
alone = [embed.delay(input=text, model="all-minilm-l6-v2").get(timeout=120)["data"][0] for text in texts]
print(json.dumps([[each["embedding"] for each in answers] for answers in (together, alone)]))
"""


@pytest.fixture
def environment(worker: StartWorker, tmp_path: Path) -> dict[str, str]:
    """What a producer and a worker need for the model to be the one on the disk."""
    catalogue = tmp_path / "catalogue.toml"
    source = json.dumps(str(fetched_minilm()))
    catalogue.write_text(f'[[models]]\nname = "all-minilm-l6-v2"\nsource = {source}\nparameters_b = 0.0227\n')
    env = {"CELERY_MLX_CATALOGUE": str(catalogue), "CELERY_MLX_MODELS": "all-minilm-l6-v2"}
    worker("-c", "4", env=env)
    return {**os.environ, **env}


def output(environment: dict[str, str], *arguments: str) -> str:
    ended = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_all_minilm(environment: dict[str, str]) -> None:
    """Alone and in a mixed batch each vector has a cosine above 0.9999 to numpy's in double precision; the example finds what is
    meant."""
    together, alone = map(np.array, json.loads(output(environment, "-c", ASK, json.dumps(TEXTS))))
    folder = fetched_minilm()
    recipe, reference = read_recipe(folder), ReferenceEncoder(folder)
    assert recipe is not None
    rows = TextTokens(folder, recipe, 512).rows(TEXTS, None, None)
    wanted = np.array([reference.hidden(row.ids).mean(axis=0) for row in rows])
    assert [min(cosines(found, wanted)) > 0.9999 for found in (together, alone)] == [True, True]
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    ranked = output(environment, "examples/search.py", "what happens when a machine dies?").splitlines()
    assert "A worker that is killed loses nothing" in ranked[0]
    assert "384 dimensions" in ranked[-1]
