"""Cells in chunks: genes sorted by name, dense float64, on the training scale. Nothing else touches the matrix."""

from __future__ import annotations

import copy
import hashlib
import warnings
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scgim._checks import check_obs_column, check_option, nearest, refuse_view

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData

Scale = Literal["counts", "lognorm", "continuous"]
CHUNK = 4096
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
        self.matrix = adata.X if layer is None else adata.layers[layer]
        self.columns = adata.var_names.get_indexer(genes)
        self.scale, self.obs_names = scale, adata.obs_names
        self.size = adata.obs[size_factor_key].to_numpy(np.float64) if size_factor_key is not None else None
        self.rows = np.arange(adata.n_obs) if rows is None else rows

    def raw(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Pairs of row numbers and untransformed values, and the total of each row over all of the panel."""
        for start in range(0, len(self.rows), CHUNK):
            rows = self.rows[start : start + CHUNK]
            # a contiguous block is one read from disk, and a view in memory
            block = slice(rows[0], rows[-1] + 1) if rows[-1] - rows[0] + 1 == len(rows) else rows
            x = self.matrix[block]
            x = x.toarray() if sp.issparse(x) else np.asarray(x)
            x = x.astype(np.float64)
            yield rows, np.ascontiguousarray(x[:, self.columns]), x.sum(1)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pairs of row numbers and values on the training scale."""
        for rows, x, total in self.raw():
            if self.scale == "counts":
                size = total if self.size is None else self.size[rows]
                x = np.log1p(_COUNT_TARGET * x / size[:, None])
            yield rows, x

    def check(self, where: str) -> np.ndarray:
        """Scan every value: is it finite and what ``scale`` declares? Returns which genes are constant, ``(genes,)`` bool.

        Raises
        ------
        ValueError
            Naming the cell or gene, the values found and the fix.
        """
        low, high, fractional, negative, entries = np.inf, -np.inf, 0, 0, 0
        examples: list[float] = []
        first, varies = None, np.zeros(len(self.columns), dtype=bool)
        for rows, x, total in self.raw():
            finite = np.isfinite(x)
            if not finite.all():
                i, j = np.argwhere(~finite)[0]
                raise ValueError(
                    f"{where} holds {x[i, j]} in cell {self.obs_names[rows[i]]!r} (and {(~finite).sum() - 1} more in its chunk). "
                    "Drop or impute these values before setup_anndata."
                )
            first = x[0] if first is None else first
            varies |= (x != first).any(0)
            whole = x == np.floor(x)
            if not whole.all() and len(examples) < 3:
                examples += x[~whole][: 3 - len(examples)].tolist()
            fractional += x.size - int(whole.sum())
            negative += int((x < 0).sum())
            entries += x.size
            low, high = min(low, x.min()), max(high, x.max())
            if self.scale == "counts" and self.size is None and not total.all():
                empty = self.obs_names[rows[np.flatnonzero(total == 0)[0]]]
                raise ValueError(
                    f"Cell {empty!r} has no counts at all in {where}. Drop such cells: sc.pp.filter_cells(adata, min_counts=1)."
                )
        self._check_scale(where, low, high, fractional, negative, entries, examples)
        return ~varies

    def _check_scale(self, where, low, high, fractional, negative, entries, examples) -> None:
        if self.scale == "counts" and (fractional or negative):
            shown = ", ".join(f"{value:.4g}" for value in examples) or f"{low:.4g}"
            what = f"{100 * fractional / entries:.2g} % of the values" if fractional else f"{negative} values"
            wrong = "are not integers" if fractional else "are negative"
            raise ValueError(
                f"scale='counts' was declared, but {what} in {where} {wrong} (e.g. {shown}). "
                "Set scale='lognorm' (or 'continuous'), or point layer= to the counts."
            )
        if self.scale == "lognorm" and (not fractional or high > _LOGNORM_MAX or negative):
            if not fractional:
                why, fix = "all values are integers, which looks like counts", "Set scale='counts'"
            elif negative:
                why, fix = (
                    f"{negative} values are negative (smallest {low:.4g}), which looks scaled",
                    "Set scale='continuous'",
                )
            else:
                why, fix = f"the largest value is {high:.4g}", "Take the logarithm first: sc.pp.log1p(adata)"
            raise ValueError(
                f"scale='lognorm' was declared, but in {where} {why}. {fix}, or point layer= to log-normalised values."
            )

    def subset(self, rows: np.ndarray) -> Cells:
        """The same matrix, other rows (ascending)."""
        chosen = copy.copy(self)
        chosen.rows = rows
        return chosen

    def take(self, rows: np.ndarray) -> sp.csr_matrix:
        """Some cells on the training scale, sparse float32; ``rows`` ascending."""
        return sp.vstack([sp.csr_matrix(x.astype(np.float32)) for _, x in self.subset(rows)], format="csr")


def data_hash(*arrays: np.ndarray) -> str:
    """Short content hash of arrays, for provenance."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def check_matrix(adata: AnnData, *, layer: str | None, scale: Scale, size_factor_key: str | None) -> None:
    """Everything about genes and values that would spoil training, in one scan.

    Raises
    ------
    KeyError, ValueError
        Naming the layer, gene, cell or value, and the fix.
    """
    refuse_view(adata)
    check_option("scale", scale, get_args(Scale))
    if layer is not None and layer not in adata.layers:
        raise KeyError(f"layers[{layer!r}] does not exist. Nearest: {nearest(layer, list(adata.layers))}.")
    if adata.n_vars < 1 or adata.n_obs < 1:
        raise ValueError(f"adata is empty: {adata.n_obs} cells x {adata.n_vars} genes.")
    if adata.var_names.has_duplicates:
        twice = adata.var_names[adata.var_names.duplicated()].unique()
        raise ValueError(
            f"{len(twice)} gene names occur more than once, e.g. {twice[0]!r}. Genes are matched by name: sum or drop the "
            "duplicates, or adata.var_names_make_unique() if they really are different genes."
        )
    if size_factor_key is not None:
        if scale != "counts":
            raise ValueError(f"size_factor_key={size_factor_key!r} goes with scale='counts', not with {scale!r}.")
        size = pd.to_numeric(check_obs_column(adata.obs, size_factor_key), errors="coerce").to_numpy(np.float64)
        if not (np.isfinite(size) & (size > 0)).all():
            raise ValueError(
                f"obs[{size_factor_key!r}] must be positive and finite in every cell, but its smallest value is {size.min():g}."
            )
    elif scale == "counts" and adata.n_vars < 1000:
        warnings.warn(
            f"Sizes for scale='counts' are row sums over only {adata.n_vars} genes, so a strong effect on a few of them changes "
            "the size itself. Pass size_factor_key= with totals over all genes where you have them.",
            stacklevel=4,
        )
    where = "X" if layer is None else f"layers[{layer!r}]"
    cells = Cells(adata, adata.var_names.to_numpy(str), layer=layer, scale=scale, size_factor_key=size_factor_key)
    if cells.matrix is None:
        raise ValueError("adata.X is None. Name the matrix with layer=.")
    constant = cells.check(where)
    if constant.any():
        names = ", ".join(map(repr, adata.var_names[constant][:5]))
        raise ValueError(
            f"{int(constant.sum())} genes are constant in all cells: {names}. Drop them: sc.pp.filter_genes or adata[:, keep].copy()."
        )
