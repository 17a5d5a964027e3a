from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.data.fields import LayerField
from scvi.model.base import BaseModelClass

from scgim._checks import check_effect, check_option
from scgim.data._columns import ScreenColumns
from scgim.data._drug_table import DrugTable
from scgim.data._matrix import Scale, check_matrix
from scgim.data._registered_screen import RegisteredScreen
from scgim.inference._predictor import Predictor
from scgim.module import GENERATORS, INTERVENTIONS, MECHANISMS, GIMModule
from scgim.module.generators import DOSE_RESPONSES
from scgim.train._edge_constraints import EdgeConstraints, check_prior, edge_constraints

from ._annotation_mixin import AnnotationMixin
from ._evaluation_mixin import EvaluationMixin
from ._fields import DRUG_TABLE, ConditionField, DrugFeaturesField
from ._inference_mixin import InferenceMixin
from ._persistence_mixin import PersistenceMixin
from ._scvi_verbs_mixin import ScviVerbsMixin
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


class GIM(
    TrainingMixin, InferenceMixin, EvaluationMixin, AnnotationMixin, PersistenceMixin, ScviVerbsMixin, BaseModelClass
):
    r"""Generative intervention model of a drug screen: a causal graph of genes and the drugs' unknown targets.

    Learns, from cells under drugs at doses, a structural equation model over genes whose mechanisms the drugs touch, and a
    generator from drug features and dose to which mechanisms are touched and how :cite:p:`Schneider2025`.

    Parameters
    ----------
    adata
        Set up by :meth:`setup_anndata`.
    mechanism
        ``"linear"``, or ``"network"``: a small network for every gene on its parents.
    intervention
        ``"shift"``: a touched gene's mechanism gains a constant; ``"hard"``: it is replaced by one.
    generator
        What says which mechanisms a drug touches: ``"hill"``, sparse linear in its features with a dose response;
        ``"network"``, a network of features and dose; ``"kernel"``, a Gaussian process around the training mean;
        ``"mean"``, the training mean per dose and line, whatever the drug; ``"identity"``, every measured drug on its own;
        ``"auto"``: ``"hill"``, ``"kernel"`` or ``"mean"``, whichever cross-validation over drugs, doses and lines prefers, or
        ``"identity"`` without features or with fewer than 8 drugs.
    likelihood
        What the graph and targets are learned from: ``"cells"``, all cells by their sufficient statistics; ``"means"``, how
        the conditions' means move, with the errors of both sides, and a little of how genes vary within conditions. ``"auto"``
        takes means for ``scale="counts"``, whose measurement noise misleads within conditions, and cells otherwise.
    structure
        ``"auto"``: iterated local search of the graph, which predictions use unless it harms them on held-out conditions or rows are
        fewer than genes (:attr:`graph_choice_` says why; :meth:`rank_targets` and :meth:`do` use it in any case); ``"search"``: the
        same, and predictions always use it; ``"gradient"``: graph, mechanisms and generator learned jointly, by
        gradient on the exact likelihood of all cells; ``"none"``: the empty graph, every gene on its own.
    prior_graph
        What is known of the graph: a DataFrame with columns ``source``, ``target`` and ``kind``, ``"required"`` or
        ``"forbidden"``. The graph obeys it by construction.
    regulators
        Names of the genes that may have children; all by default.
    scale_shift
        Whether a touched mechanism's noise is scaled as well.
    dose_response
        What the generator's effects are multiplied by: ``"hill"``, ``"free"`` (one curve of any shape) or ``"none"``; by
        default what suits the generator.
    min_effect
        Least effect that makes a gene a target, in control SD. Smaller effects belong to the null hypothesis, and no gene is called
        on an effect below it. ``None``: .2; 0 calls every effect that is more than chance.

    Raises
    ------
    ValueError
        If an option does not exist, the generator needs features and there are none, or the priors contradict each other.

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
        scale_shift: bool = False,
        dose_response: Literal["hill", "free", "none"] | None = None,
        min_effect: float | None = None,
    ) -> None:
        super().__init__(adata, registry)
        check_option("mechanism", mechanism, MECHANISMS)
        check_option("intervention", intervention, INTERVENTIONS)
        check_option("generator", generator, ["auto", *GENERATORS])
        check_option("likelihood", likelihood, LIKELIHOODS)
        check_option("structure", structure, STRUCTURES)
        if dose_response is not None:
            check_option("dose_response", dose_response, DOSE_RESPONSES)
        prior_graph, regulators = check_prior(prior_graph, regulators, self._gene_order())
        self.settings_ = {
            "mechanism": mechanism,
            "intervention": intervention,
            "generator": generator,
            "likelihood": likelihood,
            "structure": structure,
            "prior_graph": prior_graph,
            "regulators": regulators,
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
        if structure == "gradient" and self._from_means():
            raise ValueError(
                "structure='gradient' descends the likelihood of all cells, and this model learns its graph from means "
                f"(likelihood={likelihood!r}, scale={self.registry_['setup_args']['scale']!r}). Use structure='search', or "
                "likelihood='cells'."
            )
        self.module: GIMModule | None = None
        self._selection: GeneratorSelection | None = None  # while training goes on
        self._chosen: GeneratorChoice | None = None
        self.stability_: EdgeFrequencies | None = None
        self.averaging_: Averaging | None = None
        self.graph_choice_: GraphChoice | None = None
        self.plain_: GIMModule | None = None  # predicts without a graph, where that is better
        self.summary_: TrainingSummary | None = None
        self.init_params_ = self._get_init_params(locals())

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        drug_key: str,
        control: str,
        scale: Scale,
        *,
        layer: str | None = None,
        dose_key: str | None = None,
        dose_unit: str | None = None,
        smiles_key: str | None = None,
        features_key: str | None = None,
        cell_line_key: str | None = None,
        batch_key: str | None = None,
        size_factor_key: str | None = None,
        split_key: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Declare what the columns of a screen mean, and check all of it before any training.

        Nothing of the AnnData is changed except for scvi-tools' two identifiers in ``.uns``.

        Parameters
        ----------
        adata
            In memory or backed, dense or sparse; no view.
        drug_key
            Column of ``.obs`` with the drug, the controls among them.
        control
            Its value for control cells.
        scale
            ``"counts"``: whole counts, trained as log1p(1e4 x / size); ``"lognorm"``: log-normalised; ``"continuous"``:
            anything else real. Every value is checked against it; it is never guessed.
        layer
            Where the matrix is; ``.X`` by default.
        dose_key, dose_unit
            Column of doses (positive numbers; ignored for controls) and their unit. They come together.
        smiles_key
            Column with one SMILES per drug; Morgan fingerprints are made of it unless ``features_key`` is given.
        features_key
            Key of ``.uns`` with a DataFrame of drug features, index = drug names.
        cell_line_key, batch_key
            Columns whose levels have controls of their own; effects are measured against those.
        size_factor_key
            Column of cell sizes for ``scale="counts"``; row sums by default.
        split_key
            Column of ``"train"`` / ``"test"``; nothing is learned from test rows.

        Raises
        ------
        KeyError
            If a key does not exist, naming the nearest one.
        ValueError
            If values are not what was declared: the message names them and the fix.

        Examples
        --------
        >>> import scgim
        >>> adata = scgim.datasets.sachs()
        >>> scgim.setup_anndata(adata, drug_key="drug", control="cd3cd28", scale="continuous", smiles_key="smiles")
        """
        setup_method_args = cls._get_setup_method_args(**locals())  # before anything else: it records every local
        check_matrix(adata, layer=layer, scale=scale, size_factor_key=size_factor_key)
        columns = ScreenColumns(drug_key, control, dose_key, dose_unit, cell_line_key, batch_key, split_key)
        fields = [
            LayerField(REGISTRY_KEYS.X_KEY, layer, is_count_data=False, correct_data_format=False),
            ConditionField(columns),
            DrugFeaturesField(columns, features_key=features_key, smiles_key=smiles_key),
        ]
        # a copy carries the identifier of what it was copied from, and would take its place in scvi-tools' store
        own = adata.uns.pop("_scvi_uuid", None)
        manager = AnnDataManager(fields=fields, setup_method_args=setup_method_args)
        try:
            manager.register_fields(adata, **kwargs)
        except Exception:
            if own is not None:  # an earlier set-up stays what it was
                adata.uns["_scvi_uuid"] = own
            raise
        cls.register_manager(manager)

    # ---- what the mixins share ---------------------------------------------------------------------------------------

    def _screen(self) -> RegisteredScreen:
        """The training AnnData as set-up described it."""
        self._require_data()
        return RegisteredScreen(self.adata, self.registry_["setup_args"])

    def _predictor(self) -> Predictor:
        """The trained model, which can be asked."""
        return Predictor(
            self._trained_module(),
            self._require_trained(),
            self.drug_table_,
            self.registry_["setup_args"],
            self._gene_order(),
            averaging=self.averaging_,
            averages_drugs=self._from_means(),
            plain=self.plain_,
        )

    def _untrained(self, **changes: Any) -> Self:
        """An untrained model on the same data, with other settings."""
        return type(self)(self.adata, **(self.settings_ | changes))

    def _gene_order(self) -> np.ndarray:
        """Genes in the order of the training AnnData."""
        return np.asarray(self.get_state_registry("X")["column_names"]).astype(str)

    def _trained_module(self) -> GIMModule:
        if self.module is None:
            raise RuntimeError("The model is not trained yet. Run model.train() first.")
        return self.module

    def _require_trained(self) -> TrainingSummary:
        if self.summary_ is None:
            raise RuntimeError("The model is not trained yet. Run model.train() first.")
        return self.summary_

    def _require_data(self) -> None:
        if self.adata is None:
            raise ValueError("This model was loaded without data. Load it with GIM.load(path, adata=...).")

    @property
    def _choice(self) -> GeneratorChoice:
        """The generator in use and why it was taken."""
        choice = self._chosen if self._selection is None else self._selection.choice
        if choice is None:
            raise AttributeError("No generator is chosen before training: model.train().")
        return choice

    def _edge_constraints(self, genes: np.ndarray) -> EdgeConstraints:
        """What is known of the graph, for sorted genes."""
        return edge_constraints(self.settings_["prior_graph"], self.settings_["regulators"], genes)

    @property
    def _structure(self) -> str:
        """How the graph is learned."""
        asked = self.settings_["structure"]
        return "search" if asked == "auto" else asked

    def _from_means(self) -> bool:
        """Whether the graph is learned from the conditions' means."""
        asked = self.settings_["likelihood"]
        return asked == "means" or (asked == "auto" and self.registry_["setup_args"]["scale"] == "counts")
