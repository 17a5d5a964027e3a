"""What is learned from the conditions' means, on the standardised scale that everything else lives on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from scgim.statistics import ConditionMeans, SizeFactors, log_fold_changes
from scgim.structure import SLAB, fit_graph

from ._matrix import COUNT_TARGET

if TYPE_CHECKING:
    import scipy.sparse as sp

    from scgim.statistics import SufficientStatistics
    from scgim.structure import LocalFit

_LEAST_UNIT = 0.01


@dataclass(frozen=True)
class ConditionMeansModel:
    """Means as the search sees them, and the way to control standard deviations.

    Parameters
    ----------
    means
        Of the training conditions.
    unit
        Control standard deviations of the training scale that a unit of ``means.change`` is worth, ``(genes,)``.
    sizes
        Of counts, what cells are measured against; else ``None``.
    """

    means: ConditionMeans
    unit: np.ndarray
    sizes: SizeFactors | None = None

    @classmethod
    def of(cls, statistics: SufficientStatistics, line: np.ndarray, controls: np.ndarray) -> ConditionMeansModel:
        """From standardised statistics, whose condition 0 holds the controls; ``controls`` are the cells of every line's."""
        means = ConditionMeans.of(statistics, line, controls)
        return cls(means, np.ones(len(means.latent)))

    @classmethod
    def of_counts(
        cls,
        totals: SufficientStatistics,
        residuals: SufficientStatistics,
        sizes: SizeFactors,
        labels: tuple,
        slope: np.ndarray,
    ) -> ConditionMeansModel:
        """From what :func:`~scgim.statistics.log_fold_changes` takes; ``labels`` are its group, label and line."""
        means = log_fold_changes(totals, residuals, sizes.rate, *labels)
        return cls(means, np.maximum(slope, _LEAST_UNIT), sizes)

    def standardised(self, fit: LocalFit, statistics: SufficientStatistics) -> LocalFit:
        """A fit on ``means`` in control standard deviations; the variance is that of cells about it."""
        weight = fit.weight * self.unit / self.unit[:, None]
        scatter = statistics.scatter
        explained = (weight * (scatter @ weight)).sum(0) - 2 * (weight * scatter).sum(0)
        variance = (np.diag(scatter) + explained) / statistics.n_cells
        least = 0.05 * np.diag(scatter) / statistics.n_cells  # attenuated cells may contradict the means
        return replace(
            fit,
            weight=weight,
            intercept=fit.intercept * self.unit,
            variance=np.maximum(variance, least),
            error=fit.error * self.unit**2,
        )

    def unscaled(self, fit: LocalFit) -> np.ndarray:
        """The weights of a standardised fit in units of ``means.change``."""
        return fit.weight * self.unit[:, None] / self.unit

    def seen(self, fit: LocalFit) -> tuple[np.ndarray, np.ndarray]:
        """Means in control sd, and the cells that would leave the errors of a standardised fit; ``(conditions, genes)`` each."""
        # the intercept is that of the first line; the errors of the other lines' controls stay
        control = (self.means.control @ (np.eye(len(self.unit)) - self.unscaled(fit)) ** 2) * self.unit**2
        control[0] = 0.0
        return self.means.change * self.unit, fit.variance / (fit.error + control[self.means.line])

    def fit(self, graph: np.ndarray, statistics: SufficientStatistics, **score) -> LocalFit:
        """The standardised fit on a graph; ``score`` as for :func:`~scgim.structure.fit_graph`."""
        return self.standardised(fit_graph(graph, self.means, **score), statistics)

    def occam(self, fit: LocalFit) -> np.ndarray:
        r"""Nats that not knowing a shift costs in a typical condition, ``(genes,)``: :math:`\tfrac12 \log(1 + s / v_j)`.

        With :math:`v_j` the median error variance over conditions and :math:`s` the prior variance of a shift.
        """
        return 0.5 * np.log1p(SLAB / np.median(fit.error / self.unit**2, axis=0))

    def target_penalty(self, fit: LocalFit) -> np.ndarray:
        r"""Nats for a target, ``(genes,)``: :math:`\log(d - 1)` and :meth:`occam`, as in the search's score."""
        return np.log(max(len(self.unit) - 1, 2)) + self.occam(fit)


def log_rate_slope(counts: sp.csr_matrix, scale: np.ndarray) -> np.ndarray:
    r"""By how many control sd a gene's mean on the training scale rises with the log of its rate, ``(genes,)``.

    For :math:`y \sim \text{Poisson}(\lambda)`, also if :math:`\lambda` varies over cells,
    :math:`\partial E f(y) / \partial \log\lambda = E[\lambda (f(y + 1) - f(y))] = E[y (f(y) - f(y - 1))]`, taken over control cells
    with :math:`f(y) = \log(1 + 10^4 y / s)`.

    Parameters
    ----------
    counts
        Of control cells with their sizes, ``(cells, genes + 1)``; cells without a count add nothing, so it stays sparse.
    scale
        Control standard deviations of the training scale, ``(genes,)``.
    """
    factor = COUNT_TARGET / counts[:, -1].toarray().ravel().astype(np.float64)
    y = counts[:, :-1].tocoo()
    step = np.log1p(factor[y.row] * y.data) - np.log1p(factor[y.row] * np.maximum(y.data - 1, 0))
    return np.bincount(y.col, y.data * step, minlength=len(scale)) / len(factor) / scale
