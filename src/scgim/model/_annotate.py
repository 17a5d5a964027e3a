"""Writing results back into an AnnData."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scgim import _keys
from scgim._checks import listed

from ._targets import rank_genes_groups

if TYPE_CHECKING:
    from anndata import AnnData

    from ._fitted import Fitted


def write_shift(adata: AnnData, table: pd.DataFrame, fitted: Fitted, order: np.ndarray, delta: AnnData) -> None:
    """Predicted change of every cell's own drug, dose and line, and its control mean plus that.

    Parameters
    ----------
    table
        Drug, dose, line, batch and control of every cell.
    order
        Columns of the answer among the sorted genes.
    delta
        Predicted changes, a row for each drug x dose x line. Cells of a drug that the model cannot speak of get NaN.
    """
    asked = (
        delta.obs[["drug", "dose", "cell_line"]]
        .astype({"drug": str, "cell_line": str})
        .set_axis(["drug", "dose", "line"], axis=1)
    )
    row = pd.MultiIndex.from_frame(asked.fillna({"dose": 0.0})).get_indexer(
        pd.MultiIndex.from_frame(table[["drug", "dose", "line"]].fillna({"dose": 0.0}))
    )
    genes = np.searchsorted(np.sort(delta.var_names.to_numpy(str)), adata.var_names.to_numpy(str))
    known = delta.X[:, np.argsort(delta.var_names.to_numpy(str))][:, genes]
    change = np.vstack([known, np.full(adata.n_vars, np.nan, dtype=np.float32)])[row]
    control = table["control"].to_numpy()
    change[control] = 0.0
    mute = ~control & (row < 0)
    if mute.any():
        names = sorted(set(table.loc[mute, "drug"]))
        warnings.warn(f"No prediction for {int(mute.sum()):,} cells of {names[:3]}: their change is NaN.", stacklevel=3)
    groups = pd.MultiIndex.from_arrays([fitted.group_line, fitted.group_batch])
    group = groups.get_indexer(pd.MultiIndex.from_frame(table[["line", "batch"]]))
    adata.obsm[_keys.SHIFT] = change
    adata.obsm[_keys.PRED] = fitted.group_mean[:, order].astype(np.float32)[group] + change


def write_graph(adata: AnnData, weight: np.ndarray) -> None:
    """Edge weights (row = source) and degrees; ``weight`` is ``(genes, genes)`` in the order of ``adata.var_names``."""
    adata.varp[_keys.GRAPH] = sp.csr_matrix(weight)
    adata.var[_keys.IN_DEGREE] = (weight != 0).sum(0)
    adata.var[_keys.OUT_DEGREE] = (weight != 0).sum(1)


def write_targets(adata: AnnData, table: pd.DataFrame, *, drug_key: str, control: str) -> None:
    """The ranking in scanpy's format; see :func:`~scgim.model._targets.rank_genes_groups`."""
    colon = sorted({drug for drug in [*table["drug"], control] if ":" in drug})
    if colon:
        warnings.warn(
            f"zarr cannot hold ':' in the name of a group, and that is what {listed(colon)} become in "
            f"uns[{_keys.TARGETS!r}]: adata.write_h5ad works, adata.write_zarr does not. Rename them for zarr.",
            stacklevel=3,
        )
    adata.uns[_keys.TARGETS] = rank_genes_groups(table, drug_key=drug_key, control=control)
