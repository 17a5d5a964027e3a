"""Simulated screens: which columns they have, and what a model says of conditions that were not measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from anndata import AnnData

COLUMNS = {"drug_key": "drug", "control": "DMSO", "scale": "continuous", "dose_key": "dose", "dose_unit": "uM"}
COLUMNS |= {"features_key": "drug_features"}


def true_graph(adata: AnnData) -> np.ndarray:
    """Edges of the graph that the screen was drawn from, ``(genes, genes)`` bool."""
    return adata.varp["true_graph"].toarray() > 0


def features_of_unseen(adata: AnnData) -> pd.DataFrame:
    """Features of the unseen drugs, a row each."""
    table = adata.uns["truth"]["unseen_drug"]
    names = pd.Index(table["drug"].astype(str), name="drug")
    rows = pd.DataFrame(table["features"], names, adata.uns["drug_features"].columns)
    return rows[~names.duplicated()].astype(float)


def request(table: dict, features: pd.DataFrame | None) -> dict[str, object]:
    """What to ask of a model, so that it predicts all conditions of a table."""
    drugs = dict.fromkeys(table["drug"].astype(str))
    return {"drug": list(drugs), "features": features, "dose": sorted(set(table["dose"]))}


def rows_of(predicted: AnnData, drug: Sequence[str], dose: Sequence[float]) -> np.ndarray:
    """Predictions of the conditions, ``(conditions, genes)``."""
    rows = pd.MultiIndex.from_frame(predicted.obs[["drug", "dose"]].astype({"drug": str}))
    return predicted.X[rows.get_indexer(pd.MultiIndex.from_arrays([drug, dose]))]


def values_of(
    ranking: pd.DataFrame, drug: Sequence[str], dose: Sequence[float], genes: pd.Index, column: str = "probability"
) -> np.ndarray:
    """A column of a ranking of targets, ``(conditions, genes)``."""
    table = ranking.astype({"drug": str}).pivot(index=["drug", "dose"], columns="gene", values=column)
    return table.loc[list(zip(drug, dose, strict=True)), genes].to_numpy()
