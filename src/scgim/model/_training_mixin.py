"""Training of a model."""

from __future__ import annotations

import copy
import logging
from dataclasses import replace
from inspect import signature
from typing import TYPE_CHECKING, Any

import numpy as np

from scgim._checks import check_whole, warn
from scgim._keywords import check_keywords
from scgim.data._requirements import DataRequirements
from scgim.data._training_data import read_training_data
from scgim.data._validation_data import validation_cells
from scgim.module import GENERATORS, INTERVENTIONS, MECHANISMS, GIMModule, NoiseScale, Readout, Responses
from scgim.module.likelihood import MIN_EFFECT
from scgim.structure import edge_price
from scgim.train._calibration import change_error, replicate_variance
from scgim.train._generator_selection import GeneratorSelection
from scgim.train._graph_averaging import TOO_LARGE, average
from scgim.train._graph_choice import choose_graph
from scgim.train._options import TrainingOptions
from scgim.train._plan import TrainingPlan

from ._progress_bar import few_threads
from ._state import ModelState
from ._trainer_arguments import TRAINER_ARGUMENTS
from ._training_run import run, warn_of_copies

if TYPE_CHECKING:
    from typing import Self

    import pandas as pd

    from scgim.data._design import ScreenDesign
    from scgim.data._training_data import TrainingData
    from scgim.module.generators import Generator

logger = logging.getLogger("scgim")


def on_cpu(accelerator: str) -> str:
    """``"cpu"``, with a warning if another accelerator was asked for."""
    if accelerator not in ("cpu", "auto"):
        warn(
            f"accelerator={accelerator!r}: structure, mechanisms and generator are all trained on the CPU, because their arrays are "
            "sufficient statistics, small beside the cells. Leave accelerator out."
        )
    return "cpu"


class TrainingMixin(ModelState):
    """Training of graph, mechanisms and generator, and the results that are computed once after training."""

    _reads_readout = True  # a model whose readout is not used does not read it

    @property
    def generator_(self) -> str:
        """Name of the generator in use, which ``generator="auto"`` chose.

        Raises
        ------
        AttributeError
            Before training.

        Examples
        --------
        >>> import scgim
        >>> adata = scgim.datasets.sachs()
        >>> scgim.setup_anndata(adata, drug_key="drug", control="cd3cd28", scale="continuous")
        >>> model = scgim.GIM(adata)
        >>> model.train(max_epochs=20, enable_progress_bar=False)  # for the example; the default gets further
        >>> model.generator_
        'identity'
        """
        return self._choice.name

    @property
    def generator_scores_(self) -> pd.DataFrame | None:
        """Cross-validated losses of the generators that ``generator="auto"`` compared.

        Returns
        -------
        One row per generator; columns ``loss`` (squared error of held-out conditions in noise variances), ``se`` of its difference to the
        best, the parts of the loss by kind of folds, and ``chosen``. ``None`` if no generators were compared.

        Examples
        --------
        >>> import scgim
        >>> adata = scgim.datasets.sachs()
        >>> scgim.setup_anndata(adata, drug_key="drug", control="cd3cd28", scale="continuous")
        >>> model = scgim.GIM(adata)
        >>> model.train(max_epochs=20, enable_progress_bar=False)  # for the example; the default gets further
        >>> model.generator_scores_ is None  # drugs without features
        True
        """
        return self._choice.scores

    def train(
        self,
        max_epochs: int | None = None,
        accelerator: str = "cpu",
        devices: int | str = 1,
        train_size: float = 1.0,
        early_stopping: bool = False,
        early_stopping_patience: int = 100,
        plan_kwargs: dict | None = None,
        seed: int = 0,
        **trainer_kwargs: Any,
    ) -> None:
        """Train graph, mechanisms and generator. A second call starts from the untrained state.

        There is one pass over the cells, and up to two further passes for counts, networks and lines of different noise. The remaining
        time does not depend on the number of cells.

        Parameters
        ----------
        max_epochs
            Upper bound on the number of epochs. If it is smaller than the default number, every phase is shortened in proportion.
        accelerator, devices
            Arguments of Lightning's trainer. Every phase runs on the CPU, because its arrays are small sufficient statistics. Another
            accelerator causes a warning.
        train_size
            Share of training conditions; the other conditions are validation conditions, for ``nll_validation``.
        early_stopping
            End the last phase when ``nll_validation`` has not improved for ``early_stopping_patience`` steps, and restore
            the best weights. Requires ``train_size < 1``.
        early_stopping_patience
            Number of steps of the last phase.
        plan_kwargs
            Options of the schedule: ``target_penalty``, ``search_rounds``, ``search_patience``, ``search_target_penalty``,
            ``search_penalty``, ``mechanism_steps``, ``mechanism_lr``, ``cells_per_step``,
            ``generator_steps``, ``generator_lr``, ``generator_target_penalty``, ``steps_per_epoch``;
            with ``structure="gradient"`` also ``orientation`` (``"smooth"`` or ``"gumbel"``), ``gradient_steps``, ``gradient_lr``,
            ``gradient_graphs``. ``scgim.train.TrainingOptions`` describes the options.
        seed
            Seed of the search, the validation conditions and the stored control cells. The global random state is unchanged.
        trainer_kwargs
            Arguments of the Lightning trainer: ``callbacks``, ``logger``, ``enable_progress_bar``, ... ``ckpt_path`` is a file of
            :class:`scgim.train.Checkpoint`, with which the training continues as if it had not ended.

        Raises
        ------
        KeyboardInterrupt
            If training is interrupted.
        RuntimeError
            If the trainer ends before the last phase, for instance by ``max_time``, or if the loss is not finite.
        ValueError
            If the model has no data, an argument has no valid value, the scatters of all conditions would take more than 2 GB, or ``ckpt_path`` is damaged or of another training.
        MemoryError
            If training does not fit in memory (:func:`scgim.pp.check` estimates it), before the cells are read.

        Notes
        -----
        After an exception the model is as before the call: trained, or untrained with the reason in every error.
        """
        self._require_data()
        check_keywords("train", trainer_kwargs, [*signature(TrainingMixin.train).parameters, *TRAINER_ARGUMENTS])
        check_whole("seed", seed)
        accelerator = on_cpu(accelerator)
        if not 0 < train_size <= 1:
            raise ValueError(f"train_size is a share of conditions in (0, 1], got {train_size}.")
        if early_stopping and train_size == 1:
            raise ValueError("early_stopping needs validation conditions: pass train_size < 1, e.g. 0.9.")
        how = {
            "max_epochs": max_epochs,
            "accelerator": accelerator,
            "devices": devices,
            "train_size": train_size,
            "early_stopping": early_stopping,
            "early_stopping_patience": early_stopping_patience,
            "plan_kwargs": plan_kwargs,
        }
        options = TrainingOptions.within(max_epochs, plan_kwargs or {})
        trainer = {"accelerator": accelerator, "devices": devices, **trainer_kwargs}
        # A copy is trained. If this fails, the present model is still whole.
        trial = copy.copy(self)
        trial.module = None
        try:
            trial._train(options, seed, early_stopping_patience if early_stopping else None, how, trainer)
        except BaseException as error:
            self._keep(trial, error)
            raise
        vars(self).update(vars(trial))

    def _train(self, options: TrainingOptions, seed: int, patience: int | None, how: dict, trainer: dict) -> None:
        """Read the data, run the trainer, and compute the results. ``how`` are the arguments of `train` but the last two."""
        data = self._read(seed, validation=1 - how["train_size"], readout=self._reads_readout)
        plan = self._plan(data, options, seed, patience)
        # These attributes are set before training, so that scvi-tools' SaveCheckpoint can save the model during training.
        self.history_, self.is_trained_, self.module = None, False, plan.module
        self._selection, self.calibration_, self.failure_ = plan.selection, {}, None
        self.graph_choice_, self.plain_ = None, None
        self.stability_, self.averaging_, self.search_ = None, None, plan.regression.search_options
        self.summary_, self.seed_ = data.summary, seed
        try:
            run(self, plan, data, trainer)
            self._finish(plan, data, how)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"Training was interrupted in {plan.place()}.") from None
        self._chosen, self._selection = plan.selection.choice, None
        plan.release()

    def _keep(self, trial: Self, error: BaseException) -> None:
        """Note why training failed. A model that was trained before stays; otherwise the weights reached so far, which are untrained."""
        if self.summary_ is not None:
            error.add_note("The model that was trained before is unchanged.")
            return
        self.module = trial.module
        self.failure_ = f"train() ended with {type(error).__name__}: {error}"

    def _plan(self, data: TrainingData, options: TrainingOptions, seed: int, patience: int | None) -> TrainingPlan:
        """The training plan for the model's settings."""
        design, n_genes = data.summary.design, len(data.summary.genes)
        selection = GeneratorSelection(
            lambda name, n_genes: self._build_generator(n_genes, design, name),
            design,
            source=self.drug_table_.source,
            asked=self.settings_["generator"],
            seed=seed,
        )
        module = self._build(n_genes, design, selection.choice.name)
        price = edge_price(data.search, columns=module.mechanism.columns, penalty=options.search_penalty)
        return TrainingPlan(
            module,
            data,
            options,
            structure=self._structure,
            constraints=self._edge_constraints(data.summary.genes, price),
            selection=selection,
            seed=seed,
            early_stopping_patience=patience,
        )

    def _finish(self, plan: TrainingPlan, data: TrainingData, how: dict) -> None:
        """Compute results once after training: measured conditions, ensemble of graphs, responses, and choice of the graph."""
        module = self.module = plan.module.to("cpu").requires_grad_(False)
        summary = self.summary_ = self._require_trained().measure(*plan.measured())
        warn_of_copies(module.mechanism, summary.genes)
        design, n_genes = summary.design, len(summary.genes)
        # With fewer rows than genes, structure="auto" predicts without the graph, so no ensemble is necessary.
        undetermined = self.settings_["structure"] == "auto" and summary.statistics.n_cells < n_genes
        affordable = n_genes * len(design.drug) < TOO_LARGE
        if self._structure == "search" and affordable and not undetermined:
            block = design.resampling_blocks()
            with few_threads(n_genes):
                self.averaging_ = average(module.mechanism, plan.regression, plan.constraints, block, seed=self.seed_)
        predictor, error = self._predictor(), change_error(data)
        predicted, held_out = predictor.generated_changes()
        # Predictions from features are a prior of measured drugs, if the generator uses features.
        prior = (predicted, held_out) if module.generator.needs_features else (None, None)
        measured, unit = predictor.measured_changes(), summary.relative_scale(design.line)
        summary = replace(summary, change_variance=unit**2 * error)
        responses = Responses.fit(summary.rows(), measured, summary.change_variance, *prior)
        self.summary_ = replace(summary, responses=responses.state())
        if data.readout is not None:
            fitted = Readout.fit(data.readout, summary.rows()).state()
            self.summary_ = replace(self.summary_, readout=summary.readout | {"model": fitted})
        self.calibration_ = plan.condition_moments.about_penalty() | {
            "min_effect": float(module.min_effect),
            "misfit_max": float(module.misfit.max()),
            "misfit_genes": int((module.misfit > 0).sum()),
        }
        if (between := replicate_variance(data)) is not None:
            self.calibration_["replicate_sd_median"] = float(np.median(between.variance**0.5))
        if self.settings_["structure"] != "auto":
            return
        # On simulated counts, held-out conditions called a graph harmful that improved predictions of the true change. The cause is
        # not known, so graphs learned from means are not judged.
        judged = predicted is not None and not self._from_means()
        without = plan.cross_fit_without_graph(error) if judged else None
        without = None if without is None else unit * (without.probability * without.psi).numpy()
        self._choose_graph(measured, held_out if judged else None, without, how)

    def _choose_graph(
        self, change: np.ndarray, with_graph: np.ndarray | None, without: np.ndarray | None, how: dict
    ) -> None:
        """Choose between predictions with and without the graph, and train a model without a graph if the graph does harm.

        ``how`` are the arguments of `train`, so that both models have the same training and validation conditions.
        """
        module, summary = self._trained_module(), self._require_trained()
        known = module.generator.knows(summary.design.inputs()).numpy()  # the other drugs have no prediction to judge
        with_graph, without = (None if each is None else each[known] for each in (with_graph, without))
        rows = int(summary.statistics.n_cells)
        choice = choose_graph(change[known], with_graph, without, summary.design.drug[known], rows=rows)
        self.graph_choice_ = choice
        if choice.use or not module.mechanism.graph.any():
            return
        logger.info("Graph: %s.", choice.reason)
        changes = {"structure": "none", "prior_graph": None, "regulators": None, "generator": self.generator_}
        plain = copy.copy(self)  # a copy keeps the set-up, even if the AnnData was set up again
        plain.settings_, plain._reads_readout, plain.summary_ = self.settings_ | changes, False, None
        plain.train(**how, seed=self.seed_, enable_progress_bar=False)
        self.plain_ = plain.module
        self.summary_ = replace(summary, responses=plain._require_trained().responses)

    def _read(self, seed: int, validation: float = 0.0, *, readout: bool = False) -> TrainingData:
        """Training data, with a share ``validation`` of the conditions as validation conditions; ``readout``: with readout genes."""
        screen = self._screen()
        needs = replace(self._needs(), readout=readout and len(screen.readout) > 0)
        held = validation_cells(screen.conditions, validation, seed) if validation else None
        return read_training_data(
            screen,
            self.drug_table_.frame,
            seed=seed,
            needs=needs,
            held=held,
            known_targets=self.settings_["known_targets"],
        )

    def _needs(self) -> DataRequirements:
        """Data requirements of the settings."""
        affine = MECHANISMS[self.settings_["mechanism"]].affine
        hard = INTERVENTIONS[self.settings_["intervention"]].needs_own
        if self._from_means():
            return DataRequirements(own=hard and not affine, cells=not affine, means=True)
        scaled = self.settings_["scale_shift"] and (affine or self.settings_["structure"] == "gradient")
        return DataRequirements(own=hard or scaled, cells=not affine)

    def _build(self, n_genes: int, design: ScreenDesign, generator: str) -> GIMModule:
        """A module with the model's settings and the sizes of a design."""
        return GIMModule(
            n_genes,
            self._build_generator(n_genes, design, generator),
            mechanism=self.settings_["mechanism"],
            intervention=self.settings_["intervention"],
            scale_map=NoiseScale(self.drug_table_.frame.shape[1], n_genes) if self.settings_["scale_shift"] else None,
            min_effect=MIN_EFFECT if self.settings_["min_effect"] is None else self.settings_["min_effect"],
        )

    def _build_generator(self, n_genes: int, design: ScreenDesign, name: str) -> Generator:
        """A generator with the sizes of a design."""
        response = self.settings_["dose_response"]
        return GENERATORS[name](
            self.drug_table_.frame.shape[1],
            n_genes,
            n_drugs=len(design.drugs),
            n_lines=len(design.lines),
            dosed=design.dosed,
            baseline=INTERVENTIONS[self.settings_["intervention"]].baseline,
            log_doses=design.log_doses,
            **({} if response is None else {"dose_response": response}),
        )
