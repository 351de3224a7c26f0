"""How many bytes an engine needs, before it is loaded and after; and where a model's files are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import mlx.core as mx
import pytest

from benchmarks.parts.tiny_model import make_tiny_model
from tasks.errors import ModelLoadFailed, UnknownModel
from tasks.messages.load import Ready
from tasks.messages.memory import MARGIN_BYTES, KvSize, KvWindow
from tasks.models.footprint import (
    FAKE_KV_BYTES,
    NOTHING,
    PROCESS_BYTES,
    Footprint,
    Source,
    expected,
    local_source,
    measured,
)
from tasks.models.routing import KV_ROOM_BYTES
from worker_config.hub import complete_mark, repository_folder
from worker_config.model_entry import ModelEntry
from worker_config.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

STEP_TOKENS = Settings().prefill_step_tokens
HUB = ModelEntry(name="m", kind="hub", source="acme/Model-7B-4bit", parameters_b=7.0)


def path_entry(folder: Path) -> ModelEntry:
    return ModelEntry(name="tiny", kind="path", source=str(folder))


class TestExpected:
    def test_by_the_headers_of_its_files(self, tmp_path: Path) -> None:
        """Weights as their files' headers say, the KV cache of its whole context where that is short, and margins."""
        folder = make_tiny_model(tmp_path / "tiny")
        found = expected(path_entry(folder), "metal", STEP_TOKENS)
        header = 8 + int.from_bytes((folder / "model.safetensors").read_bytes()[:8], "little")
        assert found.weights_bytes == (folder / "model.safetensors").stat().st_size - header
        # 2 layers × 2 heads × 16 × keys and values × 2 bytes, for 2,048 tokens.
        assert found.kv_bytes == 2 * 2 * 16 * 2 * 2 * 2048
        assert found.margin_bytes == MARGIN_BYTES + found.weights_bytes // 32
        assert found.floor_bytes == found.weights_bytes + found.kv_bytes + found.margin_bytes + PROCESS_BYTES

    def test_windows_are_no_larger_than_they_are(self, tmp_path: Path) -> None:
        """A layer with a window counts for its window, and for what one prefill step of 1,024 tokens puts beside it."""
        folder = make_tiny_model(
            tmp_path / "tiny", layer_types=["sliding_attention", "full_attention"], sliding_window=64
        )
        found = expected(path_entry(folder), "metal", STEP_TOKENS)
        layer = 2 * 16 * 2 * 2
        assert found.kv_bytes == layer * 2048 + layer * 64
        assert found.margin_bytes == MARGIN_BYTES + found.weights_bytes // 32 + layer * 1024

    @pytest.mark.parametrize(
        ("config", "accelerator", "width"),
        [
            ({}, "metal", 2),
            ({"torch_dtype": "float32"}, "metal", 4),
            ({"dtype": "bfloat16"}, "metal", 2),
            ({}, "cpu", 4),
        ],
    )
    def test_the_width_of_values(self, tmp_path: Path, config: dict[str, Any], accelerator: str, width: int) -> None:
        """16 bits, where the files or the processor have no more."""
        found = expected(path_entry(make_tiny_model(tmp_path / "tiny", **config)), accelerator, STEP_TOKENS)
        assert found.kv_bytes == 2 * 2 * 16 * 2 * width * 2048

    @pytest.mark.parametrize(("model_type", "bytes_per_parameter"), [("bert", 4), ("llama", 2)])
    def test_encoders_are_computed_in_32_bits_on_a_gpu_too(
        self, tmp_path: Path, model_type: str, bytes_per_parameter: int
    ) -> None:
        """Where a decoder's weights stay as their files have them."""
        folder = make_tiny_model(tmp_path / "tiny", model_type=model_type)
        weights = cast("dict[str, mx.array]", mx.load(str(folder / "model.safetensors")))
        halved = {name: array.astype(mx.float16) for name, array in weights.items()}
        mx.save_safetensors(str(folder / "model.safetensors"), halved)
        count = sum(array.size for array in weights.values())
        assert expected(path_entry(folder), "metal", STEP_TOKENS).weights_bytes == pytest.approx(
            count * bytes_per_parameter
        )

    def test_by_its_name(self) -> None:
        """What is not here yet is as large as its name says: 7 billion parameters in 4 bits, with their scales."""
        assert expected(HUB, "metal", STEP_TOKENS) == Footprint(
            3_937_500_000, KV_ROOM_BYTES, MARGIN_BYTES + 3_937_500_000 // 32
        )

    def test_dense_on_a_cpu(self) -> None:
        """On a CPU weights are float32, unless that is more than there is."""
        assert expected(HUB, "cpu", STEP_TOKENS).weights_bytes == 28_000_000_000
        assert expected(HUB, "cpu", STEP_TOKENS).kv_bytes == 2 * KV_ROOM_BYTES
        assert expected(HUB, "cpu", STEP_TOKENS, most_bytes=16 << 30) == expected(HUB, "metal", STEP_TOKENS)

    def test_where_bits_are_unknown(self, tmp_path: Path) -> None:
        """A model of which only the number of parameters is known counts in 16 bits."""
        entry = ModelEntry(name="m", kind="path", source=str(tmp_path / "nothing"), parameters_b=2.0)
        assert expected(entry, "metal", STEP_TOKENS).weights_bytes == 4_000_000_000

    def test_where_nothing_is_known(self, tmp_path: Path) -> None:
        """A model that nothing tells the size of cannot be reserved for."""
        with pytest.raises(UnknownModel, match="tell its size"):
            expected(path_entry(tmp_path / "house"), "metal", STEP_TOKENS)

    def test_fake_ones(self) -> None:
        """A fake model counts for what its name says, which may be nothing."""
        assert expected(ModelEntry(name="fake:1", kind="fake", source="1"), "cpu", STEP_TOKENS) is NOTHING
        assert NOTHING.floor_bytes == 0
        sized = expected(ModelEntry(name="fake:1:weights_mb=8", kind="fake", source="1"), "cpu", STEP_TOKENS)
        assert sized == Footprint(8 << 20, FAKE_KV_BYTES, MARGIN_BYTES + (8 << 20) // 32)

    def test_measured(self) -> None:
        """What an engine says of itself takes the place of what was expected."""
        ready = Ready(
            model="m",
            revision="r",
            context_tokens=100_000,
            weights_bytes=5,
            kv=KvSize(bytes_per_token=10, bytes_per_row=3, windows=(KvWindow(100, 2),)),
            accelerator="metal",
            blas="",
            load_s=1.0,
            pid=1,
        )
        assert measured(ready, Footprint(7, 7, 7, 3), STEP_TOKENS) == Footprint(
            5, 40_960 + 3 + 200, MARGIN_BYTES + 1024 * 2, 3
        )


class TestSource:
    def test_a_folder(self, tmp_path: Path) -> None:
        """A model of a path is where the path leads; one that has gone is an error that says so."""
        assert local_source(path_entry(tmp_path)) == Source(str(tmp_path))
        with pytest.raises(ModelLoadFailed, match="gone does not exist: put the model there"):
            local_source(path_entry(tmp_path / "gone"))

    def test_a_bundled_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The bundled model that was not made yet is an error that says how."""
        monkeypatch.setattr("tasks.models.footprint.bundled_folder", lambda name: tmp_path / name)
        entry = ModelEntry(name="small", kind="bundled", source="small")
        with pytest.raises(ModelLoadFailed, match="run `make model`"):
            local_source(entry)
        (tmp_path / "small").mkdir()
        assert local_source(entry) == Source(str(tmp_path / "small"))

    def test_a_hub_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A model of the hub is here when all of it is known to be; its commit is its revision."""
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
        assert local_source(HUB) is None
        snapshot = repository_folder(HUB.source) / "snapshots" / "c0ffee"
        snapshot.mkdir(parents=True)
        (snapshot.parent.parent / "refs").mkdir()
        (snapshot.parent.parent / "refs" / "main").write_text("c0ffee")
        assert local_source(HUB) is None
        complete_mark(snapshot).touch()
        assert local_source(HUB) == Source(str(snapshot), "c0ffee")

    def test_a_fake_one(self) -> None:
        """A fake model needs no files."""
        assert local_source(ModelEntry(name="fake:1", kind="fake", source="1")) == Source("")
