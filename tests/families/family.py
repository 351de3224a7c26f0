"""A family's tiny model, written down as its authors' files are."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx

from tests.families.shapes import SHAPES
from tests.families.weights import Script, scripted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tokenizers import Tokenizer

HERE = Path(__file__).parent
HEADS, LAYERS = 4, 2
_TELL = {"role": "user", "content": "Hi"}
#: The conversations whose prompts families.toml has.
CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "chat": [{"role": "user", "content": "Hi  there"}],
    "system": [
        {"role": "system", "content": "Be brief."},
        *(_TELL, {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "Go"}),
    ],
    "developer": [{"role": "developer", "content": "Be brief."}, _TELL],
}


@dataclass(frozen=True)
class Family:
    """One of families.toml, under its name."""

    name: str
    described: Mapping[str, Any]

    @property
    def reasoning(self) -> str:
        """What its model thinks."""
        return str(self.described["reasoning"])

    @property
    def content(self) -> str:
        """What its model answers, to everything."""
        return str(self.described["content"])

    def prompt_ids(self, conversation: str) -> list[int]:
        """The tokens that a conversation has to become."""
        return self._ids(self.described["prompts"][conversation])

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """As tokenizer.json has it."""
        parts = (self.described[name] for name in ("special", "added", "words"))
        return SHAPES[self.described["shape"]](*parts)

    @property
    def script(self) -> Script:
        """What its model says, up to the first of its end tokens."""
        turn = self.described["turn"]
        ids = [token_id for part in self.described["script"] for token_id in self._said_ids(part)]
        end = self.tokenizer.get_vocab()[self.described["ends"][-1]]
        return Script([*ids, end], self._ids(turn)[0] if turn else None, self.tokenizer.get_vocab_size())

    def write(self, folder: Path) -> Path:
        """Write the model into ``folder``, which is made if need be, and return it."""
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save(str(folder / "tokenizer.json"))
        ends = [self.tokenizer.token_to_id(end) for end in self.described["ends"]]
        config, generation = self._config(), dict(self.described["generation"])
        named = {"generation_config.json": generation, "config.json": config}[self.described["where_ends"]]
        named["eos_token_id"] = ends if len(ends) > 1 else ends[0]
        described = {
            "clean_up_tokenization_spaces": False,
            **self.described["tokenizer"],
            "eos_token": self.described["eos"],
            **({"bos_token": self.described["bos"]} if self.described["bos"] else {}),
        }
        self._put_template(folder, described)
        files = {"config": config, "generation_config": generation, "tokenizer_config": described}
        for name, value in files.items():
            (folder / f"{name}.json").write_text(json.dumps(value))
        mx.save_safetensors(str(folder / "model.safetensors"), scripted(config, self.script), {"format": "mlx"})
        return folder

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _said_ids(self, part: str) -> list[int]:
        """A part of the script: a token by its name, or text."""
        known = self.tokenizer.token_to_id(part)
        return self._ids(part) if known is None else [known]

    def _put_template(self, folder: Path, described: dict[str, Any]) -> None:
        text = (HERE / "templates" / f"{self.name}.jinja").read_text(encoding="utf-8").removesuffix("\n")
        match self.described["where_template"]:
            case "tokenizer_config.json":
                described["chat_template"] = text
            case "several":
                named = {"default": text, "tool_use": "{{ raise_exception('not for chats') }}"}
                described["chat_template"] = [{"name": name, "template": value} for name, value in named.items()]
            case "chat_template.json":
                (folder / "chat_template.json").write_text(json.dumps({"chat_template": text}))
            case file:
                (folder / file).write_text(text, encoding="utf-8")

    def _config(self) -> dict[str, Any]:
        vocabulary = self.script.vocabulary
        # There is room for units and a place of the residual beside the vocabulary's.
        hidden = -(-(vocabulary + 8) // (8 * HEADS)) * 8 * HEADS
        sizes = {
            "vocab_size": vocabulary,
            "hidden_size": hidden,
            "intermediate_size": hidden,
            "num_hidden_layers": LAYERS,
        }
        own = dict(self.described["config"])
        scaling = own.get("rope_scaling", {})
        if scaling.get("type") == "longrope":
            factors = [1.0 + place / 64 for place in range(hidden // HEADS // 2)]
            own["rope_scaling"] = {**scaling, "short_factor": factors, "long_factor": factors}
        if "num_experts" in own:
            sizes["moe_intermediate_size"] = hidden
        if "text_config" in own:
            return {
                "model_type": self.described["type"],
                "vocab_size": vocabulary,
                "text_config": {**sizes, **own["text_config"]},
            }
        return {
            "model_type": self.described["type"],
            "num_attention_heads": HEADS,
            "rms_norm_eps": 1e-6,
            **sizes,
            **own,
        }


def families() -> dict[str, Family]:
    """All ten, by their names."""
    read = tomllib.loads((HERE / "families.toml").read_text(encoding="utf-8"))
    return {name: Family(name, {**read["common"], **own}) for name, own in read["family"].items()}
