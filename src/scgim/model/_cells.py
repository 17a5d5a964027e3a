"""Cells in chunks: genes sorted by name, dense float64, on the training scale. Nothing else touches the matrix."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scgim._checks import check_obs_column, check_option, listed, nearest, refuse_view, warn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData

Scale = Literal["counts", "lognorm", "continuous"]
CHUNK, ENTRIES = 4096, 2**25  # rows, and values: 256 MB
_COUNT_TARGET = 1e4
_LOGNORM_MAX = 20.0  # e^20 transcripts of one gene in one cell do not exist


class Cells:
    """Chunked access to one matrix of an AnnData.

    Parameters
    ----------
    adata
        In memory or backed; its matrix may be dense or sparse, integer or float.
    genes
        Names of the columns to read, in the order to read them in.
    layer, scale, size_factor_key
        As in :meth:`scgim.GIM.setup_anndata`.
    rows
        Which cells, ``(cells,)`` int, ascending; all by default.

    Raises
    ------
    KeyError, TypeError, ValueError
        If there is no such matrix, it does not hold real numbers, genes occur twice, or sizes are not positive.
    """

    def __init__(
        self,
        adata: AnnData,
        genes: np.ndarray,
        *,
        layer: str | None,
        scale: Scale,
        size_factor_key: str | None = None,
        rows: np.ndarray | None = None,
    ) -> None:
        self.where = "X" if layer is None else f"layers[{layer!r}]"
        self.matrix = _matrix(adata, layer)
        check_genes(adata)
        self.columns = adata.var_names.get_indexer(genes)
        self.scale, self.obs_names = scale, adata.obs_names
        self.size = None if size_factor_key is None else _sizes(adata, size_factor_key)
        self.rows = np.arange(adata.n_obs) if rows is None else rows

    def raw(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pairs of row numbers and untransformed values."""
        step = max(1, min(CHUNK, ENTRIES // self.matrix.shape[1]))
        for start in range(0, len(self.rows), step):
            rows = self.rows[start : start + step]
            # a contiguous block is one read from disk, and a view in memory
            block = slice(rows[0], rows[-1] + 1) if rows[-1] - rows[0] + 1 == len(rows) else rows
            x = self.matrix[block]
            x = x[:, self.columns].toarray() if sp.issparse(x) else np.asarray(x)[:, self.columns]
            yield rows, np.ascontiguousarray(x, dtype=np.float64)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pairs of row numbers and values on the training scale."""
        for rows, x in self.raw():
            if self.scale == "counts":
                size = x.sum(1) if self.size is None else self.size[rows]
                x = np.log1p(_COUNT_TARGET * x / size[:, None])
            yield rows, x

    def check(self) -> np.ndarray:
        """Scan every value: is it finite and what ``scale`` declares? Returns which genes are constant, ``(genes,)`` bool.

        Raises
        ------
        ValueError
            Naming the cell or gene, the values found and the fix.
        """
        tally, first, varies = _Tally(), None, np.zeros(len(self.columns), dtype=bool)
        for rows, x in self.raw():
            finite = np.isfinite(x)
            if not finite.all():
                i, j = np.argwhere(~finite)[0]
                raise ValueError(
                    f"{self.where} holds {x[i, j]} in cell {self.obs_names[rows[i]]!r}. Drop or impute such values, "
                    "here and wherever else they are."
                )
            first = x[0] if first is None else first
            varies |= (x != first).any(0)
            tally.add(x)
            if self.scale == "counts" and self.size is None and not x.any(1).all():
                empty = self.obs_names[rows[np.flatnonzero(~x.any(1))[0]]]
                raise ValueError(
                    f"Cell {empty!r} has no counts at all in {self.where}. Drop such cells: sc.pp.filter_cells(adata, min_counts=1)."
                )
        complaint = tally.complaint(self.scale)
        if complaint is not None:
            wrong, fix = complaint
            raise ValueError(f"scale={self.scale!r} was declared, but in {self.where} {wrong}. {fix}.")
        return ~varies

    def subset(self, rows: np.ndarray) -> Cells:
        """The same matrix, other rows (ascending)."""
        chosen = copy.copy(self)
        chosen.rows = rows
        return chosen

    def take(self, rows: np.ndarray) -> sp.csr_matrix:
        """Some cells on the training scale, sparse float32; ``rows`` ascending."""
        return sp.vstack([sp.csr_matrix(x.astype(np.float32)) for _, x in self.subset(rows)], format="csr")


@dataclass
class _Tally:
    """What a scan saw of the values."""

    entries: int = 0
    fractional: int = 0
    negative: int = 0
    low: float = np.inf
    high: float = -np.inf
    examples: list[float] = field(default_factory=list)

    def add(self, x: np.ndarray) -> None:
        whole = x == np.floor(x)
        if not whole.all() and len(self.examples) < 3:
            self.examples += x[~whole][: 3 - len(self.examples)].tolist()
        self.entries += x.size
        self.fractional += x.size - int(whole.sum())
        self.negative += int((x < 0).sum())
        self.low, self.high = min(self.low, x.min()), max(self.high, x.max())

    def complaint(self, scale: Scale) -> tuple[str, str] | None:
        """Why the values are not of this scale, and what to do about it."""
        if scale == "counts" and self.negative:
            return (
                f"{self.negative:,} values are negative (smallest {self.low:.4g})",
                "Set scale='continuous', or point layer= to the counts",
            )
        if scale == "counts" and self.fractional:
            shown = ", ".join(f"{value:.4g}" for value in self.examples)
            share = 100 * self.fractional / self.entries
            return (
                f"{share:.2g} % of the values are not integers (e.g. {shown})",
                "Set scale='lognorm' if they are log-normalised, or point layer= to the counts",
            )
        if scale != "lognorm":
            return None
        elsewhere = ", or point layer= to log-normalised values"
        if self.negative:
            return (
                f"{self.negative:,} values are negative (smallest {self.low:.4g}), which looks scaled",
                "Set scale='continuous'" + elsewhere,
            )
        if not self.fractional and self.high > 0:
            return "all values are integers, which looks like counts", "Set scale='counts'" + elsewhere
        if self.high > _LOGNORM_MAX:
            return f"the largest value is {self.high:.4g}", "Take the logarithm first: sc.pp.log1p(adata)" + elsewhere
        return None


def data_hash(*arrays: np.ndarray) -> str:
    """Short content hash of arrays, for provenance."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def check_genes(adata: AnnData) -> None:
    """Raise ValueError for gene names that occur more than once."""
    if adata.var_names.has_duplicates:
        twice = adata.var_names[adata.var_names.duplicated()].unique()
        raise ValueError(
            f"{len(twice)} gene names occur more than once: {listed(twice)}. Genes are matched by name: sum or drop the "
            "duplicates, or adata.var_names_make_unique() if they really are different genes."
        )


def _matrix(adata: AnnData, layer: str | None) -> object:
    if layer is not None and layer not in adata.layers:
        known = (
            f"Nearest: {listed(nearest(layer, list(adata.layers)))}." if len(adata.layers) else "There are no layers."
        )
        raise KeyError(f"layers[{layer!r}] does not exist. {known}")
    matrix = adata.X if layer is None else adata.layers[layer]
    if matrix is None:
        known = f", e.g. layer={next(iter(adata.layers))!r}" if len(adata.layers) else ""
        raise ValueError(f"adata.X is None. Name the matrix with layer={known}.")
    if np.dtype(matrix.dtype).kind not in "biuf":
        raise TypeError(f"{'X' if layer is None else layer} holds {matrix.dtype} values; expression is real numbers.")
    return matrix


def _sizes(adata: AnnData, key: str) -> np.ndarray:
    """Sizes of all cells, ``(cells,)``."""
    column = check_obs_column(adata, key)
    size = pd.to_numeric(column.astype(object), errors="coerce").to_numpy(np.float64, na_value=np.nan)
    bad = ~(np.isfinite(size) & (size > 0))
    if bad.any():
        raise ValueError(
            f"obs[{key!r}] holds {listed(dict.fromkeys(column[bad]))}; sizes are positive, finite numbers in every cell."
        )
    return size


def check_matrix(adata: AnnData, *, layer: str | None, scale: Scale, size_factor_key: str | None) -> None:
    """Everything about genes and values that would spoil training, in one scan.

    Raises
    ------
    KeyError, TypeError, ValueError
        Naming the layer, gene, cell or value, and the fix.
    """
    refuse_view(adata)
    check_option("scale", scale, get_args(Scale))
    if adata.n_vars < 1 or adata.n_obs < 1:
        raise ValueError(f"adata is empty: {adata.n_obs} cells x {adata.n_vars} genes.")
    if size_factor_key is not None and scale != "counts":
        raise ValueError(f"size_factor_key={size_factor_key!r} goes with scale='counts', not with {scale!r}.")
    cells = Cells(adata, adata.var_names.to_numpy(str), layer=layer, scale=scale, size_factor_key=size_factor_key)
    constant = cells.check()
    if constant.any():
        raise ValueError(
            f"{int(constant.sum())} genes are constant in all cells: {listed(adata.var_names[constant], n=5)}. "
            "Drop them: sc.pp.filter_genes or adata[:, keep].copy()."
        )
    if scale == "counts" and size_factor_key is None and adata.n_vars < 1000:
        warn(
            f"Sizes for scale='counts' are row sums over only {adata.n_vars} genes, so a strong effect on a few of them changes "
            "the size itself. Pass size_factor_key= with totals over all genes where you have them."
        )
