"""The chat templates in a model's folder, from every file that authors put them into."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tasks.models.reading import LFS_POINTER, ModelFilesUnreadable, pointer_message, read_object_if_there

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

DEFAULT, TOOL_USE = "default", "tool_use"
#: Where files of further templates are, one for each name.
FOLDER = "additional_chat_templates"


@dataclass(frozen=True, slots=True)
class Template:
    """A chat template's source text, and the file that has it."""

    text: str
    said_by: str


@dataclass(frozen=True, slots=True)
class Templates:
    """A model's chat templates by name; the one that a conversation gets is called ``default``."""

    named: Mapping[str, Template] = field(default_factory=dict)

    @property
    def none_for_messages(self) -> str:
        """Why this model takes no messages, and what to do."""
        if not self.named:
            return "this model has no chat template; send the text as prompt"
        has = ", ".join(f"{name} ({template.said_by})" for name, template in sorted(self.named.items()))
        return (
            f"this model has no default chat template; it has {has}. Name one as chat_template in the model's catalogue "
            "entry, or send the text as prompt"
        )

    def choose_for_tools(self, name: str | None) -> Template | None:
        """The template of conversations with tools, where it is another: as in transformers, one that is called ``tool_use``."""
        return self.named.get(TOOL_USE) if name is None else None

    def choose(self, name: str | None) -> Template | None:
        """The template of this name, or the default; ``None`` where the model has no default.

        Raises:
            ModelFilesUnreadable: there is none of this name.
        """
        if name is None:
            return self.named.get(DEFAULT)
        if name not in self.named:
            has = f"it has {', '.join(sorted(self.named))}" if self.named else "it has none"
            raise ModelFilesUnreadable(
                f"chat_template is {name!r} in the catalogue, and the model has no such template: {has}"
            )
        return self.named[name]


def read_templates(folder: Path) -> Templates:
    """All templates. Of two with one name, that of a ``.jinja`` file wins: newer versions of transformers write those.

    Raises:
        ModelFilesUnreadable: a file is damaged.
    """
    return Templates({name: template for name, template in _found(folder) if template.text.strip()})


def _found(folder: Path) -> Iterator[tuple[str, Template]]:
    for file in ("processor_config.json", "chat_template.json", "tokenizer_config.json"):
        yield from _entries(read_object_if_there(folder / file).get("chat_template"), file)
    for path in sorted((folder / FOLDER).glob("*.jinja")):
        yield path.stem, _file(path, f"{FOLDER}/{path.name}")
    path = folder / "chat_template.jinja"
    if path.is_file():
        yield DEFAULT, _file(path, path.name)


def _entries(value: Any, file: str) -> Iterator[tuple[str, Template]]:
    """One template, or several: as a list of names and templates, or as an object."""
    if isinstance(value, str):
        yield DEFAULT, Template(value, file)
    elif isinstance(value, dict):
        yield from ((name, Template(text, file)) for name, text in value.items() if isinstance(text, str))
    elif isinstance(value, list):
        for entry in value:
            if (
                isinstance(entry, dict)
                and isinstance(entry.get("name"), str)
                and isinstance(entry.get("template"), str)
            ):
                yield entry["name"], Template(entry["template"], file)


def _file(path: Path, said_by: str) -> Template:
    try:
        content = path.read_bytes()
        if content.startswith(LFS_POINTER):
            raise ModelFilesUnreadable(pointer_message(str(path)))
        return Template(content.decode("utf-8-sig"), said_by)
    except (OSError, UnicodeDecodeError) as error:
        raise ModelFilesUnreadable(f"{path}: cannot be read as text ({error}); fetch the file again") from None
