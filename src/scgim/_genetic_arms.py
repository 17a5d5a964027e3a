"""Genetic perturbations of a screen: conditions whose target is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from scgim._checks import check_obs_column, listed, warn

if TYPE_CHECKING:
    from collections.abc import Collection

    from anndata import AnnData

COLUMNS = ("drug", "gene", "kind")


def genetic_arms(
    adata: AnnData | pd.DataFrame, key: str, cells: pd.DataFrame, combinations: Collection[str] = ()
) -> pd.DataFrame:
    """Perturbed gene of every genetic arm: columns drug (name of the arm), gene and kind (``"only"``), sorted.

    Parameters
    ----------
    adata
        The screen, or its ``.obs``.
    key
        Column of ``.obs`` with the perturbed gene; missing or blank for drugs. Values of controls are ignored.
    cells
        Table of :meth:`ScreenColumns.table`.
    combinations
        Names of combinations. They have the targets of their arms and are no arms.

    Raises
    ------
    KeyError, ValueError
        If the column does not exist, or cells of one arm have different genes.
    """
    gene = check_obs_column(adata, key, allow_missing=True).astype(object)
    gene = gene.where(gene.notna(), "").astype(str).str.strip()
    treated = ~(cells["control"] | cells["drug"].isin(list(combinations))).to_numpy()
    pairs = pd.DataFrame(
        {"drug": cells["drug"].to_numpy()[treated], "gene": gene.to_numpy()[treated]}
    ).drop_duplicates()
    several = pairs[pairs["drug"].duplicated(keep=False)].sort_values(["drug", "gene"])
    if len(several):
        name = several["drug"].iloc[0]
        own = ["(none)" if not gene else gene for gene in several.loc[several["drug"] == name, "gene"]]
        raise ValueError(
            f"obs[{key!r}] has several genes for {name!r}: {listed(own)}. A genetic arm perturbs one gene: give arms of different genes "
            "different names, or write the gene into all cells of the arm."
        )
    arms = pairs[pairs["gene"] != ""].sort_values("drug").reset_index(drop=True).assign(kind="only")
    if arms.empty:
        warn(f"obs[{key!r}] has no gene in any treated cell, so there are no genetic arms.")
    return arms[list(COLUMNS)]
