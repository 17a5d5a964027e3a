from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._treatment_inputs import TreatmentInputs


class MeasuredConditions(NamedTuple):
    """What training sees of the treated conditions, in the order of the registry."""

    n: Tensor  # (conditions, 1) cells
    mean: Tensor  # (conditions, genes) standardised
    spread: Tensor  # (conditions, genes) variance within the condition
    inputs: TreatmentInputs
    own: object = None  # what `LinearMechanism.families` made of every condition's own scatter, where that is needed


class Controls(NamedTuple):
    """Size and mean of the controls, and a scatter within conditions: theirs alone if conditions bring their own, else everyone's."""

    n: Tensor  # ()
    mean: Tensor  # (1, genes)
    scatter: Tensor  # (genes, genes)


class FeatureEvidence(NamedTuple):
    """What features say of measured conditions, learned from other drugs; ``(conditions, genes)`` each or ``(genes,)``."""

    probability: Tensor  # of a target by the generator without the condition
    log_odds: Tensor  # of a target, as far as that is believed
    psi: Tensor  # the effect that they expect
    variance: Tensor  # of effects around that


class Moments(NamedTuple):
    """All that the likelihood needs of the conditions, given the mechanisms: means over a condition's cells.

    The residual is ``x - f(x)``. Where conditions do not bring their own scatter ``within`` is 0 and ``pooled`` holds it,
    which is enough for shifts: they move a condition's mean and leave its scatter alone.
    """

    residual: Tensor  # (conditions, genes) its mean
    within: Tensor  # (conditions, genes) its variance within the condition
    value: Tensor  # (conditions, genes) mean of x
    spread: Tensor  # (conditions, genes) variance of x within the condition
    pooled: Tensor  # (genes,) residual sum of squares that no unknown target enters


class CellStore:
    """Cells that were kept for mechanisms that need them, sorted by condition, the controls first.

    Parameters
    ----------
    x
        Standardised, ``(cells, genes)`` float32.
    size
        Cells of every condition, ``(1 + conditions,)`` int64; they lie in this order.
    """

    def __init__(self, x: Tensor, size: Tensor) -> None:
        self.x, self.size = x, size
        self.start = torch.cumsum(size, 0) - size

    def draw(self, conditions: Tensor, n_cells: int, generator: torch.Generator) -> Tensor:
        """So many cells of each of some conditions, with replacement; ``(conditions, n_cells, genes)``."""
        u = torch.rand(len(conditions), n_cells, generator=generator, dtype=torch.float64)
        rows = self.start[conditions, None] + (u * self.size[conditions, None]).long()
        return self.x[rows]

    def blocks(self, rows: int = 4096) -> Iterator[tuple[Tensor, Tensor]]:
        """All cells in blocks, with the condition of each."""
        code = torch.repeat_interleave(torch.arange(len(self.size)), self.size)
        yield from zip(self.x.split(rows), code.split(rows), strict=True)


def cell_moments(mechanism: torch.nn.Module, cells: CellStore) -> Moments:
    """Moments over all kept cells."""
    k, d = len(cells.size), cells.x.shape[1]
    sums = [torch.zeros(k, d, dtype=torch.float64) for _ in range(4)]
    for x, code in cells.blocks():
        x, noise = x.double(), (x - mechanism(x)).double()
        sums = [s.index_add(0, code, part) for s, part in zip(sums, (noise, noise**2, x, x**2), strict=True)]
    n = cells.size[:, None].double()
    # validation conditions come without controls
    residual, square, value, square_value = (s / n.clamp(min=1) for s in sums)
    pooled = n[0] * square[0]
    within, spread = (square - residual**2).clamp(min=0), (square_value - value**2).clamp(min=0)
    return Moments(residual[1:], within[1:], value[1:], spread[1:], pooled)
