"""The scan of all values for set-up and :func:`scgim.pp.check`, and the rules for values of a declared scale."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp

Scale = Literal["counts", "lognorm", "continuous"]
LOGNORM_MAX = 20.0  # a larger value would mean e^20 transcripts of one gene in one cell


def dense(x: Any, columns: np.ndarray | None = None) -> np.ndarray:
    """Some columns as a dense array with contiguous rows."""
    if sp.issparse(x) and columns is not None and 2 * len(columns) < x.shape[1]:
        return np.ascontiguousarray(x[:, columns].toarray())
    x = x.toarray() if sp.issparse(x) else np.asarray(x)
    # mode="clip" is faster: by default, take checks every index of every row.
    return np.ascontiguousarray(x) if columns is None else np.take(x, columns, axis=1, mode="clip")


@dataclass
class ValueScan:
    """Results of a scan of the values of a block of cells, or of several blocks.

    Parameters
    ----------
    low, high
        Range of the finite values of every gene, ``(genes,)``.
    infinite
        Values that are missing or infinite, ``(genes,)``.
    entries, negative, fractional
        Number of all values, of negative values, and of values that are not integers.
    empty
        Number of cells in which every value is 0.
    examples
        Up to three values that are not integers.
    first_infinite, first_empty
        Row and value of the first non-finite value, and row of the first empty cell.
    square, projection
        Sums of squares, and a random projection over cells, ``(genes,)``. Genes with the same value in every cell have the same
        projection. Empty unless the scan was given weights.
    """

    low: np.ndarray
    high: np.ndarray
    infinite: np.ndarray
    entries: int = 0
    negative: int = 0
    fractional: int = 0
    empty: int = 0
    examples: list[float] = field(default_factory=list)
    first_infinite: tuple[int, float] | None = None
    first_empty: int | None = None
    square: np.ndarray = field(default_factory=lambda: np.zeros(0))
    projection: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def of(
        cls,
        x: Any,
        rows: np.ndarray,
        columns: np.ndarray | None = None,
        *,
        scale: Scale | None = None,
        fractions: bool = True,
        weight: np.ndarray | None = None,
    ) -> ValueScan:
        """Scan a block.

        Parameters
        ----------
        x, rows, columns
            The block ``(cells, all genes)``, the row numbers of its cells, and the columns to scan.
        scale
            The declared scale. The scan skips everything that this scale permits. ``None``: nothing is skipped.
        fractions
            Whether to look for values that are not integers.
        weight
            Weights of the cells for the random projection, ``(cells,)``.
        """
        x = dense(x, columns)
        low, high = x.min(0), x.max(0)
        found = cls(low, high, np.zeros(x.shape[1], dtype=np.int64), x.size)
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            odd = ~np.isfinite(x)
            i, j = np.argwhere(odd)[0]
            found.infinite, found.first_infinite = odd.sum(0), (int(rows[i]), x[i, j])
            x = np.where(odd, 0, x)
            found.low, found.high = x.min(0), x.max(0)
        if weight is not None:
            values = x.astype(np.float64, copy=False)
            found.square, found.projection = np.square(values).sum(0), weight @ values
        if scale == "continuous":
            return found
        if (found.low < 0).any():
            found.negative = int((x < 0).sum())
        if fractions and x.dtype.kind == "f":
            whole = x == np.rint(x)
            found.fractional = x.size - int(np.count_nonzero(whole))
            found.examples = x[~whole][:3].tolist() if found.fractional else []
        if scale in ("counts", None) and not (some := x.any(1)).all():
            found.empty, found.first_empty = int((~some).sum()), int(rows[np.flatnonzero(~some)[0]])
        return found

    def merge(self, other: ValueScan) -> ValueScan:
        """Results of this block and a later block together."""
        return ValueScan(
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
            self.infinite + other.infinite,
            self.entries + other.entries,
            self.negative + other.negative,
            self.fractional + other.fractional,
            self.empty + other.empty,
            (self.examples + other.examples)[:3],
            other.first_infinite if self.first_infinite is None else self.first_infinite,
            other.first_empty if self.first_empty is None else self.first_empty,
            self.square + other.square,
            self.projection + other.projection,
        )

    def scale_problem(self, scale: Scale) -> tuple[str, str] | None:
        """Why the values are not of this scale, and what to do; sentences without their full stop."""
        if scale == "counts" and self.negative:
            return (
                f"{self.negative:,} values are negative (smallest {self.low.min():.4g})",
                "Set scale='continuous', or point layer= to the counts",
            )
        if scale == "counts" and self.fractional:
            shown = ", ".join(f"{value:.4g}" for value in self.examples)
            share = 100 * self.fractional / self.entries
            return (
                f"{share:.3g} % of the values are not integers (e.g. {shown})",
                "Set scale='lognorm' if they are log-normalized, or point layer= to the counts. Fractional counts, as estimates of ambient RNA or "
                "of multimapped reads leave them, are to be rounded first: adata.X = np.rint(adata.X), and for a sparse matrix adata.X.data = "
                "np.rint(adata.X.data) (round to whole counts)",
            )
        if scale != "lognorm":
            return None
        high = self.high.max()
        elsewhere = ", or point layer= to log-normalized values"
        if self.negative:
            return (
                f"{self.negative:,} values are negative (smallest {self.low.min():.4g}), which looks scaled",
                "Set scale='continuous'" + elsewhere,
            )
        if not self.fractional and high > 0:
            return "all values are integers, which looks like counts", "Set scale='counts'" + elsewhere
        if high > LOGNORM_MAX:
            return f"the largest value is {high:.4g}", "Take the logarithm first: sc.pp.log1p(adata)" + elsewhere
        return None
