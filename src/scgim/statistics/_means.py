from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ._statistics import SufficientStatistics

_PRIOR_CELLS = 10  # beside a condition's own, of the variance of all


@dataclass(frozen=True)
class ConditionMeans:
    r"""How the means of conditions differ from those of their controls, and what is known of the errors.

    Parameters
    ----------
    n
        Cells per condition, ``(conditions,)`` float64; treated conditions only.
    change
        Condition mean less control mean, ``(conditions, genes)``: a difference in control standard deviations, or of counts
        a logarithm of a ratio (:func:`log_fold_changes`).
    variance
        Of the sampling error of ``change``, the controls' apart, ``(conditions, genes)``.
    line
        Of every condition, whose controls it was compared with, ``(conditions,)`` int.
    control
        Sampling variance of the mean of a line's controls, ``(lines, genes)``; all conditions of a line share that error.
    correlation
        Of the sampling errors of genes, ``(genes, genes)``.
    latent
        Covariance of genes between cells of a condition without what measuring adds, ``(genes, genes)``, positive definite.
    reliability
        Share of the latent in the whole variance, ``(genes,)``.
    n_cells
        Cells in all conditions and controls.
    dispersion
        Of counts: variance over mean within a condition, ``(genes,)``.
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

    @classmethod
    def of(
        cls, statistics: SufficientStatistics, line: np.ndarray, controls: np.ndarray | None = None
    ) -> ConditionMeans:
        """Of standardized statistics, whose condition 0 holds the controls.

        ``line`` is that of every other condition, ``(conditions - 1,)`` int, ``controls`` the cells of a line's own,
        ``(lines,)``; by default each line has all of them.
        """
        n, d = statistics.n, len(statistics.scatter)
        cells = max(statistics.n_cells - len(n), 1.0)
        # a condition's own variance, as if it had some cells more of the usual one: a single cell has none of its own
        pooled = np.diag(statistics.scatter) / cells
        spread = np.maximum((statistics.squares + _PRIOR_CELLS * pooled) / (n[:, None] - 1 + _PRIOR_CELLS), 1e-12)
        # fewer cells than genes leave a singular scatter
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
