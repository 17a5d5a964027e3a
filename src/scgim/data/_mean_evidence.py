"""The model of condition means, and its conversion to the standardized scale."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np

from scgim.statistics import ConditionMeans, SizeFactors, log_fold_changes
from scgim.structure import SLAB, fit_graph

from ._matrix import COUNT_TARGET

if TYPE_CHECKING:
    import scipy.sparse as sp

    from scgim.statistics import SufficientStatistics
    from scgim.structure import LocalFit

    from ._replicates import ReplicateMeans
    from ._scaling import Scaling

_LEAST_UNIT = 0.01  # lower bound of `ConditionMeansModel.unit`


@dataclass(frozen=True)
class ConditionMeansModel:
    """Means of the training conditions for the structure search, and their unit in control SD.

    Parameters
    ----------
    means
        Means of the training conditions.
    unit
        Unit of ``means.change`` in control SD of the training scale, ``(genes,)``.
    sizes
        Size factors of counts; else ``None``.
    """

    means: ConditionMeans
    unit: np.ndarray
    sizes: SizeFactors | None = None

    @classmethod
    def of(cls, statistics: SufficientStatistics, line: np.ndarray, controls: np.ndarray) -> ConditionMeansModel:
        """Build the model from standardized statistics with the controls as condition 0; ``controls`` are control cells per line."""
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
        replicates: tuple | None = None,
    ) -> ConditionMeansModel:
        """Build the model from the arguments of :func:`~scgim.statistics.log_fold_changes`; ``labels`` are group, label and line."""
        means = log_fold_changes(totals, residuals, sizes.rate, *labels, replicates)
        return cls(means, np.maximum(slope, _LEAST_UNIT), sizes)

    def with_replicates(self, found: ReplicateMeans, condition: np.ndarray, scaling: Scaling) -> Self:
        """Add the variance between replicates to the errors; ``condition`` is the condition of every treated part."""
        known, cell = found.replicates, np.diag(self.means.latent)
        line = np.searchsorted(scaling.lines, scaling.groups["line"].to_numpy(str))
        own, control = known.concentration(condition, len(self.means.n))[0], known.of_lines(line, len(scaling.lines))
        variance = known.variance(found.mean, cell / known.n[:, None])
        return replace(self, means=self.means.with_replicates(variance, own, control))

    def standardized(self, fit: LocalFit, statistics: SufficientStatistics) -> LocalFit:
        """Convert a fit on ``means`` to control SD. The variance is the variance of cells around the fit."""
        weight = fit.weight * self.unit / self.unit[:, None]
        scatter = statistics.scatter
        explained = (weight * (scatter @ weight)).sum(0) - 2 * (weight * scatter).sum(0)
        variance = (np.diag(scatter) + explained) / statistics.n_cells
        # Coefficients from means are not attenuated by measurement noise, so they may explain more than the scatter of cells.
        least = 0.05 * np.diag(scatter) / statistics.n_cells
        return replace(
            fit,
            weight=weight,
            intercept=fit.intercept * self.unit,
            variance=np.maximum(variance, least),
            error=fit.error * self.unit**2,
        )

    def unscaled(self, fit: LocalFit) -> np.ndarray:
        """Weights of a standardized fit in units of ``means.change``."""
        return fit.weight * self.unit[:, None] / self.unit

    def seen(self, fit: LocalFit) -> tuple[np.ndarray, np.ndarray]:
        """Means in control SD, and effective cells given the errors of a standardized fit; ``(conditions, genes)`` each."""
        # The intercept absorbs the error of the first line's controls. The errors of the other lines' controls remain.
        control = (self.means.control @ (np.eye(len(self.unit)) - self.unscaled(fit)) ** 2) * self.unit**2
        control[0] = 0.0
        return self.means.change * self.unit, fit.variance / (fit.error + control[self.means.line])

    def fit(self, graph: np.ndarray, statistics: SufficientStatistics, **score) -> LocalFit:
        """The standardized fit on a graph; ``score`` are arguments of :func:`~scgim.structure.fit_graph`."""
        return self.standardized(fit_graph(graph, self.means, **score), statistics)

    def occam(self, fit: LocalFit) -> np.ndarray:
        r"""Occam factor of an unknown shift in a typical condition in nats, ``(genes,)``: :math:`\tfrac12 \log(1 + s / v_j)`.

        :math:`v_j` is the median error variance over conditions and :math:`s` the prior variance of a shift.
        """
        return 0.5 * np.log1p(SLAB / np.median(fit.error / self.unit**2, axis=0))

    def target_penalty(self, fit: LocalFit) -> np.ndarray:
        r"""Target penalty in nats, ``(genes,)``: :math:`\log(d - 1)` plus :meth:`occam`, as in the score of the search."""
        return np.log(max(len(self.unit) - 1, 2)) + self.occam(fit)


def log_rate_slope(counts: sp.csr_matrix, scale: np.ndarray) -> np.ndarray:
    r"""Slope of a gene's mean on the training scale, in control SD, on the log of its rate; ``(genes,)``.

    For counts :math:`y \sim \text{Poisson}(\lambda)`, even if :math:`\lambda` varies over cells,
    :math:`\partial E f(y) / \partial \log\lambda = E[\lambda (f(y + 1) - f(y))] = E[y (f(y) - f(y - 1))]`. The expectation is the mean
    over control cells, and :math:`f(y) = \log(1 + 10^4 y / s)` for a cell with size factor :math:`s`.

    Parameters
    ----------
    counts
        Counts of control cells with size factors in the last column, ``(cells, genes + 1)`` sparse. Zero counts do not contribute.
    scale
        Control SD of the training scale, ``(genes,)``.
    """
    factor = COUNT_TARGET / counts[:, -1].toarray().ravel().astype(np.float64)
    y = counts[:, :-1].tocoo()
    step = np.log1p(factor[y.row] * y.data) - np.log1p(factor[y.row] * np.maximum(y.data - 1, 0))
    return np.bincount(y.col, y.data * step, minlength=len(scale)) / len(factor) / scale
