"""Genes of an AnnData: the panel, whose graph is learned, and the readout, which is regressed on the panel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scgim._checks import listed, nearest
from scgim._gene_names import gene_names
from scgim.statistics._blocks import is_dask
from scgim.statistics._value_scan import dense

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class GeneColumns:
    """Names of all genes in the order of the AnnData, and which of them are readout; ``(genes,)`` each.

    The order is ``.var_names``, followed by the columns of the DataFrame of ``.obsm`` if the readout is there.
    """

    names: np.ndarray
    is_readout: np.ndarray

    @classmethod
    def read(cls, adata: AnnData, key: str | None) -> GeneColumns:
        """Genes for the argument ``readout`` of :meth:`scgim.GIM.setup_anndata`.

        Raises
        ------
        KeyError
            If ``key`` is neither in ``.var`` nor in ``.obsm``.
        TypeError, ValueError
            If names of genes are missing or no strings, the key is in both, the column is not bool, the entry of ``.obsm`` is no DataFrame of
            numbers, or there is no panel or no readout.
        """
        names = gene_names(adata.var_names)
        if key is None:
            return cls(names, np.zeros(len(names), dtype=bool))
        if key in adata.var and key in adata.obsm:
            raise ValueError(f"readout={key!r} is a column of var and a key of obsm. Rename one of them.")
        if key in adata.var:
            genes = cls(names, _mask(adata.var[key], key))
        elif key in adata.obsm:
            columns = _columns(adata.obsm[key], key, names)
            mask = np.repeat([False, True], [len(names), len(columns)])
            genes = cls(np.concatenate([names, columns]), mask)
        else:
            close = listed(nearest(key, [*adata.var, *adata.obsm])) or "none"
            raise KeyError(f"readout={key!r} is neither a column of var nor a key of obsm. Nearest: {close}.")
        if genes.is_readout.all() or not genes.is_readout.any():
            lacking = "panel" if genes.is_readout.all() else "readout"
            raise ValueError(
                f"readout={key!r} leaves no gene in the {lacking}. True marks genes that are readout only, False the genes of the panel."
            )
        return genes

    @property
    def panel(self) -> np.ndarray:
        """Names of the panel, in the order of the AnnData."""
        return self.names[~self.is_readout]

    @property
    def readout(self) -> np.ndarray:
        """Names of the readout genes, in the order of the AnnData."""
        return self.names[self.is_readout]


class JoinedColumns:
    """A matrix and a DataFrame side by side, joined only for the rows that are read."""

    def __init__(self, matrix: Any, frame: pd.DataFrame) -> None:
        self.matrix, self.frame = matrix, frame
        self.shape = (len(frame), matrix.shape[1] + frame.shape[1])
        self.dtype = np.result_type(matrix.dtype, _dtype(frame))

    @classmethod
    def of(cls, matrix: Any, frame: pd.DataFrame) -> JoinedColumns:
        """Join, unless the matrix is on dask."""
        if is_dask(matrix):
            raise TypeError(
                "A readout in obsm does not go with a matrix on dask. Put the readout genes into the matrix, and name a "
                "bool column of var as readout."
            )
        return cls(matrix, frame)

    def __getitem__(self, rows: slice) -> np.ndarray:
        return np.hstack([dense(self.matrix[rows]), self.frame.iloc[rows].to_numpy(_dtype(self.frame))])


def _dtype(frame: pd.DataFrame) -> np.dtype:
    kinds = {getattr(dtype, "subtype", dtype) for dtype in frame.dtypes}  # sparse columns have a subtype
    return np.result_type(*kinds)


def _mask(column: pd.Series, key: str) -> np.ndarray:
    if not isinstance(column, pd.Series) or not pd.api.types.is_bool_dtype(column.dtype) or column.isna().any():
        kind = getattr(column, "dtype", "several columns")
        raise TypeError(f"var[{key!r}] must be bool (True: readout only), but is {kind}. Convert it: .astype(bool).")
    return column.to_numpy(bool)


def _columns(frame: object, key: str, names: np.ndarray) -> np.ndarray:
    """Names of the columns of a DataFrame of numbers, different from each other and from ``names``."""
    if not isinstance(frame, pd.DataFrame):
        raise TypeError(
            f"obsm[{key!r}] is a {type(frame).__name__} without gene names. Make it a DataFrame: pd.DataFrame(..., "
            "index=adata.obs_names, columns=genes)."
        )
    wrong = [name for name, dtype in frame.dtypes.items() if getattr(dtype, "subtype", dtype).kind not in "biuf"]
    if wrong:
        raise TypeError(f"obsm[{key!r}] must hold numbers, but not so {listed(wrong)}.")
    columns = gene_names(frame.columns, f"adata.obsm[{key!r}].columns")
    twice = pd.Index(np.concatenate([names, columns]))
    if twice.has_duplicates:
        raise ValueError(
            f"Genes of obsm[{key!r}] occur more than once, or are in var_names too: "
            f"{listed(twice[twice.duplicated()].unique())}. Drop them from obsm[{key!r}]."
        )
    return columns
