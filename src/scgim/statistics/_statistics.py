from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp


@dataclass(frozen=True)
class SufficientStatistics:
    r"""Sufficient statistics of a model that is linear in its columns, by condition.

    Columns are genes, or ``B`` basis functions of every gene (:func:`expand`), gene ``j``'s being
    ``j * B ... j * B + B - 1``. The likelihood of all cells depends on the data only through (conditions :math:`k`, cells
    :math:`i`)

    .. math:: n_k, \quad m_{k} = \frac1{n_k} \sum_{i \in k} x_i, \quad W_k = \sum_{i \in k} (x_i - m_k)(x_i - m_k)^\top

    and, where interventions shift a gene but leave its mechanism in place, through the :math:`W_k` only by their sum.

    Parameters
    ----------
    n
        Cells per condition, ``(conditions,)`` float64.
    mean
        Condition means, ``(conditions, columns)`` float64.
    scatter
        Pooled within-condition scatter :math:`\sum_k W_k`, ``(columns, columns)`` float64.
    squares
        The diagonal of each :math:`W_k`, ``(conditions, columns)`` float64; they sum to that of ``scatter``.
    own
        Each :math:`W_k`, ``(conditions, columns, columns)`` float64, where it was asked for: hard interventions need it.
    """

    n: np.ndarray
    mean: np.ndarray
    scatter: np.ndarray
    squares: np.ndarray
    own: np.ndarray | None = None

    @property
    def n_cells(self) -> float:
        """Cells in all conditions."""
        return float(self.n.sum())

    def standardize(self, center: np.ndarray, scale: np.ndarray) -> SufficientStatistics:
        """The statistics of ``(x - center) / scale``; ``center`` is ``(columns,)`` or one row a condition."""
        square = np.outer(scale, scale)
        own = None if self.own is None else self.own / square
        return SufficientStatistics(
            self.n, (self.mean - center) / scale, self.scatter / square, self.squares / scale**2, own
        )

    def merge(self, label: np.ndarray) -> SufficientStatistics:
        """Pool conditions that share a label, keeping the scatter within the old ones.

        Used on centered controls of several lines or batches, whose means agree by construction.
        """
        k = len(label)
        member = sp.csr_matrix((np.ones(k), (label, np.arange(k))), shape=(int(label.max()) + 1, k))
        n = member @ self.n
        mean = (member @ (self.n[:, None] * self.mean)) / n[:, None]
        own = None
        if self.own is not None:
            own = (member @ self.own.reshape(k, -1)).reshape(-1, *self.scatter.shape)
        return SufficientStatistics(n, mean, self.scatter, member @ self.squares, own)

    def take(self, columns: np.ndarray) -> SufficientStatistics:
        """Some columns, in the order given: ``(chosen,)`` int, or a mask."""
        columns = np.arange(len(self.scatter))[columns]
        square = np.ix_(columns, columns)
        own = None if self.own is None else self.own[:, columns[:, None], columns]
        return SufficientStatistics(self.n, self.mean[:, columns], self.scatter[square], self.squares[:, columns], own)
