"""Finds a LoRA adapter's files, checks that they are whole, and computes their revision. No MLX here."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from tasks.engine.failure import first_line
from tasks.errors import ModelLoadFailed
from tasks.models.reading import ModelFilesUnreadable, read_object
from tasks.models.weights import read_tensors
from worker_config.hub import hub_cache

CONFIG, WEIGHTS = "adapter_config.json", "adapters.safetensors"
#: The names that other programs have for the weights.
PEFT_WEIGHTS = "adapter_model.safetensors"


@dataclass(slots=True, frozen=True)
class Adapter:
    """An adapter that mlx-lm can load.

    Args:
        path: its folder.
        revision: a digest of both files.
    """

    path: Path
    revision: str


def find_adapter(source: str) -> Adapter:
    """The adapter in a folder, or on the hub, from where it is fetched.

    Raises:
        ModelLoadFailed: it is not there, and cannot be fetched.
        ModelFilesUnreadable: a file is missing, damaged, or of another program.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        if source.startswith((".", "/", "~")):
            raise ModelLoadFailed(f"adapter {source}: no such folder; put the adapter there, or correct the catalogue")
        folder = _fetched(source)
    return Adapter(folder, _checked(folder))


def _fetched(source: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, cache_dir=hub_cache(), allow_patterns=[CONFIG, WEIGHTS, PEFT_WEIGHTS]))
    except Exception as error:
        raise ModelLoadFailed(
            f"adapter {source}: cannot be fetched from the hub ({first_line(error)}): try again, or name a folder that has it in "
            "the catalogue"
        ) from error


def _checked(folder: Path) -> str:
    if not (folder / WEIGHTS).is_file() and (folder / PEFT_WEIGHTS).is_file():
        raise ModelFilesUnreadable(
            f"{folder}: its adapter was made by PEFT ({PEFT_WEIGHTS}), which mlx-lm does not read; train it with "
            "mlx_lm.lora, or merge it into its base model and convert that"
        )
    config = read_object(folder / CONFIG)
    wanted = ("num_layers", "lora_parameters") if config.get("fine_tune_type", "lora") != "full" else ()
    for name in wanted:
        if name not in config:
            older = "it has lora_layers, as older versions of mlx_lm.lora wrote it: call that num_layers"
            why = older if "lora_layers" in config else "it is not the configuration of mlx_lm.lora"
            raise ModelFilesUnreadable(f"{folder / CONFIG}: has no {name}; {why}")
    if wanted and "dropout" not in config["lora_parameters"]:
        raise ModelFilesUnreadable(
            f"{folder / CONFIG}: lora_parameters has no dropout; add the one of the training, or 0.0"
        )
    if not (folder / WEIGHTS).is_file():
        raise ModelFilesUnreadable(f"{folder / WEIGHTS}: missing; is this an adapter's folder?")
    if not read_tensors(folder / WEIGHTS):
        raise ModelFilesUnreadable(
            f"{folder / WEIGHTS}: has no weights; train the adapter again, or fetch the file again"
        )
    digest = hashlib.blake2b(digest_size=8)
    for name in (CONFIG, WEIGHTS):
        with (folder / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
