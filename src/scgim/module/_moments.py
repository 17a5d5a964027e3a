from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Self

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._treatment_inputs import TreatmentInputs


CERTAIN = 1e4  # nats; log odds of known targets. Infinite log odds would make losses infinite


class MeasuredConditions(NamedTuple):
    """Statistics and inputs of the treated conditions, in the order of the registry."""

    n: Tensor  # (conditions, 1) cells
    mean: Tensor  # (conditions, genes) standardized
    spread: Tensor  # (conditions, genes) variance within the condition
    inputs: TreatmentInputs
    own: object = None  # every condition's scatter, gathered by `LinearMechanism.families`, if the likelihood needs it
    target_log_odds: Tensor | float = 0.0  # (conditions, genes) of prior knowledge, nats; at least `CERTAIN` if known
    target_sign: Tensor | float = 0.0  # (conditions, genes) signs of effects from prior knowledge, 0 if unknown

    def take(self, rows: Tensor) -> Self:
        """Select conditions, without their scatter."""
        prior = (each[rows] if isinstance(each, Tensor) else each for each in (self.target_log_odds, self.target_sign))
        return type(self)(self.n[rows], self.mean[rows], self.spread[rows], self.inputs.take(rows), None, *prior)


class Controls(NamedTuple):
    """Size and mean of the controls, and their scatter, pooled with all conditions if these have no scatter of their own."""

    n: Tensor  # ()
    mean: Tensor  # (1, genes)
    scatter: Tensor  # (genes, genes)


class FeatureEvidence(NamedTuple):
    """Predictions of measured conditions from features, learned from other drugs; ``(conditions, genes)`` or ``(genes,)`` each."""

    probability: Tensor  # probability of a target by a generator trained without the condition's drug
    log_odds: Tensor  # log odds of a target, shrunk by the reliability of the held-out predictions
    psi: Tensor  # expected effect of a target
    variance: Tensor  # variance of effects around psi

    def take(self, rows: Tensor) -> Self:
        """Select conditions."""
        return type(self)(self.probability[rows], self.log_odds[rows], self.psi[rows], self.variance)

    def among(self, rows: Tensor) -> Self:
        """These predictions in the conditions ``rows``, ``(conditions,)`` bool; no targets in the other conditions."""
        whole = [each.new_zeros(len(rows), each.shape[1]) for each in self[:3]]
        for each, part in zip(whole, self[:3], strict=True):
            each[rows] = part
        return type(self)(*whole, self.variance)


class Moments(NamedTuple):
    """Sufficient statistics of the likelihood given the mechanisms: means and variances over a condition's cells.

    The residual is ``x - f(x)``. Without a scatter of every condition, ``within`` is 0 and ``pooled`` contains the scatter. This
    is sufficient for shifts, because a shift changes the mean of a condition but not its scatter.
    """

    residual: Tensor  # (conditions, genes) mean residual
    within: Tensor  # (conditions, genes) variance of the residual within the condition
    value: Tensor  # (conditions, genes) mean of x
    spread: Tensor  # (conditions, genes) variance of x within the condition
    pooled: Tensor  # (genes,) residual sum of squares that does not depend on unknown targets

    def take(self, rows: Tensor) -> Self:
        """Select conditions."""
        return type(self)(*(each[rows] for each in self[:-1]), self.pooled)


class CellStore:
    """Sampled cells for nonlinear mechanisms, sorted by condition, the controls first.

    Parameters
    ----------
    x
        Standardized values, ``(cells, genes)`` float32.
    size
        Number of cells of every condition in the order of ``x``, ``(1 + conditions,)`` int64.
    """

    def __init__(self, x: Tensor, size: Tensor) -> None:
        self.x, self.size = x, size
        self.start = torch.cumsum(size, 0) - size

    def draw(self, conditions: Tensor, n_cells: int, generator: torch.Generator) -> Tensor:
        """Draw ``n_cells`` cells of each of the conditions, with replacement; ``(conditions, n_cells, genes)``."""
        u = torch.rand(len(conditions), n_cells, generator=generator, dtype=torch.float64)
        rows = self.start[conditions, None] + (u * self.size[conditions, None]).long()
        return self.x[rows]

    def blocks(self, rows: int = 4096) -> Iterator[tuple[Tensor, Tensor]]:
        """All cells in blocks, with the index of every cell's condition."""
        code = torch.repeat_interleave(torch.arange(len(self.size)), self.size)
        yield from zip(self.x.split(rows), code.split(rows), strict=True)


def cell_moments(mechanism: torch.nn.Module, cells: CellStore) -> Moments:
    """Moments over all sampled cells."""
    k, d = len(cells.size), cells.x.shape[1]
    sums = [torch.zeros(k, d, dtype=torch.float64) for _ in range(4)]
    for x, code in cells.blocks():
        x, noise = x.double(), (x - mechanism(x)).double()
        sums = [s.index_add(0, code, part) for s, part in zip(sums, (noise, noise**2, x, x**2), strict=True)]
    n = cells.size[:, None].double()
    # Validation conditions come without controls, so the size of the controls may be 0.
    residual, square, value, square_value = (s / n.clamp(min=1) for s in sums)
    pooled = n[0] * square[0]
    within, spread = (square - residual**2).clamp(min=0), (square_value - value**2).clamp(min=0)
    return Moments(residual[1:], within[1:], value[1:], spread[1:], pooled)
