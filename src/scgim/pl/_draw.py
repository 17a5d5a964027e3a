from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path

from ._style import DOWN, UP

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 0.5, 0.62  # of a gene's box; levels and rows are 1 apart


def draw_edge(ax: Axes, points: list[tuple[float, float]], weight: float, strength: float) -> None:
    half = WIDTH / 2
    (x, y), *rest = points
    way, codes = [(x + half, y)], [Path.MOVETO]
    for i, (x, y) in enumerate(rest, start=1):
        before = way[-1]
        middle = (before[0] + x - half) / 2
        way += [(middle, before[1]), (middle, y), (x - half, y)]
        codes += [Path.CURVE4] * 3
        if i < len(rest):
            way.append((x + half, y))
            codes.append(Path.LINETO)
    arrow = FancyArrowPatch(
        path=Path(way, codes),
        arrowstyle="-|>",
        mutation_scale=7,
        linewidth=0.5 + 2 * strength,
        color=UP if weight > 0 else DOWN,
        alpha=0.35 + 0.5 * strength,
        fill=False,
    )
    ax.add_patch(arrow)


def draw_gene(ax: Axes, gene: str, x: float, y: float, fill: str, size: float) -> None:
    corner = (x - WIDTH / 2, y - HEIGHT / 2)
    style = "round,pad=0,rounding_size=.08"
    ax.add_patch(
        FancyBboxPatch(corner, WIDTH, HEIGHT, style, facecolor=fill, edgecolor="#666666", linewidth=0.6, zorder=2)
    )
    ax.text(x, y, gene, ha="center", va="center_baseline", fontsize=size, zorder=3)


def font_size(ax: Axes, longest: int) -> float:
    """Font size (points) at which the longest name fits its box, for letters of a mean width of 0.7 font sizes."""
    # Axes have their final size only after the layout ran. Of nested subfigures, only the root figure can run it.
    ax.figure.canvas.figure.draw_without_rendering()
    inches = np.asarray(ax.get_window_extent().size) / ax.figure.dpi
    box = 72 * inches * np.array([WIDTH, HEIGHT]) / np.abs([np.diff(ax.get_xlim())[0], np.diff(ax.get_ylim())[0]])
    return float(np.clip(min(box[0] / (0.7 * longest), 0.8 * box[1]), 3, 9))
