from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Statistics:
    r"""Sufficient statistics of a linear model with shift interventions.

    For linear mechanisms the likelihood of all cells depends on the data only through the first three arrays
    (contexts :math:`k`, cells :math:`i`, genes :math:`j`):

    .. math:: n_k, \quad m_{k} = \frac1{n_k} \sum_{i \in k} x_i, \quad W = \sum_k \sum_{i \in k} (x_i - m_k)(x_i - m_k)^\top

    Parameters
    ----------
    n
        Cells per context, ``(contexts,)`` float64.
    mean
        Context means, ``(contexts, genes)`` float64.
    scatter
        Pooled within-context scatter, ``(genes, genes)`` float64.
    squares
        The diagonal of each context's own scatter, ``(contexts, genes)`` float64; they sum to that of ``scatter``.
    """

    n: np.ndarray
    mean: np.ndarray
    scatter: np.ndarray
    squares: np.ndarray

    @property
    def n_cells(self) -> float:
        """Cells in all contexts."""
        return float(self.n.sum())

    def standardise(self, centre: np.ndarray, scale: np.ndarray) -> Statistics:
        """The statistics of ``(x - centre) / scale``; ``centre`` is ``(genes,)`` or one row a context."""
        return Statistics(
            self.n, (self.mean - centre) / scale, self.scatter / np.outer(scale, scale), self.squares / scale**2
        )

    def merge(self, label: np.ndarray) -> Statistics:
        """Pool contexts that share a label, keeping the scatter within the old ones.

        Used on centred controls of several lines or batches, whose means agree by construction.
        """
        member = _membership(label, int(label.max()) + 1)
        n = member @ self.n
        mean = (member @ (self.n[:, None] * self.mean)) / n[:, None]
        return Statistics(n, mean, self.scatter, member @ self.squares)


def accumulate(chunks: Iterable[tuple[np.ndarray, np.ndarray]], *, n_contexts: int, n_genes: int) -> Statistics:
    """Reduce chunks of cells to :class:`Statistics` in one pass and float64.

    Parameters
    ----------
    chunks
        Pairs ``(x, code)``: dense cells ``(rows, genes)`` and the context of each row, ``(rows,)`` int.
    n_contexts, n_genes
        The sizes of the answer. Every context must receive at least one cell.

    Returns
    -------
    The statistics in the units of ``x``. Memory is that of one chunk plus genes x genes, whatever the number of cells.

    Raises
    ------
    ValueError
        If a context receives no cell.

    Examples
    --------
    >>> import numpy as np
    >>> x, code = np.random.default_rng(0).normal(size=(100, 3)), np.repeat([0, 1], 50)
    >>> s = accumulate([(x[:70], code[:70]), (x[70:], code[70:])], n_contexts=2, n_genes=3)
    >>> bool(np.allclose(s.scatter / 98, (np.cov(x[:50].T) + np.cov(x[50:].T)) / 2))
    True
    """
    n, total, squares = np.zeros(n_contexts), np.zeros((n_contexts, n_genes)), np.zeros((n_contexts, n_genes))
    product, centre = np.zeros((n_genes, n_genes)), None
    for x, code in chunks:
        if not len(x):
            continue
        x = np.asarray(x, dtype=np.float64)
        if centre is None:
            centre = x.mean(0)  # any rough centre: it keeps the difference of large sums below from cancelling
        x = x - centre
        member = _membership(code, n_contexts)
        n += np.bincount(code, minlength=n_contexts)
        total += member @ x
        squares += member @ x**2
        product += x.T @ x
    if centre is None or not n.all():
        raise ValueError(f"Contexts without a cell: {np.flatnonzero(n == 0).tolist() if n_contexts else 'all'}.")
    mean = total / n[:, None]
    scatter = product - (mean * n[:, None]).T @ mean
    # a context whose cells all agree must not come out a rounding error below zero
    squares = np.maximum(squares - n[:, None] * mean**2, 0)
    return Statistics(n, mean + centre, (scatter + scatter.T) / 2, squares)


def _membership(code: np.ndarray, n_contexts: int) -> sp.csr_matrix:
    """One-hot (contexts, rows), so that sums over contexts are one sparse product."""
    rows = len(code)
    return sp.csr_matrix((np.ones(rows), (code, np.arange(rows))), shape=(n_contexts, rows))
