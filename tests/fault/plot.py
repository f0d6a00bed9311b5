"""Lines over time as an SVG, by hand: a panel a figure, a line a process. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

Points = Sequence[tuple[float, float]]
WIDTH, HEIGHT, LEFT, TOP, GAP = 960, 130, 90, 40, 34
COLOURS = ("#1f6fb2", "#c2571a", "#3a8a3a", "#8a3a8a")
MOST_POINTS = 1500


def svg(panels: Sequence[tuple[str, Mapping[str, Points]]], *, title: str) -> str:
    """The drawing. Each panel has a scale of its own that begins at 0; x is hours."""
    height = TOP + len(panels) * (HEIGHT + GAP) + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH + LEFT + 20}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="100%" height="100%" fill="white"/><text x="{LEFT}" y="22">{escape(title)}</text>',
    ]
    for place, (name, lines) in enumerate(panels):
        parts += _panel(TOP + place * (HEIGHT + GAP), name, lines)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(top: float, name: str, lines: Mapping[str, Points]) -> list[str]:
    everything = [point for points in lines.values() for point in points]
    last = max((x for x, _ in everything), default=0.0) or 1.0
    highest = max((y for _, y in everything), default=0.0) or 1.0
    parts = [
        f'<rect x="{LEFT}" y="{top}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#ccc"/>',
        f'<text x="{LEFT + 6}" y="{top + 16}">{escape(name)}</text>',
        f'<text x="{LEFT - 6}" y="{top + 12}" text-anchor="end">{highest:.4g}</text>',
        f'<text x="{LEFT - 6}" y="{top + HEIGHT}" text-anchor="end">0</text>',
        f'<text x="{LEFT + WIDTH}" y="{top + HEIGHT + 14}" text-anchor="end">{last / 3600:.2f} h</text>',
    ]
    for colour, (process, points) in zip(COLOURS, lines.items(), strict=False):
        step = max(1, len(points) // MOST_POINTS)
        path = " ".join(
            f"{LEFT + x / last * WIDTH:.1f},{top + HEIGHT - y / highest * (HEIGHT - 4):.1f}" for x, y in points[::step]
        )
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.2"/>')
        place = LEFT + WIDTH - 80 * (list(lines).index(process) + 1)
        parts.append(f'<text x="{place}" y="{top + 16}" fill="{colour}">{escape(process)}</text>')
    return parts
