from __future__ import annotations

import os
from pathlib import Path

import pytest

from worker_config.hub import hub_cache, hub_is_offline, hub_snapshot


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"HF_HUB_CACHE": "/a/hub", "HF_HOME": "/b"}, "/a/hub"),
        ({"HF_HOME": "/b"}, "/b/hub"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub"),
        ({"HUGGINGFACE_HUB_CACHE": "/a/hub", "HF_HOME": "/b"}, "/a/hub"),
        ({"HF_HOME": "$HOME/b"}, f"{os.environ['HOME']}/b/hub"),
        ({"HF_HUB_CACHE": "", "HF_HOME": ""}, str(Path("~/.cache/huggingface/hub").expanduser())),
    ],
)
def test_the_hubs_variables_say_where_its_cache_is(environ: dict[str, str], folder: str) -> None:
    """They count in the order in which the hub's own client reads them."""
    assert hub_cache(environ) == Path(folder)


@pytest.mark.parametrize(
    ("environ", "offline"),
    [
        ({"HF_HUB_OFFLINE": "yes"}, True),
        ({"TRANSFORMERS_OFFLINE": "1"}, True),
        ({"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "1"}, False),
        ({}, False),
    ],
)
def test_whether_the_hub_may_be_asked(environ: dict[str, str], offline: bool) -> None:
    """As its client reads it: the variable of transformers counts where the hub's own says nothing."""
    assert hub_is_offline(environ) is offline


def test_a_snapshot_is_found_by_branch_and_by_commit(tmp_path: Path) -> None:
    """main is the default; a commit needs no ref; what was not fetched is None."""
    model = tmp_path / "models--acme--One"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text("abc123")
    (model / "snapshots" / "abc123").mkdir(parents=True)
    environ = {"HF_HUB_CACHE": str(tmp_path)}
    assert hub_snapshot("acme/One", None, environ) == model / "snapshots" / "abc123"
    assert hub_snapshot("acme/One", "abc123", environ) == model / "snapshots" / "abc123"
    assert hub_snapshot("acme/One", "def456", environ) is None
    assert hub_snapshot("acme/Two", None, environ) is None
