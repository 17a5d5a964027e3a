"""The predictor: queries of a trained model are resolved, given interventions by the generator, and propagated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from scgim._checks import check_whole, listed
from scgim._version import __version__
from scgim.data._design import condition_keys
from scgim.data._known_targets import certain_targets
from scgim.structure import levels

from ._applicability import applicability
from ._combinations import intervention_distribution, measured_distribution
from ._condition_query import known_treatments, query_of_conditions
from ._control_cells import training_controls, user_controls
from ._counterfactuals import CounterfactualSampler, mean_changes
from ._drug_interventions import DrugInterventions, condition_text, not_measured
from ._gene_intervention import total_effects
from ._prediction_adata import assemble
from ._query import resolve
from ._readout import ReadoutPredictor, gene_order
from ._target_ranking import decisive_edges_of, posterior, rank

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from anndata import AnnData

    from scgim._combinations import Parts
    from scgim.data._drug_table import DrugTable
    from scgim.data._training_summary import TrainingSummary
    from scgim.module import GIMModule
    from scgim.train._graph_averaging import Averaging

    from ._combinations import InterventionDistribution
    from ._counterfactuals import As, Intervention, Targets
    from ._prediction_adata import Blocks, Genes
    from ._query import Query
    from ._target_ranking import Evidence


@dataclass(frozen=True)
class Predictor:
    """Predictions and target rankings of a trained model, without the training data.

    Parameters
    ----------
    module, summary, drug_table
        The trained module, the summary of the training data, and the drugs.
    setup
        Arguments of :meth:`scgim.GIM.setup_anndata`.
    genes
        Names of panel and readout genes in the order of the training AnnData.
    averaging
        Graphs for the average over interventions; ``None`` for the graph of the data alone.
    averages_drugs
        Whether predictions of drugs are averaged over graphs. This holds for graphs learned from means, because all graphs of the
        ensemble are about equally likely. With a graph learned from cells, the shifts of drugs are residuals of this graph. On another
        graph they would not reproduce the measured changes.
    plain
        A module without a graph for predictions of drugs, if the graph does harm; else ``None``.
    known_targets
        Prior knowledge of targets, as returned by :func:`~scgim.data._known_targets.check_known_targets`. Known and excluded targets of a
        drug are certain at every dose and in every line.
    """

    module: GIMModule
    summary: TrainingSummary
    drug_table: DrugTable
    setup: dict
    genes: np.ndarray
    averaging: Averaging | None = None
    averages_drugs: bool = False
    plain: GIMModule | None = None
    known_targets: pd.DataFrame | None = None

    def resolve(self, **asked: object) -> Query:
        """Validate a query by :func:`~scgim.inference._query.resolve`."""
        return resolve(
            self.summary.design,
            self.drug_table,
            control=self.setup["control"],
            pools_drugs=self.module.generator.pools_drugs,
            **asked,
        )

    def knows(self, treatments: pd.Series, combinations: Mapping[str, Parts] = {}) -> np.ndarray:
        """Drugs and combinations that the model can predict, ``(rows,)`` bool."""
        return known_treatments(treatments, set(self.known_drugs.tolist()), combinations)

    def query_of(self, conditions: pd.DataFrame, combinations: Mapping[str, Parts] = {}) -> Query:
        """Query of all drugs and doses of ``conditions`` (columns drug and dose) that the model can predict.

        ``combinations`` are the drugs and doses of the combinations among them.

        Raises
        ------
        ValueError
            If the model can predict none of the conditions.
        """
        known = self.knows(conditions["drug"], combinations)
        return query_of_conditions(self.resolve, conditions, known, combinations, dosed=self.summary.design.dosed)

    @property
    def known_drugs(self) -> np.ndarray:
        """Names of the drugs that the model can predict: measured drugs, and other drugs by their features."""
        measured, table = self.summary.design.drugs, self.drug_table
        if not self.module.generator.pools_drugs:
            return measured
        return np.union1d(measured, sorted(set(table.frame.index) - table.featureless))

    def _by_data_alone(self, query: Query) -> np.ndarray:
        """Rows with a drug that the generator does not know for want of features, ``(rows,)`` bool."""
        blind = ~query.featured & self.module.generator.pools_drugs
        return np.bincount(query.row, blind, minlength=len(query.drug)) > 0

    def _check_evidence(self, query: Query, evidence: Evidence) -> None:
        """Raise ValueError if features are asked for and a drug has none."""
        blind = query.drug[self._by_data_alone(query)]
        if evidence == "features" and len(blind):
            raise ValueError(
                f"evidence='features' needs features, and {listed(dict.fromkeys(blind))} has none. Use evidence='auto' or 'data'."
            )

    # ---- targets -----------------------------------------------------------------------------------------------------

    def rank_targets(self, query: Query, evidence: Evidence, only: set[tuple] | None = None) -> pd.DataFrame:
        """Rank the targets of a query's drugs and doses in every line, or in the conditions with keys in ``only``."""
        self._check_evidence(query, evidence)
        summary, design = self.summary, self.summary.design
        found = posterior(self.module, summary)
        measured = {key: i for i, key in enumerate(condition_keys(design.names()))}
        lines = [str(line) for line in design.lines]
        asked = pd.DataFrame(
            [(*pair, line) for pair in zip(query.drug, query.dose, strict=True) for line in lines],
            columns=["drug", "dose", "cell_line"],
        )
        keys = list(condition_keys(asked.assign(drug=np.repeat(query.treatments, len(lines)))))
        at = np.array([measured.get(key, -1) for key in keys])
        # Rows are ordered by drug and dose, and by line within these.
        distributions = [self.interventions(query, line) for line in lines]
        prior = [np.stack(parts, axis=1).reshape(len(asked), -1) for parts in zip(*distributions, strict=True)]
        # Without features, the targets of a drug are known only where the drug was measured.
        wanted = ~np.repeat(self._by_data_alone(query), len(lines)) | (at >= 0)
        if only is not None:
            wanted &= np.array([key in only for key in keys])
        elif not wanted.any():
            where = condition_text(*asked.iloc[0])
            raise ValueError(f"A drug without features has targets only where it was measured, and {where} was not.")
        doses = np.repeat(query.doses, len(lines))[wanted]
        asked, at, prior = asked[wanted], at[wanted], [a[wanted] for a in prior]
        if evidence == "data" and (at < 0).any():
            not_measured(*asked.iloc[np.flatnonzero(at < 0)[0]])
        data = (at >= 0) & (evidence != "features")
        # The generator predicts in control SD of the line. The ranking is in pooled control SD, so that lines are comparable.
        unit = summary.relative_scale(np.searchsorted(design.lines, asked["cell_line"].to_numpy(str)))
        prior = prior[0], prior[1] * unit, prior[2] * unit
        values = (np.where(data[:, None], own[at], other) for own, other in zip(found, prior, strict=True))
        edge, likely = decisive_edges_of(self.module, summary, self.averaging, found[0])
        rests_on = np.where(data[:, None], edge[at], ""), np.where(data[:, None], likely[at], np.nan)
        change = np.where(data[:, None], self.measured_changes()[at], np.nan)
        table = rank(asked, summary.genes, *values, np.where(data, "data", "features"), *rests_on, change)
        if not query.combined.any():
            return table
        return table.assign(doses=np.repeat(doses, len(summary.genes)))

    def interventions(self, query: Query, line: str, module: GIMModule | None = None) -> InterventionDistribution:
        """Interventions of a query's rows in a cell line by the generator of the module, or of another module."""
        inputs, certain = query.inputs(self.summary.design, line), self._certain(query.part)
        return intervention_distribution(module or self.module, inputs, query.row, len(query.drug), certain)

    def _certain(self, drug: np.ndarray) -> np.ndarray | None:
        """Certain targets of drugs by :func:`~scgim.data._known_targets.certain_targets`."""
        return certain_targets(self.known_targets, drug, self.summary.genes)

    # ---- predictions -------------------------------------------------------------------------------------------------

    def predict(
        self,
        query: Query,
        adata: AnnData | None = None,
        *,
        as_: As = "cells",
        n_cells: int | None = None,
        seed: int = 0,
        targets: Targets = "expectation",
        evidence: Evidence = "auto",
        genes: Genes = "all",
    ) -> AnnData:
        """Predict a query's drugs and doses in every line."""
        blocks = self._drug_blocks(query, adata, as_, n_cells, seed, targets, evidence, genes=genes)
        return self._assembled(blocks, as_, {"targets": targets, "seed": seed}, genes)

    def changes(
        self, query: Query, evidence: Evidence = "auto", only: set[tuple] | None = None, genes: Genes = "panel"
    ) -> tuple[pd.DataFrame, np.ndarray]:
        """Treatment, dose and line of every row, and predicted mean changes on the training scale, ``(rows, genes)`` with genes sorted.

        ``only`` are keys of the requested conditions; ``None`` for all rows in all lines. Readout genes are last.
        """
        blocks = list(self._drug_blocks(query, None, "delta", None, 0, "expectation", evidence, only, genes).parts)
        rows = query.with_treatments(pd.DataFrame([about for _, about in blocks]))[["drug", "dose", "cell_line"]]
        return rows, np.concatenate([block.not_negative(self.setup["scale"], "delta").x for block, _ in blocks])

    def intervene(
        self,
        change: Callable[[str], Intervention],
        about: dict,
        adata: AnnData | None,
        *,
        as_: As,
        n_cells: int | None,
        provenance: dict,
        genes: Genes = "all",
    ) -> AnnData:
        """Predict an intervention on genes. ``change`` returns the intervention in a line, ``about`` the obs values of its rows."""
        asked = [(change, lambda line: "do", about)]
        readout = self._readout(genes)
        blocks = self._blocks(asked, adata, as_, n_cells, provenance["seed"], self._mechanisms(), readout)
        return self._assembled(blocks, as_, provenance, genes)

    def _readout(self, genes: Genes) -> ReadoutPredictor | None:
        return ReadoutPredictor.of(self.summary) if genes == "all" else None

    def _drug_blocks(
        self,
        query: Query,
        adata: AnnData | None,
        as_: As,
        n_cells: int | None,
        seed: int,
        targets: Targets,
        evidence: Evidence,
        only: set[tuple] | None = None,
        genes: Genes = "all",
    ) -> Blocks:
        self._check_evidence(query, evidence)
        readout = self._readout(genes)
        domain = applicability(query, self.summary.design).to_dict("records")
        combined, doses = query.combined.any(), query.doses
        each = DrugInterventions(
            self.summary,
            self.module.intervention,
            query,
            targets=targets,
            evidence=evidence,
            only=only,
            generated=lambda query, line: self.interventions(query, line, self.plain),
            mean_changes=self.mean_changes if self.module.mechanism.affine else None,
            readout=readout,
        )
        asked = [
            (
                lambda line, i=i: each.intervention(line, i),
                lambda line, i=i: each.source(line, i),
                {"drug": query.drug[i], "smiles": query.smiles[i], "dose": query.dose[i], **domain[i]}
                | ({"doses": doses[i]} if combined else {}),
            )
            for i in range(len(query.drug))
        ]
        return self._blocks(asked, adata, as_, n_cells, seed, self._drug_mechanisms(), readout)

    def _blocks(
        self,
        asked: Sequence[tuple[Callable[[str], Intervention], Callable[[str], str | None], dict]],
        adata: AnnData | None,
        as_: As,
        n_cells: int | None,
        seed: int,
        mechanisms: list[tuple],
        readout: ReadoutPredictor | None,
    ) -> Blocks:
        """Blocks of every intervention in every line, each with the obs values of its rows."""
        if n_cells is not None:
            check_whole("n_cells", n_cells, least=1)
        if adata is None:
            lines = training_controls(self.summary, readout=readout is not None)
        else:
            childless = ~self.module.mechanism.graph.numpy().any(1)
            lines = user_controls(adata, self.summary, self.setup, childless, readout=readout is not None)
        return CounterfactualSampler(mechanisms, seed, readout).blocks(asked, lines, as_, n_cells)

    def _assembled(self, blocks: Blocks, as_: As, about: dict, genes: Genes) -> AnnData:
        provenance = {
            "kind": as_,
            "scale": self.setup["scale"],
            "dose_unit": self.setup["dose_unit"] or "",
            "version": __version__,
            **about,
        }
        order, names = gene_order(self.summary, self.genes, genes)
        return assemble(blocks, order, names, provenance)

    # ---- changes of means --------------------------------------------------------------------------------------------

    def measured_changes(self) -> np.ndarray:
        """Mean changes of the measured conditions in pooled control SD, comparable between lines; ``(conditions, genes)``."""
        statistics, design = self.summary.statistics, self.summary.design
        return self.summary.relative_scale(design.line) * (statistics.mean[1:] - statistics.mean[0])

    def mean_changes(self, distribution: InterventionDistribution, targets: Targets = "expectation") -> np.ndarray:
        """Mean change of control cells under interventions, ``(rows, genes)``, in control SD of their line."""
        n_genes, linear = len(self.summary.genes), self.module.mechanism.affine
        z = torch.zeros(1, n_genes, dtype=torch.float64) if linear else self.summary.standardized_controls()
        return mean_changes(self._drug_mechanisms(), self.module.intervention, distribution, z, targets=targets)

    def generated_changes(self) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
        """Predicted mean changes of the measured conditions by the generator, and by generators trained without the condition.

        ``(conditions, genes)`` each, in pooled control SD; ``None`` without cross-fitted predictions.
        """
        conditions, _, features = self.summary.conditions()
        if features is None:
            return None, None
        unit = self.summary.relative_scale(self.summary.design.line)
        every = measured_distribution(self.module, self.summary.design, conditions.inputs, self._certain)
        held_out = every._replace(probability=features.probability.numpy(), psi=features.psi.numpy())
        return unit * self.mean_changes(every), unit * self.mean_changes(held_out)

    def total_effects(self, z: torch.Tensor) -> np.ndarray:
        """Total effects of all genes by :func:`~scgim.inference._gene_intervention.total_effects`."""
        return total_effects(self.module.mechanism, self._levels(), z)

    def _drug_mechanisms(self) -> list[tuple]:
        """Mechanisms for predictions of drugs, with the topological generations of their graph."""
        if self.plain is not None:
            nothing = levels(self.plain.mechanism.graph.numpy())
            return [(self.plain.mechanism, [torch.as_tensor(level) for level in nothing])]
        return self._mechanisms() if self.averages_drugs else [(self.module.mechanism, self._levels())]

    def _mechanisms(self) -> list[tuple]:
        """Mechanisms for interventions on genes, with the topological generations of their graph; the trained mechanisms come first."""
        if self.averaging is None:
            return [(self.module.mechanism, self._levels())]
        return self.averaging.mechanisms(self.module)

    def _levels(self) -> list[torch.Tensor]:
        return [torch.as_tensor(level) for level in levels(self.module.mechanism.graph.numpy())]
