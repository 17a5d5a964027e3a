"""Writing of results into an AnnData."""

from __future__ import annotations

from typing import TYPE_CHECKING

import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

from scgim import _keys
from scgim._checks import listed, warn
from scgim._memory import require_memory

if TYPE_CHECKING:
    from anndata import AnnData

    from scgim.data._training_summary import TrainingSummary

MOST_HEADER = 65_000  # bytes; a header of HDF5 has at most 64 KiB, with a few other entries
CONDITION_BYTES = 200  # of changes and of the table of targets, for a gene in a condition


def require_room(n_cells: int, n_genes: int, n_conditions: int, *, readout: bool) -> None:
    """Raise a MemoryError if the two arrays of cells x genes and the changes and targets of all conditions do not fit."""
    needed = 2 * 4 * n_cells * n_genes + CONDITION_BYTES * n_conditions * n_genes
    remedy = "annotate some of the cells at a time (model.annotate(part), with part = adata[rows].copy())"
    if readout:
        remedy += ", or the panel alone (genes='panel')"
    remedy += ", or ask for one row per condition (model.predict(as_='delta'))"
    require_memory(needed, f"Two arrays of {n_cells:,} cells x {n_genes:,} genes", remedy)


def write_shift(
    adata: AnnData,
    table: pd.DataFrame,
    summary: TrainingSummary,
    order: np.ndarray,
    rows: pd.DataFrame,
    predicted: np.ndarray,
) -> None:
    """Write the predicted change of every cell's drug, dose and line, and the sum of its control mean and this change.

    Parameters
    ----------
    table
        Drug, dose, line, batch and control of every cell.
    order
        Index of every gene to write among the sorted genes, readout genes last.
    rows, predicted
        Drug, dose and line of the rows, and predicted changes ``(rows, genes)``, genes sorted. Cells without a prediction get NaN.
    """
    asked = rows.set_axis(["drug", "dose", "line"], axis=1)
    row = pd.MultiIndex.from_frame(asked.fillna({"dose": 0.0})).get_indexer(
        pd.MultiIndex.from_frame(table[["drug", "dose", "line"]].fillna({"dose": 0.0}))
    )
    known = predicted[:, order].astype(np.float32)
    change = np.vstack([known, np.full(len(order), np.nan, dtype=np.float32)])[row]
    control = table["control"].to_numpy()
    change[control] = 0.0
    missing = ~control & (row < 0)
    if missing.any():
        names = sorted(set(table.loc[missing, "drug"]))
        warn(f"No prediction for {int(missing.sum()):,} cells of {names[:3]}: their change is NaN.")
    groups = pd.MultiIndex.from_arrays([summary.group_line, summary.group_batch])
    group = groups.get_indexer(pd.MultiIndex.from_frame(table[["line", "batch"]]))
    adata.obsm[_keys.SHIFT] = change
    mean = summary.group_mean
    if summary.readout:
        mean = np.hstack([mean, summary.readout["group_mean"]])
    predicted_mean = mean[:, order].astype(np.float32)[group]
    predicted_mean += change
    adata.obsm[_keys.PRED] = predicted_mean


def placed(weight: np.ndarray, place: np.ndarray) -> sp.csr_matrix:
    """Weights of the panel, ``(panel, panel)``, in the order of the AnnData; ``place`` is the index of every gene, -1 for readout."""
    known = np.flatnonzero(place >= 0)
    inner = sp.coo_matrix(weight[np.ix_(place[known], place[known])])
    return sp.csr_matrix((inner.data, (known[inner.row], known[inner.col])), shape=(len(place), len(place)))


def write_graph(adata: AnnData, weight: sp.csr_matrix) -> None:
    """Write edge weights (row = source) and degrees; ``weight`` is ``(genes, genes)`` in the order of ``adata.var_names``."""
    adata.varp[_keys.GRAPH] = weight
    adata.var[_keys.IN_DEGREE] = np.bincount(weight.indices, minlength=adata.n_vars)
    adata.var[_keys.OUT_DEGREE] = np.diff(weight.indptr).astype(int)


def write_targets(adata: AnnData, table: pd.DataFrame, *, drug_key: str, controls: list[str]) -> None:
    """Write the ranking in scanpy's format by :func:`rank_genes_groups`."""
    names = [*sorted(set(table["drug"])), *controls]
    if large := _header_of_records(names) > MOST_HEADER:
        warn(
            f"h5ad cannot hold {len(names):,} groups in scanpy's format of rank_genes_groups. uns[{_keys.TARGETS!r}] has arrays, genes x "
            "groups, instead: scgim.get.targets_df and scgim.pl.targets read them, scanpy does not."
        )
    elif colon := [name for name in names if ":" in name]:
        warn(
            f"zarr cannot hold ':' in the name of a group, and that is what {listed(sorted(colon))} become in "
            f"uns[{_keys.TARGETS!r}]: adata.write_h5ad works, adata.write_zarr does not. Rename them for zarr."
        )
    adata.uns[_keys.TARGETS] = rank_genes_groups(table, drug_key=drug_key, controls=controls, records=not large)


def _header_of_records(names: list[str]) -> int:
    """Size of the type of a record array in HDF5, in bytes; it lies in the header of the data set."""
    return len(h5py.h5t.py_create(np.dtype([(name, "f8") for name in names]), logical=True).encode())


def rank_genes_groups(table: pd.DataFrame, *, drug_key: str, controls: list[str], records: bool = True) -> dict:
    """A ranking in scanpy's ``rank_genes_groups`` format: a group per drug, best score over doses and lines.

    Without ``records``, every field is an array, genes x groups, and ``groups`` has the names.

    P-values are NaN, because the cells of a well are no independent replicates. Every name of the controls has a group of zeros, because scanpy's plots
    expect a group of the reference and of every category of the column. The reference is the first of them.
    """
    best = table.sort_values(["score", "gene"], ascending=[False, True], kind="stable").drop_duplicates(
        ["drug", "gene"]
    )
    fields = {"names": "gene", "scores": "score", "logfoldchanges": "effect", "probabilities": "probability"}
    fields |= {"doses": "dose"}
    if (best["cell_line"] != "").any():
        fields["cell_lines"] = "cell_line"
    groups = dict(iter(best.groupby("drug", sort=True)))
    drugs, genes = [*groups, *controls], np.sort(best["gene"].unique().astype(str))
    columns, write = {}, _records if records else _columns
    for field, column in fields.items():
        # "-" for the control's line, because zarr cannot hold a field of empty strings only
        blank = (
            genes if field == "names" else np.full(len(genes), "-") if field == "cell_lines" else np.zeros(len(genes))
        )
        values = [*(group[column].to_numpy() for group in groups.values()), *[blank] * len(controls)]
        columns[field] = write(values, drugs, text=field in {"names", "cell_lines"})
    if not records:
        columns["groups"] = np.array(drugs, dtype=object)
    nothing = [np.full(len(genes), np.nan)] * len(drugs)
    params = {
        "groupby": drug_key,
        "reference": controls[0],
        "method": "scgim",
        "use_raw": False,
        "layer": "",
        "corr_method": "",
        # scanpy calls the field logfoldchanges
        "logfoldchanges": "effect on the gene's mechanism, control SD",
    }
    if len(controls) > 1:
        params["controls"] = np.array(controls, dtype=object)
    return {"params": params, **columns, "pvals": write(nothing, drugs), "pvals_adj": write(nothing, drugs)}


def _columns(values: list[np.ndarray], names: list[str], *, text: bool = False) -> np.ndarray:
    return np.array(values, dtype=object if text else np.float64).T.copy()


def _records(values: list[np.ndarray], names: list[str], *, text: bool = False) -> np.ndarray:
    """A record array with a field per drug. Names of fields may contain any character in a file, unlike names of groups."""
    arrays = [np.asarray(v, dtype=object if text else np.float64) for v in values]
    return np.rec.fromarrays(arrays, dtype=[(name, "O" if text else "f8") for name in names])
