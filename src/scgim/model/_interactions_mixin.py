"""The method that compares measured combinations with the sum of their drugs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scgim.inference._interactions import interactions

from ._state import ModelState

if TYPE_CHECKING:
    import pandas as pd


class InteractionsMixin(ModelState):
    """Deviations of measured combinations from additivity."""

    def interactions(self) -> pd.DataFrame:
        r"""Deviations of measured combinations from additivity, often called synergy and antagonism.

        Let :math:`y_S` be the mean change of a gene from the controls under the drugs :math:`S`. The deviation is

        .. math:: d = y_{ab} - y_a - y_b

        The changes are measured means at the doses of the combination in the same cell line. The error contains the sampling errors
        of all conditions and of their controls, and the variance between batches of a condition.

        Returns
        -------
        One row for every measured combination x line x gene, the largest ``abs(z)`` of a combination first: ``drug``, ``doses`` and
        ``cell_line``; ``gene``; ``observed``, the mean change under the combination, and ``additive``, the sum of the mean changes
        under its drugs alone, both in control SD; ``deviation``, the difference, with standard error ``se``, ``z``, two-sided
        ``p_value``, and ``p_adjusted``, adjusted over genes by Benjamini and Hochberg. ``singles`` is ``"data"`` if all drugs were
        measured alone at these doses in this line. Otherwise it is ``"model"``: the model predicts the missing changes, whose
        error is unknown, so ``se``, ``z`` and p-values are NaN. There is no row without measured combinations.

        Raises
        ------
        RuntimeError
            If the model is not trained.

        Examples
        --------
        >>> import scgim
        >>> adata = scgim.datasets.simulate_screen(n_genes=5, n_drugs=10, doses=(1.0,), n_new_drugs=2)
        >>> adata.obs["drug_2"] = ""
        >>> pair = (adata.obs["drug"] == "drug-001").to_numpy().nonzero()[0][:20]
        >>> adata.obs.iloc[pair, adata.obs.columns.get_loc("drug_2")] = (
        ...     "drug-002"  # for the example: no cell had two drugs
        ... )
        >>> scgim.setup_anndata(adata, drug_key=["drug", "drug_2"], control="DMSO", scale="continuous")
        >>> model = scgim.GIM(adata)
        >>> model.train(max_epochs=20, enable_progress_bar=False)
        >>> model.interactions()["drug"].unique().tolist()
        ['drug-001 + drug-002']
        """
        return interactions(self._predictor())
