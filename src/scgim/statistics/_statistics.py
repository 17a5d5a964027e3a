from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp


@dataclass(frozen=True)
class LeafStatistics:
    """Statistics of further columns, the leaves, that are regressed on the columns of :class:`SufficientStatistics`.

    Parameters
    ----------
    mean, squares
        Condition means, and sums of squares about them, ``(conditions, leaves)`` float64.
    cross
        Pooled within-condition scatter of columns (rows) and leaves, ``(columns, leaves)`` float64.
    """

    mean: np.ndarray
    squares: np.ndarray
    cross: np.ndarray


@dataclass(frozen=True)
class SufficientStatistics:
    r"""Sufficient statistics, by condition, of a model that is linear in its columns.

    Columns are genes, or ``B`` basis functions of every gene (:func:`expand`); columns ``j * B`` to ``j * B + B - 1`` belong to gene
    ``j``. The likelihood of all cells depends on the cells :math:`x_i` of the conditions :math:`k` only through

    .. math:: n_k, \quad m_{k} = \frac1{n_k} \sum_{i \in k} x_i, \quad W_k = \sum_{i \in k} (x_i - m_k)(x_i - m_k)^\top.

    If interventions shift a gene and leave its mechanism intact, only the sum of the :math:`W_k` matters.

    Parameters
    ----------
    n
        Cells per condition, ``(conditions,)`` float64.
    mean
        Condition means, ``(conditions, columns)`` float64.
    scatter
        Pooled within-condition scatter :math:`\sum_k W_k`, ``(columns, columns)`` float64.
    squares
        Diagonal of each :math:`W_k`, ``(conditions, columns)`` float64. The sum over conditions is the diagonal of ``scatter``.
    own
        Each :math:`W_k`, ``(conditions, columns, columns)`` float64, if requested: hard interventions need it.
    target_log_odds
        Prior log odds of targets relative to a gene without prior knowledge, ``(conditions, genes)``, in nats; infinite if certain.
    leaves
        Statistics of further columns from the same pass. The methods of this class do not keep them.
    """

    n: np.ndarray
    mean: np.ndarray
    scatter: np.ndarray
    squares: np.ndarray
    own: np.ndarray | None = None
    target_log_odds: np.ndarray | None = None
    leaves: LeafStatistics | None = None

    @property
    def n_cells(self) -> float:
        """Number of cells in all conditions."""
        return float(self.n.sum())

    def standardize(self, center: np.ndarray, scale: np.ndarray) -> SufficientStatistics:
        """Statistics of ``(x - center) / scale``; ``center`` is ``(columns,)`` or has one row per condition."""
        square = np.outer(scale, scale)
        own = None if self.own is None else self.own / square
        return SufficientStatistics(
            self.n, (self.mean - center) / scale, self.scatter / square, self.squares / scale**2, own
        )

    def merge(self, label: np.ndarray) -> SufficientStatistics:
        """Pool conditions that share a label. The scatter stays that within the original conditions.

        Used on centered controls of several lines or batches, whose means are equal by construction.
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
        """Some columns in the given order: ``(chosen,)`` int, or a mask."""
        columns = np.arange(len(self.scatter))[columns]
        square = np.ix_(columns, columns)
        own = None if self.own is None else self.own[:, columns[:, None], columns]
        return SufficientStatistics(self.n, self.mean[:, columns], self.scatter[square], self.squares[:, columns], own)
