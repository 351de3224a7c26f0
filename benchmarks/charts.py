"""Bars as SVG: plain text, readable on light and on dark pages, and nothing to install."""

from __future__ import annotations

from html import escape
from math import floor, log10
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.figures import Chart

#: Told apart by people with any kind of colour vision (Okabe and Ito, 2008).
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
GREY = "#808080"
WIDTH, PLOT_HEIGHT = 720, 220
LEFT, TOP, LINE = 64, 44, 18


def draw(chart: Chart) -> str:
    """The chart as an SVG document."""
    top = nice_ceiling(max((value for values in chart.series.values() for value in values if value), default=1.0))
    height = TOP + PLOT_HEIGHT + LINE * (2 + len(chart.series))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" font-family="sans-serif">',
        f'<g fill="{GREY}"><title>{escape(chart.title)}</title>',
        _text(LEFT, 20, f"{chart.title} ({chart.unit})", size=14),
        *_grid(top),
        *_bars(chart, top),
        *_legend(chart),
        "</g></svg>",
    ]
    return "\n".join(parts) + "\n"


def nice_ceiling(value: float) -> float:
    """The next larger number of the form 1, 2, 2.5 or 5 times a power of ten."""
    power = 10.0 ** floor(log10(value))
    return next((step * power for step in (1, 2, 2.5, 5) if step * power >= value), 10 * power)


def _grid(top: float) -> list[str]:
    parts = []
    for quarter in range(5):
        y = TOP + PLOT_HEIGHT * (1 - quarter / 4)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH}" y1="{y:g}" y2="{y:g}" stroke="{GREY}" stroke-opacity="0.4"/>')
        parts.append(_text(LEFT - 6, y + 4, f"{top * quarter / 4:g}", anchor="end"))
    return parts


def _bars(chart: Chart, top: float) -> list[str]:
    group = (WIDTH - LEFT) / len(chart.categories)
    bar = group * 0.8 / len(chart.series)
    parts = []
    for place, category in enumerate(chart.categories):
        left = LEFT + group * (place + 0.1)
        parts.append(_text(left + group * 0.4, TOP + PLOT_HEIGHT + LINE - 2, category, anchor="middle"))
        for number, (name, values) in enumerate(chart.series.items()):
            value = values[place]
            if not value:
                continue
            tall = PLOT_HEIGHT * value / top
            x, y = left + bar * number, TOP + PLOT_HEIGHT - tall
            about = f"<title>{escape(name)}, {escape(category)}: {value:.4g} {escape(chart.unit)}</title>"
            colour = COLOURS[number % len(COLOURS)]
            parts.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{bar:.1f}" height="{tall:.1f}" fill="{colour}">{about}</rect>'
            )
            parts.append(_text(x + bar / 2, y - 3, f"{value:.3g}", anchor="middle", size=9))
    return parts


def _legend(chart: Chart) -> list[str]:
    parts = []
    for number, name in enumerate(chart.series):
        y = TOP + PLOT_HEIGHT + LINE * (number + 2)
        parts.append(f'<rect x="{LEFT}" y="{y - 10}" width="12" height="12" fill="{COLOURS[number % len(COLOURS)]}"/>')
        parts.append(_text(LEFT + 18, y, name))
    return parts


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'
