from __future__ import annotations

import json
import os
import pickle
import re
from dataclasses import fields
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.client.request.embedding import EMBEDDING
from tasks.client.request.parameters import Parameters
from tasks.messages.engine import Sampling
from worker_config.catalogue import Catalogue, ModelNotAllowed, load_catalogue
from worker_config.environment import SettingError
from worker_config.model_entry import DEFAULT_FIELDS, ModelEntry, is_hub_id
from worker_config.settings import Settings
from worker_config.tiers import TIERS, tier_named

if TYPE_CHECKING:
    from pathlib import Path

WHOLE = """\
allow = ["acme/*", "other/one"]
builtin_models = false

[[models]]
name = "house-model"
source = "acme/House-7B"
parameters_b = 6.74
context_tokens = 4096
tier = "13-27B"
revision = "v2"
trust_remote_code = true
keep_alive_s = 0
defaults = { temperature = 0.2, stop = ["END"] }
"""


def catalogue_of(folder: Path, text: str, *, allow_fake: bool = False) -> Catalogue:
    path = folder / "catalogue.toml"
    path.write_text(text, encoding="utf-8")
    return load_catalogue(Settings(catalogue=str(path), allow_fake=allow_fake))


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(SettingError) as refused:
        catalogue_of(folder, text)
    message = str(refused.value)
    assert str(folder / "catalogue.toml") in message
    return message


def built_in() -> Catalogue:
    return load_catalogue(Settings())


def test_the_built_in_catalogue_has_models_of_every_tier() -> None:
    """It can be read, each tier has a model, and the default model of the settings is the bundled one."""
    catalogue = built_in()
    sizes = [entry.parameters_b or 0.0 for entry in catalogue.models.values()]
    bounds = [tier.parameters_from_b for tier in TIERS]
    for low, high in zip(bounds, [*bounds[1:], 10_000], strict=True):
        assert any(low <= round(size) < high for size in sizes)
    default = catalogue.resolve(Settings().default_model)
    assert (default.kind, default.source, default.context_tokens) == ("bundled", "smollm2-135m", 8192)


def test_no_built_in_model_may_run_code_of_its_own() -> None:
    """trust_remote_code is off, for entries and for what a pattern allows."""
    catalogue = built_in()
    assert not any(entry.trust_remote_code for entry in catalogue.models.values())
    assert not catalogue.resolve("mlx-community/Anything-7B-4bit").trust_remote_code


def test_every_field_of_an_entry_arrives(tmp_path: Path) -> None:
    """What the file says is what the entry has, and the built-in models are gone where it says so."""
    catalogue = catalogue_of(tmp_path, WHOLE)
    assert list(catalogue.models) == ["house-model"]
    entry = catalogue.resolve("house-model")
    assert entry == ModelEntry(
        name="house-model",
        kind="hub",
        source="acme/House-7B",
        parameters_b=6.74,
        context_tokens=4096,
        tier=tier_named("13-27B"),
        defaults={"temperature": 0.2, "stop": ["END"]},
        revision="v2",
        trust_remote_code=True,
        keep_alive_s=0.0,
    )
    assert pickle.loads(pickle.dumps(entry)) == entry  # noqa: S301 - entries travel to the engine's process
    assert hash(entry)


def test_a_file_is_read_on_top_of_the_built_in_one(tmp_path: Path) -> None:
    """A model of the same name is replaced, the others stay, and so do the lists that the file leaves out."""
    catalogue = catalogue_of(tmp_path, '[[models]]\nname = "qwen3-8b"\nsource = "acme/Mine"\nparameters_b = 8\n')
    assert catalogue.resolve("qwen3-8b").source == "acme/Mine"
    assert catalogue.resolve("llama-3.2-1b").kind == "hub"
    assert catalogue.allow == built_in().allow


def test_an_empty_allow_serves_nothing_but_entries(tmp_path: Path) -> None:
    """The fleet can be closed to all but what is listed."""
    catalogue = catalogue_of(tmp_path, "allow = []\n")
    assert catalogue.resolve("qwen3-8b").name == "qwen3-8b"
    with pytest.raises(ModelNotAllowed):
        catalogue.resolve("mlx-community/Mistral-7B-Instruct-v0.3-8bit")


def test_an_entry_is_found_by_its_hub_id_too() -> None:
    """Who asks for the id gets the entry with all that is known of it."""
    assert built_in().resolve("mlx-community/Qwen3-8B-4bit").name == "qwen3-8b"


def test_a_pattern_allows_hub_ids_and_minds_case(tmp_path: Path) -> None:
    """Patterns are the shell's, exact in case, and never reach beyond one owner and one name."""
    catalogue = catalogue_of(tmp_path, 'allow = ["acme/Big-*", "*"]\n')
    entry = catalogue.resolve("acme/Big-70B")
    assert (entry.kind, entry.source, entry.parameters_b) == ("hub", "acme/Big-70B", None)
    only_acme = catalogue_of(tmp_path, 'allow = ["acme/Big-*"]\n')
    for name in ("acme/big-70B", "Acme/Big-70B", "acme/Small"):
        with pytest.raises(ModelNotAllowed):
            only_acme.resolve(name)


@pytest.mark.parametrize(
    "name",
    ["../etc", "a/../b", "mlx-community/..", "mlx-community/a/b", "~root/x", "./x", "/etc/passwd", "", "mlx-community/",
     "mlx-community/a\n", "mlx-community/a b", "mlx-community/-x", ".", "mlx-community/x..y", "C:\\models", "a\0b"],
)  # fmt: skip
def test_no_name_reaches_outside(tmp_path: Path, name: str) -> None:
    """Even where every hub id is allowed, nothing that is a path, or could become one, gets through."""
    with pytest.raises(ModelNotAllowed):
        catalogue_of(tmp_path, 'allow = ["*"]\n').resolve(name)


@given(st.text(max_size=60))
def test_what_is_allowed_by_pattern_is_always_one_owner_and_one_name(name: str) -> None:
    """For any text: it is refused with the one error, or it is a plain hub id."""
    catalogue = Catalogue({}, allow=("*",))
    try:
        source = catalogue.resolve(name).source
    except ModelNotAllowed:
        return
    assert is_hub_id(source)
    assert source.count("/") == 1
    assert ".." not in source


def test_a_path_must_lie_in_an_allowed_folder(tmp_path: Path) -> None:
    """Inside it may be named; outside, by "..", or through a link that leads out it may not."""
    models = tmp_path / "models"
    (models / "mine").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    (models / "way-out").symlink_to(tmp_path / "secret")
    (models / "alias").symlink_to(models / "mine")
    catalogue = catalogue_of(tmp_path, f"allow_paths = [{json.dumps(str(models))}]\n")
    entry = catalogue.resolve(str(models / "mine"))
    assert (entry.kind, entry.source) == ("path", str((models / "mine").resolve()))
    assert catalogue.resolve(str(models / "alias")).source == entry.source
    (models / "circle").symlink_to(models / "circle")
    outside = [f"{models}/way-out", f"{models}/mine/../../secret", f"{tmp_path}/secret", f"{models}-too", "~/x"]
    for name in [*outside, f"{models}/a\0b", f"{models}/circle"]:
        with pytest.raises(ModelNotAllowed, match="allow_paths"):
            catalogue.resolve(name)


def test_paths_of_entries_are_meant_from_their_file(tmp_path: Path) -> None:
    """The folder that a worker was started in does not matter."""
    entry = catalogue_of(tmp_path, '[[models]]\nname = "local"\nsource = "./weights/x"\n').resolve("local")
    assert (entry.kind, entry.source) == ("path", os.path.join(tmp_path, "weights", "x"))  # noqa: PTH118


ADAPTED = """
allow = ["acme/*"]
allow_paths = ["/srv/models"]

[[models]]
name = "base"
source = "acme/House-7B"
adapters = { sql = "acme/sql-lora", house = "./house" }

[[models]]
name = "writer"
source = "acme/House-7B"
adapter = "/srv/adapters/writer"
"""


def test_an_adapter_is_named_behind_the_model(tmp_path: Path) -> None:
    """By a name of the entry, by a path or by a hub id that a rule allows; or the entry has one itself."""
    catalogue = catalogue_of(tmp_path, ADAPTED)
    found = {
        name: catalogue.resolve(name).adapter
        for name in ("base", "base@sql", "base@house", "base@/srv/models/own", "base@acme/other", "writer")
    }
    assert found == {
        "base": None,
        "base@sql": "acme/sql-lora",
        "base@house": str(tmp_path / "house"),
        "base@/srv/models/own": "/srv/models/own",
        "base@acme/other": "acme/other",
        "writer": "/srv/adapters/writer",
    }
    adapted = catalogue.resolve("base@sql")
    assert (adapted.name, adapted.source) == ("base@sql", "acme/House-7B")


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("base@nothing", "base has no adapter 'nothing' (now: house, sql)"),
        ("base@/etc", "a path must be absolute"),
        ("base@foreign/lora", "base has no adapter 'foreign/lora'"),
        ("writer@sql", "writer has an adapter already"),
        ("nobody@sql", "model 'nobody' is neither in the catalogue"),
    ],
)
def test_an_adapter_that_is_not_allowed(tmp_path: Path, name: str, part: str) -> None:
    """The error says which there are."""
    with pytest.raises(ModelNotAllowed, match=re.escape(part)):
        catalogue_of(tmp_path, ADAPTED).resolve(name)


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("adapters = 3", 'adapters is 3: expected a table, as in { sql = "acme/sql-lora" }'),
        ('adapters = { "a b" = "acme/x" }', "expected names of letters"),
        ('adapters = { sql = "x" }', "adapters.sql is 'x': expected a hub id (\"owner/name\") or a path"),
        ('adapter = "x"', "adapter is 'x': expected a hub id (\"owner/name\") or a path"),
    ],
)
def test_a_malformed_adapter(tmp_path: Path, line: str, part: str) -> None:
    """The error names the field and what was expected."""
    assert part in refusal(tmp_path, f'[[models]]\nname = "m"\nsource = "a/b"\n{line}\n')


def test_fake_models_need_the_setting(tmp_path: Path) -> None:
    """Without it the message names the variable."""
    with pytest.raises(ModelNotAllowed, match="CELERY_MLX_ALLOW_FAKE=1"):
        catalogue_of(tmp_path, "").resolve("fake:10")


def test_a_fake_model_has_a_step_time_and_may_have_a_tier(tmp_path: Path) -> None:
    """fake:10 is of the smallest tier, fake:2.5@7-13B of the one it names."""
    catalogue = catalogue_of(tmp_path, "", allow_fake=True)
    plain, pinned = catalogue.resolve("fake:10"), catalogue.resolve("fake:2.5@7-13B")
    assert (plain.kind, plain.source, plain.tier) == ("fake", "10", TIERS[0])
    assert (pinned.kind, pinned.source, pinned.tier) == ("fake", "2.5", tier_named("7-13B"))
    assert catalogue.resolve("fake:0@30B+").tier == TIERS[-1]
    assert catalogue.resolve("fake:0@<3B").tier == TIERS[0]


@pytest.mark.parametrize("name", ["fake:", "fake:fast", "fake:-1", "fake:1e9", "fake:10@", "fake:10@9B", "fake:nan"])
def test_a_malformed_fake_model_says_what_was_expected(tmp_path: Path, name: str) -> None:
    """The message has the name and a form that works."""
    with pytest.raises(ModelNotAllowed, match=r"fake:.*(expected fake:STEP_MS|unknown tier)"):
        catalogue_of(tmp_path, "", allow_fake=True).resolve(name)


def test_an_unknown_model_is_told_what_comes_close() -> None:
    """A slip of the pen gets the names that were probably meant, and where to add a model."""
    with pytest.raises(ModelNotAllowed, match=r"'Qwen3-8'.*qwen3-8b.*CELERY_MLX_CATALOGUE"):
        built_in().resolve("Qwen3-8")
    with pytest.raises(ModelNotAllowed, match=r"'lama'.*llama-3"):
        built_in().resolve("lama")
    with pytest.raises(ModelNotAllowed, match=r"known are .*smollm2-135m"):
        built_in().resolve("zzzzzz")


def test_a_huge_name_is_cut_in_the_message() -> None:
    """A megabyte of name costs neither time nor log."""
    with pytest.raises(ModelNotAllowed) as refused:
        built_in().resolve("x" * 1_000_000)
    assert len(str(refused.value)) < 2_000


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('name = "x\n', 1, ["not valid TOML", "line 1"]),
        ('allow = "mlx-community/*"\n', 1, ["allow", "'mlx-community/*'", "list"]),
        ('\nalow = ["x/*"]\n', 2, ["alow", "did you mean allow"]),
        ('allow_paths = ["models"]\n', 1, ["allow_paths", "absolute"]),
        ("builtin_models = 1\n", 1, ["builtin_models", "true or false"]),
        ('[models.x]\nsource = "a/b"\n', 0, ["models", "[[models]]"]),
        ('[[models]]\nsource = "a/b"\n', 1, ["models[0].name", "missing"]),
        ('[[models]]\nname = "x"\n', 1, ["models[0].source", "missing", "hub id"]),
        ('[[models]]\nname = "x"\nsource = "nonsense"\n', 3, ["models[0].source", "'nonsense'", "bundled:NAME"]),
        ('[[models]]\nname = "x"\nsource = "bundled:../y"\n', 3, ["models[0].source", "bundled"]),
        ('[[models]]\nname = "fake:1"\nsource = "a/b"\n', 2, ["models[0].name", "'fake:1'"]),
        ('[[models]]\nname = "a/../b"\nsource = "a/b"\n', 2, ["models[0].name", "letters"]),
        ('[[models]]\nname = 7\nsource = "a/b"\n', 2, ["models[0].name", "7", "text"]),
        ('[[models]]\nname = "x"\nsource = "a/b"\ntier = "7B"\n', 4, ["models[0].tier", "'7B'", "<3B, 3-7B, 7-13B"]),
        ('[[models]]\nname = "x"\nsource = "a/b"\nparameters = 7\n', 4, ["parameters", "did you mean parameters_b"]),
        ('[[models]]\nname = "x"\nsource = "a/b"\nparameters_b = 0\n', 4, ["parameters_b", "above 0"]),
        ('[[models]]\nname = "x"\nsource = "a/b"\nparameters_b = nan\n', 4, ["parameters_b", "nan"]),
        ('[[models]]\nname = "x"\nsource = "a/b"\nparameters_b = "7B"\n', 4, ["parameters_b", "'7B'", "number"]),
        ('[[models]]\nname = "x"\nsource = "a/b"\ncontext_tokens = 1.5\n', 4, ["context_tokens", "1.5", "whole"]),
        ('[[models]]\nname = "x"\nsource = "a/b"\ncontext_tokens = true\n', 4, ["context_tokens", "True"]),
        ('[[models]]\nname = "x"\nsource = "a/b"\nkeep_alive_s = -1\n', 4, ["keep_alive_s", "-1", "at least 0"]),
        ('[[models]]\nname = "x"\nsource = "a/b"\ntrust_remote_code = "yes"\n', 4, ["trust_remote_code", "'yes'"]),
        ('[[models]]\nname = "x"\nsource = "a/b"\ndefaults = { temprature = 1 }\n', 4, ["defaults.temprature", "temperature"]),
        ('[[models]]\nname = "x"\nsource = "a/b"\ndefaults = { messages = [] }\n', 4, ["defaults.messages"]),
        ('[[models]]\nname = "x"\nsource = "a/b"\ndefaults = 1\n', 4, ["defaults", "table"]),
        ('[[models]]\nname = "x"\nsource = "a/b"\n\n[[models]]\nname = "x"\nsource = "c/d"\n', 6, ["models[1].name", "line 2"]),
        ('models = [{ name = "x" }]\n', 0, ["models[0].source", "missing"]),
    ],
)  # fmt: skip
def test_a_wrong_catalogue_names_file_line_field_value_and_remedy(
    tmp_path: Path, text: str, line: int, words: list[str]
) -> None:
    """Each kind of mistake gets one message that leads to it."""
    message = refusal(tmp_path, text)
    assert all(word in message for word in words), message
    if line:
        assert f"line {line}" in message


def test_the_second_of_two_entries_is_the_one_that_is_named(tmp_path: Path) -> None:
    """A mistake in a later entry is not blamed on an earlier one, nor on a comment that has the word."""
    first = '[[models]]\nname = "a"\nsource = "a/b"\ntier = "<3B"\n\n'
    text = first + '[[models]]\n# tier = big\nname = "b"\nsource = "a/c"\ntier = "huge"\n'
    assert "line 10: models[1].tier is 'huge'" in refusal(tmp_path, text)


def test_a_catalogue_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """A missing file and one that is no text name the setting or the file."""
    with pytest.raises(SettingError, match="CELERY_MLX_CATALOGUE"):
        load_catalogue(Settings(catalogue=str(tmp_path / "none.toml")))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingError, match="not UTF-8"):
        load_catalogue(Settings(catalogue=str(tmp_path / "binary.toml")))


def test_defaults_are_parameters_of_a_request() -> None:
    """Whatever the catalogue lets an entry set is a field that a request has."""
    assert {*Parameters.model_fields, *EMBEDDING.fields} >= DEFAULT_FIELDS
    assert {field.name for field in fields(Sampling)} <= DEFAULT_FIELDS
