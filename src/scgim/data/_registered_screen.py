"""An AnnData with the settings of its set-up."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from scgim._checks import listed, nearest
from scgim._covariates import Covariates
from scgim._genes import GeneColumns

from ._columns import ScreenColumns
from ._matrix import CellMatrix

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData

    from scgim._combinations import Combinations


class RegisteredScreen:
    """The cells of a screen: their conditions, parsed once, and their values in chunks.

    Parameters
    ----------
    adata
        The screen.
    setup
        Arguments of :meth:`scgim.GIM.setup_anndata`.
    known_doses
        Doses of a trained model, which doses that differ from them by rounding become.
    """

    def __init__(self, adata: AnnData, setup: dict, known_doses: Sequence[float] | None = None) -> None:
        self.adata, self.setup = adata, setup
        self.columns = replace(ScreenColumns.of_setup(setup), known_doses=known_doses)

    @cached_property
    def conditions(self) -> pd.DataFrame:
        """Table of :meth:`ScreenColumns.table`: drug, dose, line, batch, control and train of every cell; and its replicate.

        Raises
        ------
        ValueError
            If the column of replicates is missing, as it may be in data of a loaded model.
        """
        if (key := self.columns.replicate_key) is not None and key not in self.adata.obs:
            raise ValueError(
                f"Training and evaluation need the replicates of replicate_key={key!r}, and obs has no such column. Add it, or set up a "
                "model without replicate_key; predictions need no replicates."
            )
        return self.columns.with_replicates(self.columns.table(self.adata), self.adata)

    @cached_property
    def combinations(self) -> Combinations:
        """Drugs and doses of every combination."""
        return self.columns.combinations(self.adata)

    @cached_property
    def gene_columns(self) -> GeneColumns:
        """Names of panel and readout, in the order of the AnnData."""
        return GeneColumns.read(self.adata, self.setup.get("readout"))

    @property
    def genes(self) -> np.ndarray:
        """Names of the genes of the panel, sorted."""
        return np.sort(self.gene_columns.panel)

    @property
    def readout(self) -> np.ndarray:
        """Names of the readout genes, sorted; empty without readout."""
        return np.sort(self.gene_columns.readout)

    @cached_property
    def covariates(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Covariates less their mean in the training controls of the line and batch, and slopes of genes in these controls, panel first."""
        keys = self.setup.get("covariate_keys") or ()
        if not len(keys):
            return None
        control = (self.conditions["control"] & self.conditions["train"]).to_numpy()
        group = self.conditions.groupby(["line", "batch"], sort=True).ngroup().to_numpy()
        group = np.where(np.isin(group, group[control]), group, -1)
        centered = Covariates.read(self.adata, keys).centered(group, control)
        return centered, self.matrix(adjusted=False).covariate_slopes(centered, group, control)

    def matrix(self, *, adjusted: bool = True) -> CellMatrix:
        """Chunked access to the values, genes sorted; ``adjusted``: less the effect of covariates."""
        options = {name: self.setup[name] for name in ("layer", "scale", "size_factor_key")}
        readout = self.readout, self.setup.get("readout")
        matrix = CellMatrix(self.adata, self.genes, readout=readout, **options)
        if adjusted and self.covariates is not None:
            return matrix.without_covariates(*self.covariates)
        return matrix


def require_genes(genes: np.ndarray, known: np.ndarray) -> None:
    """Raise a ValueError unless ``genes`` are the model's genes, in any order."""
    missing, new = np.setdiff1d(known, genes).tolist(), np.setdiff1d(genes, known).tolist()
    if missing or new or len(genes) != len(known):
        hint = f" (nearest to {missing[0]!r}: {listed(nearest(missing[0], genes, n=1))})" if missing else ""
        raise ValueError(
            f"adata does not have the model's {len(known)} genes: {len(missing)} missing: {listed(missing)}{hint}; "
            f"{len(new)} new: {listed(new)}. Genes are matched by name: map or subset them."
        )
