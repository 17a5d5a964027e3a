"""Accumulator of statistics: of the cells seen so far, and of the conditions among them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ._center import center
from ._statistics import LeafStatistics, SufficientStatistics

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import DTypeLike

BLOCK = 2**23  # values in one product: enough for BLAS to be efficient, while the copy stays small (32 MB in float32)


class Accumulator:
    r"""Statistics of some conditions from some of their cells; small enough to travel between processes.

    Every sum of squares is about the mean of its own cells. Two sums are pooled by adding the squares between their means (Chan, Golub
    and LeVeque 1983, doi:10.1080/00031305.1983.10483115). Nothing is ever subtracted, so no digits are lost:

    .. math:: W = W_a + W_b + \frac{n_a n_b}{n_a + n_b} (m_a - m_b)(m_a - m_b)^\top

    :math:`W` is the scatter, :math:`m` the mean and :math:`n` the number of cells of two sets :math:`a` and :math:`b`.

    Parameters
    ----------
    condition
        Numbers of the conditions, ``(conditions,)`` int, ascending.
    columns
        Number of columns of the cells.
    own
        Whether to keep the scatter of each condition.
    leaves
        Number of last columns that are leaves: their scatter with the other columns is kept, but not their scatter with each other.
    """

    def __init__(self, condition: np.ndarray, columns: int, *, own: bool = False, leaves: int = 0) -> None:
        k, self.core = len(condition), columns - leaves
        self.condition, self.n = condition, np.zeros(k)
        self.mean, self.squares = np.zeros((k, columns)), np.zeros((k, columns))
        # Origin of the means: the first cell. Differences of means far from zero would otherwise lose digits.
        self.origin: np.ndarray | None = None
        self.scatter = None if own else np.zeros((self.core, self.core))
        self.own = np.zeros((k, self.core, self.core)) if own else None
        self.cross = np.zeros((self.core, leaves)) if leaves else None

    @classmethod
    def of(cls, x: np.ndarray, code: np.ndarray, *, own: bool, dtype: DTypeLike, leaves: int = 0) -> Self:
        """From cells ``(rows, columns)`` with the condition of each cell, ``(rows,)``."""
        condition, at = np.unique(code, return_inverse=True)
        return cls(condition, x.shape[1], own=own, leaves=leaves).add(x, at, dtype=dtype)

    def add(self, x: np.ndarray, at: np.ndarray, *, dtype: DTypeLike) -> Self:
        """Add cells. ``at`` is the position of each cell's condition, ``dtype`` the type of the products."""
        if x.shape != (len(at), self.mean.shape[1]):
            raise ValueError(f"Cells of shape {x.shape} with {len(at)} conditions, for {self.mean.shape[1]} columns.")
        x = np.ascontiguousarray(x, dtype=x.dtype if x.dtype in (np.float32, np.float64) else np.float64)
        if x.size:
            self.origin = x[0].astype(np.float64) if self.origin is None else self.origin
            blocks = -(-x.size // BLOCK)
            for cells, of in zip(np.array_split(x, blocks), np.array_split(at, blocks), strict=True):
                self._add(cells, of, dtype)
        return self

    def _add(self, x: np.ndarray, at: np.ndarray, dtype: DTypeLike) -> None:
        count = np.bincount(at, minlength=len(self.n))
        found = np.flatnonzero(count)
        stop, y = np.cumsum(count[found]), np.empty(x.shape, self._type(x, dtype))
        # numpy sorts 16-bit integers by radix, in linear time.
        order = np.argsort(at.astype(np.min_scalar_type(len(self.n))), kind="stable")
        mean, squares = center(x, self.origin, order, stop, y)
        leaves = y if self.cross is not None else None
        if leaves is not None and y.dtype != dtype:
            y = np.empty((len(x), self.core), dtype)
            center(np.ascontiguousarray(x[:, : self.core]), self.origin[: self.core], order, stop, y)
        between = self._move(found, count[found], mean, squares)
        rest = between[between.any(1)].astype(dtype)
        self._cross(leaves, rest.astype(self._type(x, dtype), copy=False))
        y, rest, between = y[:, : self.core], rest[:, : self.core], between[:, : self.core]
        if self.own is None:
            # For a product with its own transpose numpy calls BLAS' syrk: half the work of a general product.
            self.scatter += y.T @ y
            self.scatter += rest.T @ rest
        else:
            for k, rows, row in zip(found, np.split(y, stop[:-1]), between, strict=True):
                self.own[k] += rows.T @ rows
                self.own[k] += np.outer(row, row)

    def _type(self, x: np.ndarray, dtype: DTypeLike) -> DTypeLike:
        """Type of products with leaves: single precision also for cells in single precision."""
        return np.float32 if self.cross is not None and x.dtype == np.float32 else dtype

    def _cross(self, *rows: np.ndarray) -> None:
        """Add the products of columns and leaves of some rows."""
        for each in rows if self.cross is not None else ():
            self.cross += each[:, : self.core].T @ each[:, self.core :]

    def pool(self, other: Accumulator) -> Self:
        """Add the statistics of other cells, whose conditions are all among these."""
        at = np.searchsorted(self.condition, other.condition)
        self.origin = other.origin if self.origin is None else self.origin
        between = self._move(at, other.n, other.mean + (other.origin - self.origin), other.squares)
        self._cross(between)
        if self.cross is not None:
            self.cross += other.cross
        between = between[:, : self.core]
        if self.own is None:
            self.scatter += other.scatter
            self.scatter += between.T @ between
        else:
            for k, own, row in zip(at, other.own, between, strict=True):
                self.own[k] += own
                self.own[k] += np.outer(row, row)
        return self

    def _move(self, at: np.ndarray, n: np.ndarray, mean: np.ndarray, squares: np.ndarray) -> np.ndarray:
        """Update means and squares at some positions. Returns the roots of the squares between means, ``(positions, columns)``."""
        before, total = self.n[at], self.n[at] + n
        apart = mean - self.mean[at]
        between = np.sqrt(before * n / total)[:, None] * apart
        self.n[at] = total
        self.mean[at] += (n / total)[:, None] * apart
        self.squares[at] += squares + between**2
        return between

    def complete(self, n_conditions: int) -> SufficientStatistics:
        """The statistics of all conditions. Raises ValueError if a condition received no cell."""
        every, seen = np.arange(n_conditions), self.condition[self.n > 0]
        if not n_conditions or not np.isin(every, seen).all():
            raise ValueError(
                f"Conditions without a cell: {np.setdiff1d(every, seen).tolist() if n_conditions else 'all'}."
            )
        if len(seen) > n_conditions:
            raise ValueError(f"Cells of conditions {np.setdiff1d(seen, every).tolist()}, of {n_conditions}.")
        scatter = self.scatter if self.own is None else self.own.sum(0)
        mean, squares, d = self.origin + self.mean, self.squares, self.core
        leaves = None if self.cross is None else LeafStatistics(mean[:, d:], squares[:, d:], self.cross)
        return SufficientStatistics(self.n, mean[:, :d], scatter, squares[:, :d], self.own, leaves=leaves)


def pool(parts: list[Accumulator]) -> Accumulator:
    """Pool accumulators of disjoint cells, which may have conditions in common."""
    condition = np.unique(np.concatenate([part.condition for part in parts]))
    columns, core = parts[0].mean.shape[1], parts[0].core
    total = Accumulator(condition, columns, own=parts[0].own is not None, leaves=columns - core)
    for part in parts:
        total.pool(part)
    return total
