"""The pages about tiers, catalogue and settings say what the code does. ``python -m tests.unit.test_pages`` renews the tables."""

from __future__ import annotations

import re
from dataclasses import fields
from itertools import groupby
from pathlib import Path

import pytest

from tasks.hardware.chips import GPU_CORES
from tasks.models.capabilities import capabilities
from tests.unit.machines import mac
from worker_config.catalogue import load_catalogue
from worker_config.settings import Settings, variable_name
from worker_config.tiers import TIERS

DOCS = Path(__file__).parents[2] / "docs"
TIERS_PAGE = DOCS / "tiers.md"
SETTINGS_PAGE = DOCS / "configuration.md"

# Chip, GPU cores, and the memory (GB) that Apple has sold with them.
MACS: list[tuple[str, int, list[int]]] = [
    ("M1", 7, [8, 16]),
    ("M1", 8, [8, 16]),
    ("M1 Pro", 14, [16, 32]),
    ("M1 Pro", 16, [16, 32]),
    ("M1 Max", 24, [32, 64]),
    ("M1 Max", 32, [32, 64]),
    ("M1 Ultra", 48, [64, 128]),
    ("M1 Ultra", 64, [64, 128]),
    ("M2", 8, [8, 16, 24]),
    ("M2", 10, [8, 16, 24]),
    ("M2 Pro", 16, [16, 32]),
    ("M2 Pro", 19, [16, 32]),
    ("M2 Max", 30, [32, 64]),
    ("M2 Max", 38, [32, 64, 96]),
    ("M2 Ultra", 60, [64, 128, 192]),
    ("M2 Ultra", 76, [64, 128, 192]),
    ("M3", 8, [8, 16, 24]),
    ("M3", 10, [8, 16, 24]),
    ("M3 Pro", 14, [18, 36]),
    ("M3 Pro", 18, [18, 36]),
    ("M3 Max", 30, [36, 96]),
    ("M3 Max", 40, [48, 64, 128]),
    ("M3 Ultra", 60, [96, 256]),
    ("M3 Ultra", 80, [96, 256, 512]),
    ("M4", 8, [16, 24]),
    ("M4", 10, [16, 24, 32]),
    ("M4 Pro", 16, [24, 48, 64]),
    ("M4 Pro", 20, [24, 48, 64]),
    ("M4 Max", 32, [36]),
    ("M4 Max", 40, [48, 64, 128]),
]


def tiers_table() -> str:
    """The tiers and what each asks for."""
    lines = [
        "| tier | queue | models, rounded | GPU cores ≥ | memory ≥ | slots (bounds) |",
        "|---|---|---|---|---|---|",
    ]
    for tier, larger in zip(TIERS, [*TIERS[1:], None], strict=True):
        sizes = f"{tier.parameters_from_b}B and up" if larger is None else (
            f"{tier.parameters_from_b}–{larger.parameters_from_b - 1}B" if tier.parameters_from_b else
            f"up to {larger.parameters_from_b - 1}B"
        )  # fmt: skip
        cores, memory = (tier.gpu_cores or "–", f"{tier.memory_gb} GB" if tier.memory_gb else "–")
        bounds = f"{tier.slots} ({tier.slots_min}–{tier.slots_max})"
        lines.append(f"| `{tier.name}` | `{tier.queue}` | {sizes} | {cores} | {memory} | {bounds} |")
    return "\n".join(lines)


def macs_table() -> str:
    """Macs, their memory, and their slots in each tier."""
    heads = " | ".join(f"`{tier.name}`" for tier in TIERS)
    lines = [f"| Mac | GPU cores | memory | {heads} |", "|---|---|---|" + "---|" * len(TIERS)]
    for chip, cores, sizes in MACS:
        for slots, group in groupby(sizes, key=lambda memory_gb: _slots(chip, cores, memory_gb)):
            memory = ", ".join(map(str, group))
            lines.append(f"| {chip} | {cores} | {memory} GB | {' | '.join(slots)} |")
    return "\n".join(lines)


def _slots(chip: str, cores: int, memory_gb: int) -> list[str]:
    found = capabilities(mac(_variant(chip), cores, memory_gb)).slots_by_queue
    return [str(found.get(tier.queue, "–")) for tier in TIERS]


def _variant(chip: str) -> str:
    return chip.partition(" ")[2] or "Base"


def settings_table() -> str:
    """Every setting with its variable, default, lower bound and meaning."""
    lines = ["| setting | variable | default | at least | |", "|---|---|---|---|---|"]
    for field in fields(Settings):
        at_least, about = field.metadata["at_least"], field.metadata["about"]
        least = "–" if at_least is None else f"{at_least:g}"
        lines.append(f"| `{field.name}` | `{variable_name(field)}` | {_shown(field.default)} | {least} | {about} |")
    return "\n".join(lines)


def _shown(default: object) -> str:
    if isinstance(default, bool):
        return "yes" if default else "no"
    if isinstance(default, int | float):
        return f"{default:,g}" if default < 1e5 else f"{default:,.0f}"
    return f"`{default}`" if default else "empty"


def _renewed(text: str) -> str:
    for name, table in (("tiers", tiers_table()), ("macs", macs_table()), ("settings", settings_table())):
        if f"<!-- {name} -->" not in text:
            continue
        before, _, rest = text.partition(f"<!-- {name} -->\n")
        _, _, after = rest.partition(f"<!-- /{name} -->")
        text = f"{before}<!-- {name} -->\n{table}\n<!-- /{name} -->{after}"
    return text


@pytest.mark.parametrize(("page", "tables"), [(TIERS_PAGE, ("tiers", "macs")), (SETTINGS_PAGE, ("settings",))])
def test_the_tables_on_the_page_are_what_the_code_gives(page: Path, tables: tuple[str, ...]) -> None:
    """Whoever changes the tiers or a setting renews the page."""
    text = page.read_text(encoding="utf-8")
    assert all(f"<!-- {name} -->" in text for name in tables)
    assert text == _renewed(text), "run python -m tests.unit.test_pages"


def test_the_page_has_every_chip_of_four_generations() -> None:
    """As many cores as the hardware's own table knows of."""
    on_page: dict[tuple[str, str], set[int]] = {}
    for chip, cores, _ in MACS:
        on_page.setdefault((chip.split()[0], _variant(chip)), set()).add(cores)
    assert on_page == {key: set(cores) for key, cores in GPU_CORES.items() if key[0] in {"M1", "M2", "M3", "M4"}}


def test_the_catalogue_on_the_page_is_valid(tmp_path: Path) -> None:
    """The example can be copied unchanged."""
    match = re.search(r"```toml\n(.*?)```", (DOCS / "catalogue.md").read_text(encoding="utf-8"), re.DOTALL)
    assert match
    path = tmp_path / "catalogue.toml"
    path.write_text(match[1], encoding="utf-8")
    catalogue = load_catalogue(Settings(catalogue=str(path)))
    assert catalogue.resolve("house-model").parameters_b == pytest.approx(8.03)
    assert catalogue.resolve("acme/Other-7B").kind == "hub"
    assert catalogue.resolve("smollm2-135m").kind == "bundled"


if __name__ == "__main__":
    for page in (TIERS_PAGE, SETTINGS_PAGE):
        page.write_text(_renewed(page.read_text(encoding="utf-8")), encoding="utf-8")
