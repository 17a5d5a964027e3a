from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal, Self, cast

import numpy as np
from scvi.model.base import BaseModelClass

from scgim._anndata import require_anndata
from scgim._checks import check_effect, check_option
from scgim._keywords import spell_methods
from scgim.data._drug_table import DrugTable
from scgim.data._fingerprint import check_unchanged
from scgim.data._known_targets import check_known_targets, with_genetic_arms
from scgim.data._registered_screen import RegisteredScreen
from scgim.inference._predictor import Predictor
from scgim.module import GENERATORS, INTERVENTIONS, MECHANISMS, GIMModule
from scgim.module.generators import DOSE_RESPONSES
from scgim.train._edge_constraints import EdgeConstraints, check_prior, check_regulators, edge_constraints

from ._annotation_mixin import AnnotationMixin
from ._evaluation_mixin import EvaluationMixin
from ._fields import CONDITION, DRUG_TABLE, FINGERPRINT, READOUT
from ._inference_mixin import InferenceMixin
from ._interactions_mixin import InteractionsMixin
from ._manager import forget_with
from ._persistence_mixin import PersistenceMixin
from ._scvi_verbs_mixin import ScviVerbsMixin
from ._setup_mixin import SetupMixin
from ._training_mixin import TrainingMixin

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData

    from scgim.data._training_summary import TrainingSummary
    from scgim.structure.bootstrap import EdgeFrequencies
    from scgim.train._generator_selection import GeneratorChoice, GeneratorSelection
    from scgim.train._graph_averaging import Averaging
    from scgim.train._graph_choice import GraphChoice

logger = logging.getLogger("scgim")

STRUCTURES = ("auto", "search", "gradient", "none")
LIKELIHOODS = ("auto", "cells", "means")


@spell_methods
class GIM(
    SetupMixin,
    TrainingMixin,
    InferenceMixin,
    InteractionsMixin,
    EvaluationMixin,
    AnnotationMixin,
    PersistenceMixin,
    ScviVerbsMixin,
    BaseModelClass,
):
    r"""Generative intervention model of a drug screen: a causal graph of genes and the drugs' unknown targets.

    It learns a structural equation model of genes from cells under drugs at doses. Drugs intervene on mechanisms of this model. A
    generator maps drug features and dose to the probabilities of targets and the effects on them :cite:p:`Schneider2025`.

    Parameters
    ----------
    adata
        The screen, after :meth:`setup_anndata`.
    mechanism
        ``"linear"``, or ``"network"``: a small network for every gene on its parents.
    intervention
        ``"shift"``: a constant is added to the mechanism of a target; ``"hard"``: a constant replaces the mechanism.
    generator
        Map from drugs to targets and effects: ``"hill"``, sparse linear in the features with a dose response;
        ``"network"``, a network of features and dose; ``"kernel"``, a Gaussian process around the training mean;
        ``"mean"``, the training mean per dose and line for all drugs; ``"identity"``, every measured drug separately;
        ``"auto"``: the best of ``"hill"``, ``"kernel"`` and ``"mean"`` in cross-validation over drugs, doses and lines, or
        ``"identity"`` without features or with fewer than 8 drugs.
    likelihood
        Data of the graph and targets: ``"cells"``, all cells by their sufficient statistics; ``"means"``, changes of condition means with
        their errors, and to a small degree the variation within conditions. ``"auto"`` is ``"means"`` for ``scale="counts"``, because
        measurement noise biases the variation within conditions, and ``"cells"`` otherwise.
    structure
        ``"auto"``: iterated local search of the graph. Predictions use the graph unless it increases the error on held-out conditions or
        there are fewer rows than genes (:attr:`graph_choice_` gives the reason); :meth:`rank_targets` and :meth:`do` always use it.
        ``"search"``: predictions always use the graph of the search. ``"gradient"``: graph, mechanisms and generator are learned jointly by
        gradient steps on the exact likelihood of all cells. ``"none"``: the graph has no edges.
    prior_graph
        Prior knowledge of the graph: a DataFrame with columns ``source``, ``target`` and ``kind``. The graph has all edges of kind
        ``"required"`` and no edge of kind ``"forbidden"``. An edge of kind ``"likely"`` has prior log odds in nats, relative to an edge
        without prior knowledge: the column ``log_odds``, or twice the price of an edge in the score times the column ``weight`` (from 0
        to 1; 1 by default). Data can overrule these odds, and an edge that gains less than a quarter of its price is dropped. A table without the column ``kind``, such as a network of decoupler, contains likely edges. Edges of genes
        outside the screen are not used.
    regulators
        Names of the genes that may have children; all by default. Names outside the screen are not used.
    known_targets
        Prior knowledge of drug targets: a DataFrame with columns ``drug``, ``gene`` and ``kind``. The gene is a target with probability
        1 (``"known"``; ``"only"`` excludes all other genes) or 0 (``"excluded"``) at every dose and in every line of the drug, or has prior log odds in nats (``"likely"``): the column ``log_odds``, or the odds of the
        column ``probability``, by default 0.5. ``sign`` (-1 or 1) is the sign of the effect on the measured gene, if known. Rows of other drugs
        and genes are not used. Known targets are data for the graph and the generator.
    scale_shift
        Whether interventions also scale the noise of their targets.
    dose_response
        Factor of the generator's effects: ``"hill"``, ``"free"`` (a curve of free shape) or ``"none"``; the default depends on the
        generator.
    min_effect
        Smallest effect of a target in control SD. Smaller effects belong to the null hypothesis and have a probability of at most 0.5.
        ``None``: 0.2. With 0, every significant effect is a target.

    Methods
    -------
    setup_anndata : declare the columns of a screen
    train : learn graph, mechanisms and generator
    predict, do : predict cells under drugs, or under interventions on genes
    rank_targets, get_graph : targets of drugs, and the causal graph
    interactions : deviations of measured combinations from additivity
    stability : how often edges recur
    evaluate, evaluate_targets : scores on held-out conditions, and on known targets
    annotate : write results into the AnnData
    save, load : the model on disk

    Raises
    ------
    ValueError
        If an option does not exist, the generator requires missing features, or the constraints contradict each other.

    Examples
    --------
    >>> import scgim
    >>> adata = scgim.datasets.simulate_screen(n_genes=6, n_drugs=10, doses=(1.0,), n_new_drugs=2)
    >>> scgim.setup_anndata(
    ...     adata,
    ...     drug_key="drug",
    ...     control="DMSO",
    ...     scale="continuous",
    ...     dose_key="dose",
    ...     dose_unit="uM",
    ...     features_key="drug_features",
    ... )
    >>> model = scgim.GIM(adata)
    >>> model.train(enable_progress_bar=False)
    >>> model.rank_targets(drug=model.drugs[0]).columns.tolist()[:5]
    ['drug', 'dose', 'cell_line', 'gene', 'rank']
    """

    def __init__(
        self,
        adata: AnnData | None = None,
        registry: dict | None = None,
        *,
        mechanism: Literal["linear", "network"] = "linear",
        intervention: Literal["shift", "hard"] = "shift",
        generator: Literal["auto", "mean", "kernel", "hill", "network", "identity"] = "auto",
        likelihood: Literal["auto", "cells", "means"] = "auto",
        structure: Literal["auto", "search", "gradient", "none"] = "auto",
        prior_graph: pd.DataFrame | None = None,
        regulators: Sequence[str] | None = None,
        known_targets: pd.DataFrame | None = None,
        scale_shift: bool = False,
        dose_response: Literal["hill", "free", "none"] | None = None,
        min_effect: float | None = None,
    ) -> None:
        if adata is not None:
            require_anndata(adata)
        super().__init__(adata, registry)
        forget_with(self, self)
        check_option("mechanism", mechanism, MECHANISMS)
        check_option("intervention", intervention, INTERVENTIONS)
        check_option("generator", generator, ["auto", *GENERATORS])
        check_option("likelihood", likelihood, LIKELIHOODS)
        check_option("structure", structure, STRUCTURES)
        if dose_response is not None:
            check_option("dose_response", dose_response, DOSE_RESPONSES)
        genes, conditions = self._gene_order(), self.get_state_registry(CONDITION)
        known_targets = check_known_targets(known_targets, conditions["drugs"], genes)
        if "genetic_arms" in conditions:  # set-ups of older versions have none
            known_targets = with_genetic_arms(known_targets, conditions["genetic_arms"], genes)
        if len(conditions.get("combinations", ())) and (intervention == "hard" or scale_shift):
            asked = "intervention='hard'" if intervention == "hard" else "scale_shift=True"
            raise ValueError(
                f"{asked} does not learn from measured combinations, whose shifts add. Use intervention='shift' without scale_shift, or "
                "leave the cells of combinations out."
            )
        regulators = check_regulators(regulators, genes)
        self.settings_ = {
            "mechanism": mechanism,
            "intervention": intervention,
            "generator": generator,
            "likelihood": likelihood,
            "structure": structure,
            "prior_graph": check_prior(prior_graph, regulators, genes),
            "regulators": regulators,
            "known_targets": known_targets,
            "scale_shift": bool(scale_shift),
            "dose_response": dose_response,
            "min_effect": check_effect(min_effect),
        }
        self.drug_table_ = DrugTable.from_registry(self.get_state_registry(DRUG_TABLE))
        if generator != "auto" and GENERATORS[generator].needs_features and self.drug_table_.source == "identity":
            raise ValueError(
                f"generator={generator!r} needs drug features, and setup_anndata was given none. Pass features_key or "
                "smiles_key there, or use generator='identity'."
            )
        if scale_shift and mechanism == "linear" and self._from_means():
            raise ValueError(
                "scale_shift=True needs every cell: means do not show how noise is scaled. Use likelihood='cells', or "
                "mechanism='network'."
            )
        if scale_shift and self.registry_["setup_args"].get("replicate_key") is not None:
            raise ValueError(
                "scale_shift=True takes every cell as evidence, and replicate_key was given because cells of a replicate are not. "
                "Leave out one of them."
            )
        if structure == "gradient" and self._from_means():
            raise ValueError(
                "structure='gradient' descends the likelihood of all cells, and this model learns its graph from means "
                f"(likelihood={likelihood!r}, scale={self.registry_['setup_args']['scale']!r}). Use structure='search', or "
                "likelihood='cells'."
            )
        if len(self.registry_["setup_args"].get("covariate_keys") or ()) and self._from_means():
            if self.registry_["setup_args"]["scale"] == "counts":
                raise ValueError(
                    "covariate_keys are regressed out of log-normalized values, and the graph is learned from means of counts, whose "
                    "covariates cannot be removed exactly. Use likelihood='cells', or log-normalized values with scale='lognorm'."
                )
        self.module: GIMModule | None = None
        self._selection: GeneratorSelection | None = None  # only during training
        self._chosen: GeneratorChoice | None = None
        self.stability_: EdgeFrequencies | None = None
        self.averaging_: Averaging | None = None
        self.graph_choice_: GraphChoice | None = None
        self.plain_: GIMModule | None = None  # predicts without a graph, if the graph does harm
        self.summary_: TrainingSummary | None = None
        self._process = 0  # rank of this process in the training
        self.failure_: str | None = None  # why the last training gave no model, if there is none
        self.init_params_ = self._get_init_params(locals())

    # ---- shared by the mixins ----------------------------------------------------------------------------------------

    def _screen(self) -> RegisteredScreen:
        """The training AnnData with the settings of its set-up, unless the data changed since."""
        self._require_data()
        screen = RegisteredScreen(self.adata, self.registry_["setup_args"])
        if FINGERPRINT in self.registry_["field_registries"]:  # models of older versions have none
            check_unchanged(screen, self.get_state_registry(FINGERPRINT))
        if self.summary_ is None:
            return screen
        return RegisteredScreen(self.adata, self.registry_["setup_args"], self.summary_.design.known_doses)

    def _predictor(self) -> Predictor:
        """The predictor of the trained model."""
        return Predictor(
            self._trained_module(),
            self._require_trained(),
            self.drug_table_,
            self.registry_["setup_args"],
            self._all_genes()[0],
            averaging=self.averaging_,
            averages_drugs=self._from_means(),
            plain=self.plain_,
            known_targets=self.settings_["known_targets"],
        )

    def _untrained(self, **changes: Any) -> Self:
        """An untrained model on the same data, with other settings."""
        model = type(self)(self.adata, **(self.settings_ | changes | {"known_targets": None}))
        model.settings_["known_targets"] = self.settings_["known_targets"]  # validated, maybe on other drugs
        return model

    def _gene_order(self) -> np.ndarray:
        """Genes of the panel in the order of the training AnnData."""
        names, is_readout = self._all_genes()
        return names[~is_readout]

    def _all_genes(self) -> tuple[np.ndarray, np.ndarray]:
        """Panel and readout genes in the order of the training AnnData, and a mask of the readout genes."""
        names = np.asarray(self.get_state_registry("X")["column_names"]).astype(str)
        if READOUT not in self.registry_["field_registries"]:
            return names, np.zeros(len(names), dtype=bool)
        state = self.get_state_registry(READOUT)
        return np.asarray(state["names"]).astype(str), np.asarray(state["is_readout"], dtype=bool)

    def _trained_module(self) -> GIMModule:
        self._require_trained()
        return cast("GIMModule", self.module)

    def _require_trained(self) -> TrainingSummary:
        if self.summary_ is None:
            why = " yet" if self.failure_ is None else f", because {self.failure_.rstrip('.')}"
            raise RuntimeError(f"The model is not trained{why}. Run model.train() first.")
        return self.summary_

    def _require_data(self) -> None:
        if self.adata is None:
            raise ValueError("This model was loaded without data. Load it with GIM.load(path, adata=...).")

    @property
    def fitted(self) -> TrainingSummary | None:
        """Former name of ``summary_``, the summary of the training data."""
        return self.summary_

    @property
    def _choice(self) -> GeneratorChoice:
        """The generator in use, and the reason of its choice."""
        choice = self._chosen if self._selection is None else self._selection.choice
        if choice is None:
            raise AttributeError("No generator is chosen before training: model.train().")
        return choice

    def _edge_constraints(self, genes: np.ndarray, price: float = 0.0) -> EdgeConstraints:
        """Constraints of the graph for sorted genes; ``price`` is the price of an edge in the score, in nats."""
        return edge_constraints(self.settings_["prior_graph"], self.settings_["regulators"], genes, price)

    @property
    def _structure(self) -> str:
        """Method of structure learning."""
        asked = self.settings_["structure"]
        return "search" if asked == "auto" else asked

    def _from_means(self) -> bool:
        """Whether the graph is learned from the conditions' means."""
        asked = self.settings_["likelihood"]
        return asked == "means" or (asked == "auto" and self.registry_["setup_args"]["scale"] == "counts")
