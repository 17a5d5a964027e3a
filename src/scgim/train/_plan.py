"""The training plan: all phases in one ``Trainer.fit``."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch

from ._condition_moments import ConditionMoments
from ._diagnosis import suspects
from ._folds import ObservedEffects
from ._generator_phase import GeneratorPhase
from ._generator_selection import GeneratorChoice
from ._gradient_step import LossNotFiniteError
from ._graph_regression import GraphRegression
from ._mechanism_phase import MechanismPhase
from ._minibatches import Processes
from ._structure_phase import StructurePhase

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from scgim.data._training_data import TrainingData
    from scgim.module import FeatureEvidence, GIMModule, MeasuredConditions, Moments, TreatmentInputs

    from ._edge_constraints import EdgeConstraints
    from ._generator_selection import GeneratorSelection
    from ._options import TrainingOptions


DONE = "done"  # the phase after the last one
SCHEDULE = "scgim_schedule"  # key of the schedule in a checkpoint


class TrainingPlan(pl.LightningModule):
    """The phases of training: structure (search or descent), mechanisms (jointly with a generator), generator.

    Parameters
    ----------
    module
        The module to train, with the generator of the joint phase.
    data
        Training conditions, controls, statistics of the search, and sampled cells.
    options
        Options of all phases.
    structure
        ``"search"``, ``"gradient"``, or ``"none"`` (only required edges).
    constraints
        Allowed, required and likely edges.
    selection
        Selection of the generator of the last phase.
    seed
        Seed of the search or descent and of minibatches.
    early_stopping_patience
        ``patience`` of :class:`GeneratorPhase`.
    """

    def __init__(
        self,
        module: GIMModule,
        data: TrainingData,
        options: TrainingOptions,
        *,
        structure: str,
        constraints: EdgeConstraints,
        selection: GeneratorSelection,
        seed: int = 0,
        early_stopping_patience: int | None = None,
    ) -> None:
        super().__init__()
        self.module, self.data, self.options = module, data, options
        self.constraints, self.selection = constraints, selection
        self.regression = GraphRegression.of(module, data, options)
        self.condition_moments = ConditionMoments(module, data, regression=self.regression, options=options)
        self.structure, self.seed, self.patience = structure, seed, early_stopping_patience
        self.phase, self.step_in_phase = StructurePhase.name, 0
        self.memory: dict[str, Any] = {}  # of the present phase: what its next step needs beside the weights
        self.history: dict[str, dict[int, float]] = {}  # name -> epoch -> value, of all phases
        self._schedule: Iterator[dict[str, float]] | None = None
        self.automatic_optimization = False

    def phases(self) -> list:
        """The phases in order."""
        shared, options = (self.module, self.data), self.options
        processes = Processes(self.trainer.global_rank, self.trainer.world_size)
        return [
            StructurePhase(
                *shared,
                structure=self.structure,
                constraints=self.constraints,
                regression=self.regression,
                options=options,
                seed=self.seed,
            ),
            MechanismPhase(*shared, constraints=self.constraints, options=options, seed=self.seed, processes=processes),
            GeneratorPhase(
                *shared,
                condition_moments=self.condition_moments,
                selection=self.selection,
                options=options,
                patience=self.patience,
            ),
        ]

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam for all parameters (first two phases), and a second Adam for the generator (last phase)."""
        betas, drugs = (0.9, 0.99), self.module.drug_parameters()
        groups = [
            {"params": list(self.module.mechanism.parameters()), "lr": self.options.mechanism_lr},
            {"params": drugs, "lr": self.options.generator_lr},
        ]
        return [
            torch.optim.Adam(groups, betas=betas),
            torch.optim.Adam([{"params": drugs, "lr": self.options.generator_lr}], betas=betas),
        ]

    def on_train_start(self) -> None:
        """Start the phases, at the position of a checkpoint if training is resumed."""
        self._schedule = None

    def training_step(self, batch: tuple, batch_idx: int) -> torch.Tensor:
        """Run the steps of an epoch and log their last metrics."""
        if self._schedule is None:
            self._schedule = self._run(batch)
        metrics: dict[str, float] = {}
        for _ in range(1 if self.phase == StructurePhase.name else self.options.steps_per_epoch):
            report = self._next()
            if report is None:
                self.trainer.should_stop = True
                break
            metrics |= report
        several = self.trainer.world_size > 1
        self.log_dict(metrics, on_step=False, on_epoch=True, batch_size=1, sync_dist=several)
        for name, value in metrics.items():  # as Lightning logs them, which keeps the history in the first process only
            rounded = torch.tensor(value, dtype=torch.float32)
            rounded = self.trainer.strategy.reduce(rounded, reduce_op="mean") if several else rounded
            self.history.setdefault(name, {})[self.current_epoch] = rounded.item()
        return torch.zeros(())

    def _next(self) -> dict[str, float] | None:
        """The metrics of the next step, or None at the end.

        Raises
        ------
        LossNotFiniteError
            If one of the metrics is not finite. The message names epoch, step, phase and suspects.
        """
        try:
            report = next(self._schedule, None)
            for value in (report or {}).values():
                if not math.isfinite(value):
                    raise LossNotFiniteError(value)
        except LossNotFiniteError as error:
            raise LossNotFiniteError(
                error.value,
                f"The loss became {error.value} in {self.place()}. Suspects: {suspects(self.data, self.options)}. The weights before "
                "this step are back. Leave the options out, take smaller steps, such as plan_kwargs={'mechanism_lr': 1e-3, "
                "'generator_lr': 1e-2}, or leave out extreme cells and genes.",
            ) from None
        return report

    def place(self) -> str:
        """The present place in the schedule, in words."""
        if self.phase == DONE:
            return "the results after the last phase"
        return f"step {self.step_in_phase} of phase {self.phase!r}, epoch {self.current_epoch}"

    def _run(self, batch: tuple) -> Iterator[dict[str, float]]:
        """All phases from the present phase on. A phase is an iterator over its steps and can be resumed at any step."""
        phases = self.phases()
        names = [phase.name for phase in phases]
        for phase in phases[names.index(self.phase) :] if self.phase in names else ():
            self.phase = phase.name
            for metrics in phase.run(batch, self.optimizers(), self.step_in_phase, self.memory):
                self.step_in_phase += 1
                yield metrics
            self.step_in_phase = 0
            self.memory.clear()
        self.phase = DONE

    def release(self) -> None:
        """Let the training data go when nothing is computed from them any more. The trainer of the model keeps the plan."""
        del self.data, self.regression, self.condition_moments, self.selection

    def close(self) -> None:
        """End the schedule where it stands. A phase that keeps its best weights restores them."""
        if self._schedule is not None:
            self._schedule.close()
            self._schedule = None

    @torch.no_grad()
    def measured(self) -> tuple[MeasuredConditions, Moments, FeatureEvidence | None]:
        """The training conditions, their moments under the trained mechanisms, and cross-fitted predictions from features."""
        module, known = self.module, self.condition_moments
        conditions, _ = known.weighed(self.data.conditions, None)
        moments = known.of(conditions, self.data.controls, self.data.store)
        called = known.with_misfit(conditions, moments)
        inputs, observed, _, n, variance = known.seen(conditions, moments)
        learned = ObservedEffects(
            observed, module.profile_log_likelihood_ratio(conditions, moments), n.expand_as(observed), variance
        )
        sure = learned._replace(
            gain=module.profile_log_likelihood_ratio(called, moments), n=called.n.expand_as(observed)
        )
        return called, moments, self._cross_fit(inputs, learned, sure)

    def cross_fit_without_graph(self, error: np.ndarray) -> FeatureEvidence | None:
        """Cross-fitted predictions by a generator that is trained on mean changes in place of the residuals of a graph.

        ``error`` is the variance of the changes' error, ``(conditions, genes)``.
        """
        conditions, change, n, variance = self.condition_moments.changes_as_residuals(error)
        learned = ObservedEffects(change, n * change**2 / (2 * variance), n, variance)
        return self._cross_fit(conditions.inputs, learned, learned)

    def _cross_fit(
        self, inputs: TreatmentInputs, learned: ObservedEffects, sure: ObservedEffects
    ) -> FeatureEvidence | None:
        # A drug without features can neither teach a map of features nor be predicted by it.
        known, share = self.module.generator.knows(inputs), self.options.share_of_generator_steps
        with torch.enable_grad():
            found = self.selection.cross_fit(
                inputs.take(known), learned.of_conditions(known), sure.of_conditions(known), self.module, share
            )
        return None if found is None else found.among(known)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Store the place in the schedule, the memory of the phase and the history; the state of the module contains the graph."""
        chosen = self.selection.choice.state() if self.phase in (GeneratorPhase.name, DONE) else None
        checkpoint[SCHEDULE] = {
            "phase": self.phase,
            "step": self.step_in_phase,
            "chosen": chosen,
            "memory": dict(self.memory),
            "history": self.history,
            "training": self._training(),
        }

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Resume at the phase and step of the checkpoint."""
        saved = checkpoint[SCHEDULE]
        self.phase, self.step_in_phase, chosen = saved["phase"], saved["step"], saved["chosen"]
        self.memory, self.history = saved["memory"], saved["history"]
        if chosen is not None:  # the weights, which are loaded next, belong to the generator of the last phase
            choice = GeneratorChoice.from_state(chosen)
            self.module.generator = self.selection.take(choice, len(self.module.target_penalty))

    def _training(self) -> dict[str, Any]:
        """What a training that resumes must have in common with the training of the checkpoint, in plain values."""
        module, summary = self.module, self.data.summary
        return {
            "seed": self.seed,
            "structure": self.structure,
            "mechanism": type(module.mechanism).__name__,
            "intervention": module.intervention.name,
            "generator": self.selection.asked,
            "early_stopping_patience": self.patience,
            "genes": [str(gene) for gene in summary.genes],
            "conditions": len(summary.design.drug),
            "cells": float(self.data.n_cells),
            **asdict(self.options),
        }

    def reason_against(self, checkpoint: object) -> str | None:
        """Why a checkpoint cannot be resumed, or None: scgim did not write it, or data, seed or options differ."""
        saved = checkpoint.get(SCHEDULE) if isinstance(checkpoint, dict) else None
        if not isinstance(saved, dict) or "training" not in saved:
            return "is no checkpoint of a training of this version of scgim"
        for name, value in self._training().items():
            other = saved["training"].get(name)
            if other != value:
                values = "other names" if name == "genes" else f"{other!r} there and {value!r} here"
                return f"belongs to another training ({name}: {values})"
        return None
