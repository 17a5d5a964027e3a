"""Chunked access to the values of cells: genes sorted by name, dense, on the training scale."""

from __future__ import annotations

import copy
import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scgim._checks import check_obs_column, listed, nearest
from scgim._gene_names import gene_names, positions
from scgim._genes import JoinedColumns
from scgim.statistics import accumulate, accumulate_dask, row_blocks
from scgim.statistics._blocks import is_dask
from scgim.statistics._dask import import_dask
from scgim.statistics._value_scan import Scale, ValueScan, dense

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anndata import AnnData
    from numpy.typing import DTypeLike

    from scgim.statistics import SufficientStatistics

CHUNK, ENTRIES = 2**14, 2**23  # most rows and values of a chunk: 32 MB in float32; a pass holds about three chunks
COUNT_TARGET = 1e4  # counts per cell after normalization


class CellMatrix:
    """Chunked access to a matrix of an AnnData.

    Parameters
    ----------
    adata
        AnnData in memory, backed, or on dask (chunks along rows). Its matrix may be dense or sparse, integer or float.
    genes
        Names of the columns to read, in the order of reading.
    layer, scale, size_factor_key
        Arguments of :meth:`scgim.GIM.setup_anndata`.
    readout
        Names of the readout genes, and the key that set-up was given for them.
    rows
        Indices of the cells, ``(cells,)`` int, ascending; all cells by default.

    Raises
    ------
    KeyError, TypeError, ValueError
        If the matrix does not exist or does not hold real numbers, genes occur twice, or size factors are not positive.
    """

    def __init__(
        self,
        adata: AnnData,
        genes: np.ndarray,
        *,
        layer: str | None,
        scale: Scale,
        size_factor_key: str | None = None,
        readout: tuple[np.ndarray, str | None] = (np.empty(0, dtype=str), None),
        rows: np.ndarray | None = None,
    ) -> None:
        self.where = "X" if layer is None else f"layers[{layer!r}]"
        (leaves, key), names = readout, check_genes(adata)
        self.matrix = _matrix(adata, layer)
        if key is not None and key in adata.obsm:
            self.matrix, names = JoinedColumns.of(self.matrix, adata.obsm[key]), names.append(adata.obsm[key].columns)
        self.columns, self.leaves = positions(names, genes, "adata"), positions(names, leaves, "adata")
        self.n_leaves = 0  # number of last columns that are readout genes
        # The size factor of a cell is its sum over panel and readout, also if only the panel is read.
        self.sized = np.concatenate([self.columns, self.leaves]) if len(self.leaves) else None
        # Covariates (cells, covariates) less their control means, and their slopes (covariates, genes), panel first; slopes may be None.
        self.covariates: tuple[np.ndarray, np.ndarray | None] | None = None
        self.scale, self.obs_names = scale, adata.obs_names
        self.read_as = "log" if scale == "counts" else "given"
        self.size = None if size_factor_key is None else _sizes(adata, size_factor_key)
        self.rows = np.arange(adata.n_obs) if rows is None else rows

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pairs of row indices and values on the training scale, float64."""
        return self.chunks()

    def chunks(self, dtype: DTypeLike = np.float64) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pairs of row indices and read-only values on the training scale.

        ``dtype=np.float32`` applies only to float32 matrices and counts, which lose no precision.
        """
        for rows, x in self._blocks(dtype):
            yield rows, x.compute() if hasattr(x, "compute") else x

    def statistics(
        self,
        code: np.ndarray,
        *,
        n_conditions: int,
        n_columns: int | None = None,
        transform: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
        own: bool = False,
        dtype: DTypeLike = np.float64,
    ) -> SufficientStatistics:
        """Statistics from one pass over the cells. The chunks of a dask matrix are processed by their workers.

        Parameters
        ----------
        code
            Condition of every cell of the AnnData, ``(all cells,)`` int. Only the cells of this object are read.
        n_conditions, own, dtype
            Arguments of :func:`scgim.statistics.accumulate`.
        transform
            Called as ``transform(x, code)`` on every chunk. With dask it runs on the workers and must be picklable.
        n_columns
            Number of columns that ``transform`` returns; the number of genes by default.
        """
        code = code.astype(np.min_scalar_type(-n_conditions))  # a small type, because the code is sent with the chunks
        sizes = {"n_conditions": n_conditions, "n_genes": n_columns or len(self.columns), "own": own, "dtype": dtype}
        sizes["leaves"] = self.n_leaves
        chunks = ((x, code[rows]) for rows, x in self._blocks(dtype))
        if is_dask(self.matrix):
            call = None if transform is None else import_dask().delayed(transform, pure=False)
            return accumulate_dask(((x if call is None else call(x, c), c) for x, c in chunks), **sizes)
        return accumulate(((x if transform is None else transform(x, c), c) for x, c in chunks), **sizes)

    def check(self) -> np.ndarray:
        """Check that all values are finite and agree with ``scale``. Returns a mask of constant genes, ``(genes,)``.

        Raises
        ------
        ValueError
            If a value is not finite, a cell has no counts, or the values contradict ``scale``.
        """
        whole = None
        for found in self._scan_blocks():
            if found.first_infinite is not None:
                row, value = found.first_infinite
                raise ValueError(
                    f"{self.where} holds {value} in cell {self.obs_names[row]!r}. Drop or impute such values, "
                    "here and wherever else they are."
                )
            if found.first_empty is not None and self.size is None:
                raise ValueError(
                    f"Cell {self.obs_names[found.first_empty]!r} has no counts at all in {self.where}. Drop such cells: "
                    "sc.pp.filter_cells(adata, min_counts=1)."
                )
            whole = found if whole is None else whole.merge(found)
        if whole is None:
            return np.ones(len(self.columns), dtype=bool)
        wrong_scale = whole.scale_problem(self.scale)
        if wrong_scale is not None:
            wrong, fix = wrong_scale
            raise ValueError(f"scale={self.scale!r} was declared, but in {self.where} {wrong}. {fix}.")
        return whole.low == whole.high

    def _scan_blocks(self) -> Iterator[ValueScan]:
        """Scans of all blocks, in order."""
        blocks = row_blocks(self.matrix, self.rows, self._step())
        if is_dask(self.matrix):
            look = import_dask().delayed(ValueScan.of, pure=False)
            yield from import_dask().compute(*[look(x, rows, self._gathered(), scale=self.scale) for rows, x in blocks])
            return
        known = False
        for rows, x in blocks:
            found = ValueScan.of(x, rows, self._gathered(), scale=self.scale, fractions=not known)
            # These scales only require the information that some value is not an integer.
            known = self.scale != "counts" and found.fractional > 0
            yield found

    def _blocks(self, dtype: DTypeLike) -> Iterator[tuple[np.ndarray, Any]]:
        """Pairs of row indices and values on the training scale; delayed values for a dask matrix."""
        exact = self.scale == "counts" or np.can_cast(self.matrix.dtype, np.float32)
        single = np.dtype(dtype) == np.float32 or self.n_leaves > 0
        dtype = np.float32 if single and exact else np.float64
        read, remove = (
            import_dask().delayed(step, pure=False) if is_dask(self.matrix) else step
            for step in (_values, _without_covariates)
        )
        for rows, x in row_blocks(self.matrix, self.rows, self._step()):
            size = None if self.size is None else self.size[rows]
            values = read(x, self._gathered(), dtype, self.read_as, size, self.sized)
            if self.covariates is not None and self.read_as != "raw":
                of_cells, slopes = self.covariates
                values = remove(values, of_cells[rows], slopes)
            yield rows, values

    def _step(self) -> int:
        """Number of rows of a block."""
        return max(1, min(CHUNK, ENTRIES // self.matrix.shape[1]))

    def _gathered(self) -> np.ndarray | None:
        """Indices of the columns to read; ``None`` if they are all columns in order."""
        same = np.array_equal(self.columns, np.arange(self.matrix.shape[1]))
        return None if same else self.columns

    def with_readout(self) -> CellMatrix:
        """The same cells with the readout genes as last columns."""
        whole = copy.copy(self)
        whole.columns, whole.n_leaves = np.concatenate([self.columns, self.leaves]), len(self.leaves)
        return whole

    def covariate_slopes(self, covariates: np.ndarray, group: np.ndarray, control: np.ndarray) -> np.ndarray:
        """Slopes of all genes on covariates in controls within their group, from a pass over the controls; ``(covariates, genes)``.

        Parameters
        ----------
        covariates, group
            Covariates ``(cells, covariates)``, and group of every cell, ``(cells,)`` int.
        control
            The controls, ``(cells,)`` bool. Every group must have some.
        """
        whole = self.with_readout().subset(np.flatnonzero(control))
        whole.covariates, whole.n_leaves = (covariates, None), len(whole.columns)
        n = covariates.shape[1]
        code = np.full(len(group), -1)
        code[control] = np.unique(group[control], return_inverse=True)[1]
        found = whole.statistics(code, n_conditions=int(code.max()) + 1, n_columns=n + whole.n_leaves)
        return np.linalg.solve(found.scatter, found.leaves.cross)

    def without_covariates(self, covariates: np.ndarray, slopes: np.ndarray) -> CellMatrix:
        """The same cells less the effect of their covariates."""
        residuals = copy.copy(self)
        residuals.covariates = covariates, slopes
        return residuals

    def subset(self, rows: np.ndarray) -> CellMatrix:
        """The same matrix with other rows, ascending."""
        chosen = copy.copy(self)
        chosen.rows = rows
        return chosen

    def counts(self) -> CellMatrix:
        """The same cells as raw counts, with the size factor of the cell as an additional column."""
        raw = copy.copy(self)
        raw.read_as = "raw"
        return raw

    def take(self, rows: np.ndarray) -> sp.csr_matrix:
        """Values of the cells ``rows`` (ascending) on the training scale, sparse float32."""
        chunks = self.subset(rows).chunks(np.float32)
        return sp.vstack([sp.csr_matrix(x.astype(np.float32, copy=False)) for _, x in chunks], format="csr")


def _values(
    x: Any,
    columns: np.ndarray | None,
    dtype: DTypeLike,
    read_as: str,
    size: np.ndarray | None,
    sized: np.ndarray | None = None,
) -> np.ndarray:
    """Dense values: unchanged, log-normalized counts, or raw counts with the size factor as last column.

    Without ``size``, the size factor is the sum of the columns ``sized``, or of ``columns``.
    """
    if size is None and sized is not None and read_as != "given":
        some = x if len(sized) == x.shape[1] else x[:, sized]
        size = np.asarray(some.sum(1, dtype=np.float64)).ravel()
    x = dense(x, columns)
    if read_as == "given":
        return x.astype(dtype, copy=False)
    size = x.sum(1, dtype=np.float64) if size is None else size
    if read_as == "raw":
        return np.column_stack([x, size]).astype(dtype, copy=False)
    x = np.multiply(x, (COUNT_TARGET / size)[:, None], dtype=dtype, casting="same_kind")
    if dtype == np.float64:
        return np.log1p(x, out=x)
    # This is four times as fast as log1p and as accurate in float32: the rounding error of the sum is at most 6e-8 for small x.
    x += 1
    return np.log(x, out=x)


def _without_covariates(x: np.ndarray, covariates: np.ndarray, slopes: np.ndarray | None) -> np.ndarray:
    """Values less the effect of covariates; without slopes the covariates as first columns."""
    if slopes is None:
        return np.column_stack([covariates, x])
    return (x - covariates @ slopes[:, : x.shape[1]]).astype(x.dtype, copy=False)


def data_hash(*arrays: np.ndarray) -> str:
    """Short hash of the content of arrays, for provenance."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def check_genes(adata: AnnData) -> pd.Index:
    """Names of the genes. Raises an error if a name is missing, no string, or occurs more than once."""
    names = pd.Index(gene_names(adata.var_names), dtype=object)
    if names.has_duplicates:
        twice = names[names.duplicated()].unique()
        raise ValueError(
            f"{len(twice)} gene names occur more than once: {listed(twice)}. Genes are matched by name: sum or drop the "
            "duplicates, or adata.var_names_make_unique() if they really are different genes."
        )
    return names


def _matrix(adata: AnnData, layer: str | None) -> object:
    layers = [name for name in adata.layers if name is not None]  # anndata 0.13 lists X as None
    if layer is not None and layer not in layers:
        known = f"Nearest: {listed(nearest(layer, layers))}." if layers else "There are no layers."
        raise KeyError(f"layers[{layer!r}] does not exist. {known}")
    matrix = adata.X if layer is None else adata.layers[layer]
    if matrix is None:
        known = f", e.g. layer={layers[0]!r}" if layers else ""
        raise ValueError(f"adata.X is None. Name the matrix with layer={known}.")
    if np.dtype(matrix.dtype).kind not in "biuf":
        raise TypeError(f"{'X' if layer is None else layer} holds {matrix.dtype} values; expression is real numbers.")
    return matrix


def _sizes(adata: AnnData, key: str) -> np.ndarray:
    """Size factors of all cells, ``(cells,)``."""
    column = check_obs_column(adata, key)
    size = pd.to_numeric(column.astype(object), errors="coerce").to_numpy(np.float64, na_value=np.nan)
    bad = ~(np.isfinite(size) & (size > 0))
    if bad.any():
        raise ValueError(
            f"obs[{key!r}] holds {listed(dict.fromkeys(column[bad]))}; sizes are positive, finite numbers in every cell."
        )
    return size
