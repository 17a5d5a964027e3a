"""Predictions and results of a trained model: predict, do, rank_targets, get_graph. They do not require the training AnnData."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd

from scgim._checks import check_option, check_whole, nearest
from scgim.data._design import condition_keys
from scgim.inference._counterfactuals import As, Targets
from scgim.inference._gene_intervention import GeneIntervention
from scgim.inference._prediction_adata import Genes
from scgim.inference._target_ranking import Evidence
from scgim.structure import ancestors

from ._fields import CONDITION
from ._state import ModelState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData


AS, TARGETS, EVIDENCE, GENES = get_args(As), get_args(Targets), get_args(Evidence), get_args(Genes)
LARGEST = 1e30  # control SD; larger interventions overflow single precision


class InferenceMixin(ModelState):
    """Predictions and results of a trained model."""

    @property
    def drugs(self) -> list[str]:
        """Drugs of the screen without controls, sorted."""
        return self.get_state_registry(CONDITION)["drugs"].tolist()

    def predict(
        self,
        adata: AnnData | None = None,
        drug: str | tuple[str, ...] | Sequence[str | tuple[str, ...]] | None = None,
        smiles: str | Sequence[str] | None = None,
        features: pd.DataFrame | None = None,
        dose: float | tuple[float, ...] | Sequence[float | tuple[float, ...]] | None = None,
        as_: As = "cells",
        n_cells: int | None = None,
        seed: int = 0,
        *,
        targets: Targets = "expectation",
        evidence: Evidence = "auto",
        genes: Genes = "all",
    ) -> AnnData:
        """Predict cells under drugs at doses, measured or not.

        Parameters
        ----------
        adata
            Control cells to start from, genes matched by name; the training controls by default.
        drug
            A name or a list of names; all measured drugs by default. A tuple of names is a combination: a gene is a target if it is a
            target of any of the drugs, and shifts add. The order of the drugs does not matter.
        smiles
            SMILES of the drugs, one each (a tuple for a combination), for a model whose features come from SMILES.
        features
            DataFrame with the model's feature columns, index = drugs.
        dose
            A number or a list, in the unit of set-up; by default the training doses of the drug, or all training doses for an unseen
            drug. Drugs and doses are combined in all pairs. Combinations take tuples of doses, one per drug.
        as_
            ``"cells"``: the counterfactual of each control cell with its noise kept; ``"samples"``: new cells; ``"mean"``: one
            row for each drug x dose x line; ``"delta"``: mean minus control.
        n_cells
            Cells for each drug x dose x line; by default the number of control cells, which is the maximum for ``"cells"``.
        seed
            Seed of draws and of the choice of cells. The draws for a drug at a dose do not depend on the rest of the query.
        targets
            ``"expectation"``: interventions are weighted by the probability of a target (a shift of probability x psi; a hard
            intervention as a mixture of mechanism and value); ``"map"``: interventions with a probability above 0.5 have weight 1;
            ``"sample"``: every row draws its targets.
        evidence
            Source of the mean change. ``"features"``: the generator and the graph alone, as for an unmeasured drug. ``"data"``: the
            conditions of the drug, by a posterior mean (:class:`~scgim.module.Responses`) that is close to precise measurements; it
            requires a measured drug x dose x line. ``"auto"``: data where available, including other doses and lines of a measured drug
            and the drugs of a combination. The deviations of cells from the mean do not depend on the source.
        genes
            ``"all"``: panel and readout genes (set-up's ``readout``); ``"panel"``: the panel alone.

        Returns
        -------
        AnnData on the training scale: ``X`` dense float32, genes as in training, ``layers["control"]`` the source cell or
        the line's control mean. ``obs``: drug, smiles, dose, cell_line, source_cell, nearest_drug, similarity,
        dose_in_range, trust (applicability domain), and evidence: ``"data"`` for a measured condition, ``"drug"`` for other doses or lines of
        a measured drug and for combinations of measured drugs, else ``"features"``. For counts no value is below 0. Rows are in the order
        of the query, by drug, dose, line and source cell. For combinations, ``obs["doses"]`` contains the doses as text (``obs["dose"]`` is
        NaN), and ``layers["additive"]`` the additive baseline: the control plus the sum of the changes by each drug alone.

        Raises
        ------
        KeyError, ValueError
            If a drug, dose, gene or cell is not valid, or if ``evidence="data"`` and a condition was not measured. The message names the
            value and a remedy.
        MemoryError
            If the prediction does not fit in memory, before anything is computed. Cells of a whole screen are large: drugs x doses x
            control cells. ``as_="mean"`` is small, and ``n_cells`` or one drug at a time makes cells smaller.

        Examples
        --------
        >>> import scgim
        >>> adata = scgim.datasets.sachs()
        >>> scgim.setup_anndata(adata, drug_key="drug", control="cd3cd28", scale="continuous", smiles_key="smiles")
        >>> model = scgim.GIM(adata)
        >>> model.train(max_epochs=20, enable_progress_bar=False)  # for the example; the default gets further
        >>> cells = model.predict(drug="U0126", n_cells=5)
        >>> cells
        AnnData object with n_obs × n_vars = 5 × 11
            obs: 'drug', 'smiles', 'dose', 'cell_line', 'source_cell', 'nearest_drug', 'similarity', 'dose_in_range', 'trust', 'evidence'
            uns: 'scgim'
            layers: 'control'
        >>> model.predict(drug=["U0126", "PMA"], as_="delta").obs["trust"].tolist()
        ['in-domain', 'in-domain']
        """
        check_option("as_", as_, AS)
        check_option("targets", targets, TARGETS)
        check_option("evidence", evidence, EVIDENCE)
        check_option("genes", genes, GENES)
        check_whole("seed", seed)
        predictor = self._predictor()
        query = predictor.resolve(drug=drug, smiles=smiles, features=features, dose=dose)
        return predictor.predict(
            query, adata, as_=as_, n_cells=n_cells, seed=seed, targets=targets, evidence=evidence, genes=genes
        )

    def do(
        self,
        interventions: dict[str, float],
        adata: AnnData | None = None,
        kind: Literal["shift", "set"] = "shift",
        *,
        as_: As = "cells",
        n_cells: int | None = None,
        seed: int = 0,
        genes: Genes = "all",
    ) -> AnnData:
        """Predict cells under interventions on genes of the panel.

        With linear mechanisms the mean change is averaged over an ensemble of graphs. A graph learned from means may be wrong, so the
        regression on the genes within conditions is averaged in, with the weight :data:`~scgim.module.likelihood.DOUBT`.

        Parameters
        ----------
        interventions
            Gene to value, in control SD.
        kind
            ``"shift"`` adds the value to the gene's mechanism; ``"set"`` fixes the gene at control mean + value x SD, without influence
            of its parents.
        adata, as_, n_cells, seed, genes
            Arguments of :meth:`predict`.

        Returns
        -------
        AnnData in the format of :meth:`predict`; ``obs["drug"]`` names the intervention.

        Raises
        ------
        KeyError
            If a gene is not in the model. The message names the nearest gene.
        MemoryError
            If the prediction does not fit in memory.

        Examples
        --------
        >>> import scgim
        >>> adata = scgim.datasets.sachs()
        >>> scgim.setup_anndata(adata, drug_key="drug", control="cd3cd28", scale="continuous", smiles_key="smiles")
        >>> model = scgim.GIM(adata)
        >>> model.train(max_epochs=20, enable_progress_bar=False)  # for the example; the default gets further
        >>> knocked = model.do({"PKA": -2.0}, kind="set", as_="mean")
        >>> knocked.obs["drug"].tolist()
        ['do(PKA=-2)']
        """
        predictor = self._predictor()
        summary = predictor.summary
        check_option("kind", kind, ["shift", "set"])
        check_option("as_", as_, AS)
        check_option("genes", genes, GENES)
        check_whole("seed", seed)
        if not isinstance(interventions, Mapping):
            raise TypeError(f"do takes a dict {{gene: value}}, got {interventions!r}.")
        if not interventions:
            raise ValueError("No intervention was asked for: pass {gene: value}.")
        place = {gene: i for i, gene in enumerate(summary.genes.tolist())}
        for gene, value in interventions.items():
            if gene not in place:
                raise KeyError(
                    f"{gene!r} is not among the {len(place)} modelled genes. Nearest: {nearest(gene, list(place))}."
                )
            if not isinstance(value, Real) or not abs(value) < LARGEST:
                raise ValueError(f"{gene!r} cannot be moved by {value!r}: pass a finite number of control sd.")
        values = {place[gene]: float(value) for gene, value in interventions.items()}
        each = ", ".join(f"{gene}{'=' if kind == 'set' else '+='}{value:g}" for gene, value in interventions.items())
        label = f"do({each})"
        shared = {"drug": label, "smiles": "", "dose": np.nan, "nearest_drug": "", "similarity": np.nan}
        shared |= {"dose_in_range": True, "trust": "do"}

        followers = None
        if self._from_means() and self._structure != "none":
            followers = self._edge_constraints(summary.genes).may_follow(list(values), len(place))
        change = GeneIntervention(summary, values, kind, label, followers).on
        about = {"intervention": kind, "seed": seed}
        return predictor.intervene(change, shared, adata, as_=as_, n_cells=n_cells, provenance=about, genes=genes)

    def rank_targets(
        self,
        drug: str | tuple[str, ...] | Sequence[str | tuple[str, ...]] | None = None,
        smiles: str | Sequence[str] | None = None,
        features: pd.DataFrame | None = None,
        dose: float | tuple[float, ...] | Sequence[float | tuple[float, ...]] | None = None,
        evidence: Evidence = "auto",
    ) -> pd.DataFrame:
        """Rank every gene as a direct target of drugs at doses. The targets are hypotheses of the model, not measured binding.

        Parameters
        ----------
        drug, smiles, features, dose
            Arguments of :meth:`predict`; by default every measured drug x dose x line.
        evidence
            ``"data"``: posterior of a measured condition, from its residuals and the generator's prior;
            ``"features"``: the generator alone; ``"auto"``: data for measured conditions, else features.

        Returns
        -------
        One row for every drug x dose x line x gene: ``rank`` from 1 by ``score`` = probability x abs(effect), ties by name;
        ``probability`` of a target; ``effect``, the shift in control SD before propagation (the value, for hard interventions), and
        ``effect_se``, its standard error, both given that the gene is a target; ``direction``; ``evidence``, the source of the row;
        ``rests_on``, the edge at the gene with the largest effect of removal or reversal on the score, at least a tenth (else ``""``);
        ``direction_probability``, the probability of this edge's direction among resampled graphs that join its genes (NaN without such
        an edge or a search); ``change``, the measured mean change of the gene in control SD; ``rank_by_change``, the rank by the size of
        this change, without a graph (NaN if ``evidence`` is ``"features"``).

        Raises
        ------
        ValueError
            If ``evidence="data"`` and a condition was not measured in training.

        Examples
        --------
        >>> import scgim
        >>> adata = scgim.datasets.sachs()
        >>> scgim.setup_anndata(adata, drug_key="drug", control="cd3cd28", scale="continuous", smiles_key="smiles")
        >>> model = scgim.GIM(adata)
        >>> model.train(max_epochs=20, enable_progress_bar=False)  # for the example; the default gets further
        >>> targets = model.rank_targets(drug="U0126")
        >>> targets[["rank", "direction", "evidence"]].head(2)
           rank direction evidence
        0     1        up     data
        1     2      down     data
        """
        predictor = self._predictor()
        check_option("evidence", evidence, EVIDENCE)
        query = predictor.resolve(drug=drug, smiles=smiles, features=features, dose=dose)
        everything = drug is None and dose is None
        only = set(condition_keys(predictor.summary.design.names())) if everything else None
        return predictor.rank_targets(query, evidence, only)

    def get_graph(self, kind: Literal["direct", "total"] = "direct") -> pd.DataFrame:
        r"""The causal graph as a table of edges.

        Parameters
        ----------
        kind
            ``"direct"``: edges. ``weight`` is the change of target per unit of source, both in control SD; ``strength`` is
            :math:`E[(f_j(x) - f_j(x^{\pi i}))^2] / 2\sigma_j^2`, the nats per cell that the edge carries.
            ``"total"``: ancestor pairs. ``weight`` is the mean change of target, in control SD, under a shift of the source's mechanism
            by +1 SD.

        Returns
        -------
        DataFrame source, target, weight, sign (-1 or 1; 0 where the derivative changes sign), and for edges strength, and
        stability after a call of :meth:`~scgim.GIM.stability`; the strongest edge is first.

        Examples
        --------
        >>> import scgim
        >>> adata = scgim.datasets.sachs()
        >>> scgim.setup_anndata(adata, drug_key="drug", control="cd3cd28", scale="continuous", smiles_key="smiles")
        >>> model = scgim.GIM(adata)
        >>> model.train(max_epochs=20, enable_progress_bar=False)  # for the example; the default gets further
        >>> model.get_graph()[["source", "target", "sign"]].head(1)
          source target  sign
        0    Akt    Erk     1
        """
        predictor = self._predictor()
        check_option("kind", kind, ["direct", "total"])
        z, mechanism = predictor.summary.standardized_controls(), self._trained_module().mechanism
        graph = mechanism.graph.numpy()
        if kind == "direct":
            weight, sign = (a.numpy() for a in mechanism.effects(z))
            strength = mechanism.strength(z).numpy()
            source, target = np.nonzero(graph)
            extra = {"strength": strength[source, target]}
            if self.stability_ is not None:
                extra["stability"] = self.stability_.direct[source, target]
        else:
            weight = predictor.total_effects(z)
            sign = np.sign(weight)
            source, target = np.nonzero(ancestors(graph))
            extra = {}
        genes = predictor.summary.genes
        values = {"weight": weight[source, target], "sign": sign[source, target].astype(int)}
        table = pd.DataFrame({"source": genes[source], "target": genes[target], **values, **extra})
        by = table["strength"] if extra else table["weight"].abs()
        return table.iloc[np.argsort(-by.to_numpy(), kind="stable")].reset_index(drop=True)
