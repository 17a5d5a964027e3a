"""What a scan over all values sees, and what is wrong with it for a declared scale."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    from scgim._scales import Scale


def dense(x: Any, columns: np.ndarray | None) -> np.ndarray:
    """Some columns, rows contiguous."""
    x = x.toarray() if sp.issparse(x) else np.asarray(x)
    # without a mode, take checks every index of every row
    return np.ascontiguousarray(x) if columns is None else np.take(x, columns, axis=1, mode="clip")


@dataclass
class Tally:
    """What a scan saw of the values: the range of every gene, and the first cell that is not finite or holds nothing."""

    low: np.ndarray
    high: np.ndarray
    entries: int = 0
    fractional: int = 0
    negative: int = 0
    examples: list[float] = field(default_factory=list)
    infinite: tuple[int, float] | None = None
    empty: int | None = None

    @classmethod
    def of(cls, x: Any, rows: np.ndarray, columns: np.ndarray | None, scale: Scale, *, fractions: bool = True) -> Tally:
        """Of a block; ``fractions``: whether to look for values that are not integers."""
        x = dense(x, columns)
        tally = cls(x.min(0), x.max(0), x.size)
        if not (np.isfinite(tally.low).all() and np.isfinite(tally.high).all()):
            i, j = np.argwhere(~np.isfinite(x))[0]
            tally.infinite = int(rows[i]), x[i, j]
            return tally
        if scale == "continuous":
            return tally
        if (tally.low < 0).any():
            tally.negative = int((x < 0).sum())
        if fractions and x.dtype.kind == "f":
            whole = x == np.rint(x)
            tally.fractional = x.size - int(np.count_nonzero(whole))
            tally.examples = x[~whole][:3].tolist() if tally.fractional else []
        if scale == "counts" and not (some := x.any(1)).all():
            tally.empty = int(rows[np.flatnonzero(~some)[0]])
        return tally

    def merge(self, other: Tally) -> Tally:
        """Of this block and a later one."""
        return Tally(
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
            self.entries + other.entries,
            self.fractional + other.fractional,
            self.negative + other.negative,
            (self.examples + other.examples)[:3],
        )
