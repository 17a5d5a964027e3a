"""Attributes and methods that the parts of the model class share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    import numpy as np
    import pandas as pd
    from anndata import AnnData
    from scvi.data import AnnDataManager

    from scgim.data._design import ScreenDesign
    from scgim.data._drug_table import DrugTable
    from scgim.data._registered_screen import RegisteredScreen
    from scgim.data._training_data import TrainingData
    from scgim.data._training_summary import TrainingSummary
    from scgim.inference._predictor import Predictor
    from scgim.module import GIMModule
    from scgim.structure.bootstrap import EdgeFrequencies
    from scgim.train._edge_constraints import EdgeConstraints
    from scgim.train._generator_selection import GeneratorChoice, GeneratorSelection
    from scgim.train._graph_averaging import Averaging
    from scgim.train._graph_choice import GraphChoice


class ModelState:
    """Names and types of the attributes of :class:`scgim.GIM`, without definitions."""

    # of scvi-tools
    adata: AnnData | None
    registry_: dict[str, Any]
    summary_stats: Any
    get_state_registry: Callable[[str], dict[str, Any]]
    history_: dict[str, pd.DataFrame] | None
    is_trained_: bool

    # settings and drugs
    settings_: dict[str, Any]
    drug_table_: DrugTable

    # results of training; `module` and `summary_` are None before training
    module: GIMModule | None
    summary_: TrainingSummary | None
    plain_: GIMModule | None
    averaging_: Averaging | None
    graph_choice_: GraphChoice | None
    stability_: EdgeFrequencies | None
    calibration_: dict[str, Any]
    search_: dict[str, Any]
    seed_: int
    failure_: str | None
    _process: int
    _selection: GeneratorSelection | None
    _chosen: GeneratorChoice | None
    _reads_readout: bool

    if TYPE_CHECKING:
        _get_setup_method_args: Callable[..., dict[str, Any]]
        register_manager: Callable[..., None]

        @classmethod
        def _register(
            cls, adata: AnnData, setup_method_args: dict[str, Any], source_registry: dict[str, Any] | None = None
        ) -> None: ...

        @classmethod
        def _get_setup_method_args(cls, **arguments: Any) -> dict: ...

        @classmethod
        def register_manager(cls, manager: AnnDataManager) -> None: ...

        def train(self, *args: Any, **kwargs: Any) -> None: ...

        def _build(self, n_genes: int, design: ScreenDesign, generator: str) -> GIMModule: ...

        def _untrained(self, **changes: Any) -> Self: ...

        @property
        def generator_(self) -> str: ...

        @property
        def _choice(self) -> GeneratorChoice: ...

        @property
        def _structure(self) -> str: ...

        def _predictor(self) -> Predictor: ...

        def _screen(self) -> RegisteredScreen: ...

        def _read(self, seed: int, validation: float = 0.0, *, readout: bool = False) -> TrainingData: ...

        def _edge_constraints(self, genes: np.ndarray, price: float = 0.0) -> EdgeConstraints: ...

        def _from_means(self) -> bool: ...

        def _gene_order(self) -> np.ndarray: ...

        def _all_genes(self) -> tuple[np.ndarray, np.ndarray]: ...

        def _require_trained(self) -> TrainingSummary: ...

        def _require_data(self) -> None: ...

        def _trained_module(self) -> GIMModule: ...

        def _provenance(self) -> dict[str, Any]: ...
