"""The measured screens: which columns they have, how they are read, and Welch's z of their genes.

The files and where they come from: ``docs/real_cells.md``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
from common import dense, sizes

import scgim

if TYPE_CHECKING:
    from pathlib import Path

ECCITE = {"drug_key": "condition", "control": "control", "scale": "counts", "batch_key": "replicate"}
ZHAO = {"drug_key": "drug", "control": "control", "scale": "counts"}
SACHS = {"drug_key": "drug", "control": "cd3cd28", "scale": "continuous"}
SCIDSEQ = {"drug_key": "condition", "control": "EGF", "scale": "counts", "size_factor_key": "total_counts"}
HDSTIM = {"drug_key": "condition", "control": "control", "scale": "continuous", "cell_line_key": "cell_type"}
RPPA = {"drug_key": "drug", "control": "DMSO", "scale": "continuous", "dose_key": "dose", "dose_unit": "uM"}
RPPA |= {"cell_line_key": "cell_line", "smiles_key": "smiles"}
NELISA = {"drug_key": "drug", "control": "DMSO", "scale": "continuous", "batch_key": "plate", "smiles_key": "smiles"}
L1000 = {"drug_key": "pert_id", "control": "DMSO", "scale": "lognorm", "batch_key": "plate"}
L1000 |= {"features_key": "drug_features"}
# knock-outs that change nothing among the genes of ECCITE
DEAD = ("ATF2", "CAV1", "CD86", "ETV7", "IRF7", "MARCH8", "PDCD1LG2", "STAT5A")
Z = 4  # a gene changes, by the rule that needs no model, if its |z| is above


def eccite_cells(folder: Path) -> ad.AnnData:
    """CellMatrix whose guide is certain."""
    adata = ad.read_h5ad(folder / "papalexi2021_eccite.h5ad")
    return adata[adata.obs["confident"].to_numpy()].copy()


def zhao_cells(folder: Path) -> ad.AnnData:
    return ad.read_h5ad(folder / "zhao2021_panobinostat.h5ad")


def scidseq_cells(folder: Path) -> ad.AnnData:
    return ad.read_h5ad(folder / "scidseq_kramer2026.h5ad")


def hdstim_cells(folder: Path) -> ad.AnnData:
    return ad.read_h5ad(folder / "hdstim_chi11_cytof.h5ad")


def sachs_cells(folder: Path, which: str) -> ad.AnnData:
    """The shipped eight conditions; the nine of the usual benchmark; or the seven drug effects on two backgrounds."""
    if which == "8 conditions":
        return scgim.datasets.sachs()
    adata = ad.read_h5ad(folder / "sachs2005.h5ad")
    adata.X = np.log(adata.X)
    if which == "9 conditions":
        adata = adata[adata.obs["in_sachs9"].to_numpy()].copy()
        adata.obs["drug"] = adata.obs["condition"].astype(str)
    else:
        adata = adata[(adata.obs["stimulus"] != "none").to_numpy()].copy()
    return adata


def z_scores(adata: ad.AnnData, columns: dict) -> pd.DataFrame:
    """Welch's z of every gene against all controls, drugs x genes; counts as log1p at the median size."""
    x = dense(adata)
    if columns["scale"] == "counts":
        size = sizes(adata, columns)
        x = np.log1p(x / size[:, None] * np.median(size))
    drug = adata.obs[columns["drug_key"]].astype(str).to_numpy()
    mean, variance, n = {}, {}, {}
    for name in np.unique(drug):
        cells = x[drug == name]
        mean[name], variance[name], n[name] = cells.mean(0), cells.var(0), len(cells)
    c = columns["control"]
    z = {k: (mean[k] - mean[c]) / np.sqrt(variance[k] / n[k] + variance[c] / n[c] + 1e-12) for k in mean if k != c}
    return pd.DataFrame(z, index=adata.var_names).T
