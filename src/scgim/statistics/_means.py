from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np

from ._denoise import denoise

if TYPE_CHECKING:
    from ._replicates import ReplicateVariance
    from ._statistics import SufficientStatistics

_PRIOR_CELLS = 10  # number of cells at the pooled variance that are added to a condition's own cells


@dataclass(frozen=True)
class ConditionMeans:
    r"""Mean changes of conditions from their controls, with their sampling errors.

    Parameters
    ----------
    n
        Cells per treated condition, ``(conditions,)`` float64.
    change
        Condition mean minus control mean, ``(conditions, genes)``: in control SD, or for counts a log fold change
        (:func:`log_fold_changes`).
    variance
        Variance of the sampling error of ``change`` without the error of the controls, ``(conditions, genes)``.
    line
        Cell line of every condition, whose controls are the reference, ``(conditions,)`` int.
    control
        Sampling variance of the mean of a line's controls, ``(lines, genes)``. All conditions of a line share this error.
    correlation
        Correlation of the sampling errors of genes, ``(genes, genes)``.
    latent
        Covariance of genes between cells of a condition without measurement noise, ``(genes, genes)``, positive definite.
    reliability
        Latent variance as a share of the total variance, ``(genes,)``.
    n_cells
        Number of cells in all conditions and controls.
    dispersion
        For counts: variance over mean within a condition, ``(genes,)``.
    target_log_odds
        As in :class:`SufficientStatistics`, of the treated conditions.
    replicates
        Variance of ``change`` between replicates of a condition, if replicates are known. ``variance`` and ``control`` contain it.
    drug, log_dose
        Drug (int) and log dose (not finite: no dose) of every condition, ``(conditions,)`` each. Without them every condition has a drug
        of its own.
    """

    n: np.ndarray
    change: np.ndarray
    variance: np.ndarray
    line: np.ndarray
    control: np.ndarray
    correlation: np.ndarray
    latent: np.ndarray
    reliability: np.ndarray
    n_cells: float
    dispersion: np.ndarray | None = None
    target_log_odds: np.ndarray | None = None
    replicates: ReplicateVariance | None = None
    drug: np.ndarray | None = None
    log_dose: np.ndarray | None = None

    @classmethod
    def of(
        cls, statistics: SufficientStatistics, line: np.ndarray, controls: np.ndarray | None = None
    ) -> ConditionMeans:
        """From standardized statistics with the controls as condition 0.

        ``line`` is the cell line of every other condition, ``(conditions - 1,)`` int. ``controls`` is the number of control cells of
        every line, ``(lines,)``; by default the controls of condition 0 serve all lines.
        """
        n, d = statistics.n, len(statistics.scatter)
        cells = max(statistics.n_cells - len(n), 1.0)
        # A condition's own variance is pooled with that of all conditions: a single cell has no variance of its own.
        pooled = np.diag(statistics.scatter) / cells
        spread = np.maximum((statistics.squares + _PRIOR_CELLS * pooled) / (n[:, None] - 1 + _PRIOR_CELLS), 1e-12)
        # With fewer cells than genes the scatter is singular, so its off-diagonal entries are shrunk.
        shrink = d / (d + cells)
        diagonal = np.maximum(np.diag(statistics.scatter), 1e-12)
        latent = (1 - shrink) * statistics.scatter / cells
        latent[np.diag_indices(d)] = diagonal / cells
        size = np.sqrt(diagonal / cells)
        if controls is None:
            controls = np.full(int(line.max(initial=0)) + 1, n[0])
        return cls(
            n=n[1:],
            change=statistics.mean[1:] - statistics.mean[0],
            variance=spread[1:] / n[1:, None],
            line=np.asarray(line, dtype=np.int64),
            control=spread[0] / np.asarray(controls, dtype=np.float64)[:, None],
            correlation=latent / size / size[:, None],
            latent=latent,
            reliability=np.ones(d),
            n_cells=float(statistics.n_cells),
        )

    @cached_property
    def denoised(self) -> tuple[np.ndarray, np.ndarray]:
        """Posterior mean and variance of true changes, ``(conditions, genes)`` each: :func:`denoise`."""
        drug = np.arange(len(self.n)) if self.drug is None else self.drug
        log_dose = np.full(len(self.n), -np.inf) if self.log_dose is None else self.log_dose
        return denoise(self.change, self.variance + self.control[self.line], drug, log_dose, self.line)

    def with_replicates(self, found: ReplicateVariance, own: np.ndarray, control: np.ndarray) -> Self:
        """Add a variance between replicates to the errors.

        ``own`` and ``control`` are the sums of the squared shares of replicates in a condition, ``(conditions, 1)``, and in the controls
        of a line, ``(lines, 1)``.
        """
        variance, controls = self.variance + found.variance * own, self.control + found.variance * control
        return replace(self, variance=variance, control=controls, replicates=found)
