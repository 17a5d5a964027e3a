"""Training: one ``Trainer.fit`` with its phases in a schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lightning.pytorch as pl
import torch

from ._condition_moments import ConditionMoments
from ._folds import Evidence
from ._generator_phase import GeneratorPhase
from ._generator_selection import GeneratorChoice
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


class TrainingPlan(pl.LightningModule):
    """The schedule: structure (search or descent), mechanisms (jointly with a generator), generator.

    Parameters
    ----------
    module
        What is trained, with the generator that the mechanisms are learned with.
    data
        Training conditions, controls, and what the search and the mechanisms see of the cells.
    options
        Of all phases.
    structure
        ``"search"``, ``"gradient"``, or ``"none"`` (no edges but required ones).
    constraints
        Edges that may exist and that must.
    selection
        Gives the generator of the last phase.
    seed
        Of the search or descent and of batches of cells.
    early_stopping_patience
        See :class:`GeneratorPhase`.
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
        self._schedule: Iterator[dict[str, float]] | None = None
        self.automatic_optimization = False

    def phases(self) -> list:
        """The phases in their order."""
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
        """Adam for all parameters (structure and mechanisms) and a fresh one for the generator."""
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
        """Start the schedule, where a checkpoint left it if there is one."""
        self._schedule = None

    def training_step(self, batch: tuple, batch_idx: int) -> torch.Tensor:
        """Advance the schedule by an epoch and log what it reports last."""
        if self._schedule is None:
            self._schedule = self._run(batch)
        metrics: dict[str, float] = {}
        for _ in range(1 if self.phase == StructurePhase.name else self.options.steps_per_epoch):
            report = next(self._schedule, None)
            if report is None:
                self.trainer.should_stop = True
                break
            metrics |= report
        several = self.trainer.world_size > 1
        self.log_dict(metrics, on_step=False, on_epoch=True, batch_size=1, sync_dist=several)
        return torch.zeros(())

    def _run(self, batch: tuple) -> Iterator[dict[str, float]]:
        """All phases from the present one on, each a resumable iterator over its own steps."""
        phases = self.phases()
        names = [phase.name for phase in phases]
        for phase in phases[names.index(self.phase) :] if self.phase in names else ():
            self.phase = phase.name
            for metrics in phase.run(batch, self.optimizers(), self.step_in_phase):
                self.step_in_phase += 1
                yield metrics
            self.step_in_phase = 0
        self.phase = "done"

    @torch.no_grad()
    def measured(self) -> tuple[MeasuredConditions, Moments, FeatureEvidence | None]:
        """The training conditions, what the trained mechanisms leave of them, and what features say of them."""
        module, known = self.module, self.condition_moments
        conditions, _ = known.weighed(self.data.conditions, None)
        moments = known.of(conditions, self.data.controls, self.data.store)
        called = known.with_misfit(conditions, moments)
        inputs, observed, _, n, variance = known.seen(conditions, moments)
        learned = Evidence(
            observed, module.profile_log_likelihood_ratio(conditions, moments), n.expand_as(observed), variance
        )
        sure = learned._replace(
            gain=module.profile_log_likelihood_ratio(called, moments), n=called.n.expand_as(observed)
        )
        return called, moments, self._cross_fit(inputs, learned, sure)

    def cross_fit_without_graph(self, error: np.ndarray) -> FeatureEvidence | None:
        """What the generator says of the held-out conditions if it learns their mean changes instead of the residuals of a graph.

        ``error`` is the variance of their error, ``(conditions, genes)``.
        """
        conditions, change, n, variance = self.condition_moments.changes_as_residuals(error)
        learned = Evidence(change, n * change**2 / (2 * variance), n, variance)
        return self._cross_fit(conditions.inputs, learned, learned)

    def _cross_fit(self, inputs: TreatmentInputs, learned: Evidence, sure: Evidence) -> FeatureEvidence | None:
        with torch.enable_grad():
            share = self.options.share_of_generator_steps
            return self.selection.cross_fit(inputs, learned, sure, self.module, share)

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Remember the place in the schedule; the graph found so far is in the module."""
        chosen = self.selection.choice.state() if self.phase in (GeneratorPhase.name, "done") else None
        checkpoint["scgim_schedule"] = {"phase": self.phase, "step": self.step_in_phase, "chosen": chosen}

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Go on from there."""
        self.phase, self.step_in_phase, chosen = checkpoint["scgim_schedule"].values()
        if chosen is not None:  # the weights that are loaded next are those of the generator of the last phase
            choice = GeneratorChoice.from_state(chosen)
            self.module.generator = self.selection.take(choice, len(self.module.target_penalty))
