from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ._statistics import Statistics

_PRIOR_CELLS = 10  # beside a context's own, of the variance of all


@dataclass(frozen=True)
class Means:
    r"""How the means of contexts differ from those of their controls, and what is known of the errors.

    Parameters
    ----------
    n
        Cells per context, ``(contexts,)`` float64; treated contexts only.
    change
        Context mean less control mean, ``(contexts, genes)``: a difference in control standard deviations, or of counts
        a logarithm of a ratio (:func:`log_changes`).
    variance
        Of the sampling error of ``change``, the controls' apart, ``(contexts, genes)``.
    line
        Of every context, whose controls it was compared with, ``(contexts,)`` int.
    control
        Sampling variance of the mean of a line's controls, ``(lines, genes)``; all contexts of a line share that error.
    correlation
        Of the sampling errors of genes, ``(genes, genes)``.
    latent
        Covariance of genes between cells of a context without what measuring adds, ``(genes, genes)``, positive definite.
    reliability
        Share of the latent in the whole variance, ``(genes,)``.
    n_cells
        Cells in all contexts and controls.
    dispersion
        Of counts: variance over mean within a context, ``(genes,)``.
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
    def of(cls, statistics: Statistics, line: np.ndarray, controls: np.ndarray | None = None) -> Means:
        """Of standardised statistics, whose context 0 holds the controls.

        ``line`` is that of every other context, ``(contexts - 1,)`` int, ``controls`` the cells of a line's own,
        ``(lines,)``; by default each line has all of them.
        """
        n, d = statistics.n, len(statistics.scatter)
        cells = max(statistics.n_cells - len(n), 1.0)
        # a context's own variance, as if it had some cells more of the usual one: a single cell has none of its own
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
