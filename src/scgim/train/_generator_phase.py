"""The last phase of training: the generator, on frozen mechanisms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from scgim.module import log_likelihoods

from ._condition_moments import clear_targets
from ._folds import PRUNED, TEACHER_FORCED
from ._gradient_step import GradientSteps, cooled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scgim.data._training_data import TrainingData
    from scgim.module import GIMModule, MeasuredConditions, Moments

    from ._condition_moments import ConditionMoments
    from ._generator_selection import GeneratorSelection
    from ._options import TrainingOptions


class GeneratorPhase:
    """Selects the generator and trains it, in closed form or by gradient.

    Parameters
    ----------
    module, data
        The trained module and the training data.
    condition_moments
        The training conditions under the trained mechanisms.
    selection
        Selection of the generator.
    options
        Options of training.
    patience
        Number of steps without a lower ``nll_validation`` that end the phase, if there are validation conditions. The best weights are
        restored. ``None`` runs all steps.
    """

    name = "generator"

    def __init__(
        self,
        module: GIMModule,
        data: TrainingData,
        *,
        condition_moments: ConditionMoments,
        selection: GeneratorSelection,
        options: TrainingOptions,
        patience: int | None,
    ) -> None:
        self.module, self.data, self.condition_moments = module, data, condition_moments
        self.selection, self.options, self.patience = selection, options, patience

    def run(self, batch: tuple, optimizers: list, start: int, memory: dict[str, Any]) -> Iterator[dict[str, float]]:
        """Yield after every gradient step, or once for a generator in closed form. ``memory["best"]`` is the best validation loss."""
        module, (joint, optimizer) = self.module, optimizers
        module.mechanism.requires_grad_(False)
        conditions, controls, validation = batch
        conditions, validation = self.condition_moments.weighed(conditions, validation)
        with torch.no_grad():
            moments = self.condition_moments.of(conditions, controls, self.data.store)
            # Drugs without features do not teach a map of features.
            featured = conditions.inputs.featured
            learned_from = conditions.take(featured), moments.take(featured)
            module.generator_target_penalty.fill_(self.condition_moments.learning_penalty(*learned_from))
            validation_moments = (
                None if validation is None else self.condition_moments.of(validation, controls, self.data.held_store)
            )
        if start == 0:
            module.generator.reset()
            module.generator = self.selection.select(
                module, *learned_from, self.condition_moments.control_residual_mean
            )
            joint.state.clear()
        if module.generator.pools_drugs:
            conditions, moments = learned_from
        if validation is not None and not (known := module.generator.knows(validation.inputs)).all():
            validation, validation_moments = validation.take(known), validation_moments.take(known)
        for each in (joint, optimizer):
            each.param_groups[-1]["params"] = module.drug_parameters()
        observed = self.condition_moments.seen(conditions, moments)
        if module.generator.by_gradient:
            yield from self._descend(optimizer, conditions, moments, validation, validation_moments, start, memory)
            module.generator.calibrate(*observed)
            module.generator.release()
        else:
            module.generator.solve(*observed)
            optimizer.step()
            with torch.no_grad():
                yield {"generator_nll": -module.log_likelihood(conditions, moments).sum().item() / len(conditions.n)}

    def _descend(
        self,
        optimizer: torch.optim.Optimizer,
        conditions: MeasuredConditions,
        moments: Moments,
        validation: MeasuredConditions | None,
        validation_moments: Moments | None,
        start: int,
        memory: dict[str, Any],
    ) -> Iterator[dict[str, float]]:
        module, options, target_penalty = self.module, self.options, self.module.generator_penalty
        targets = clear_targets(module, conditions, moments, target_penalty)
        frozen = module.freeze(conditions, moments)
        # The frozen log-likelihood omits the part without targets, which is constant in this phase.
        constant = 0.0 if frozen is None else -self._without_targets(conditions, moments)
        descent = GradientSteps(optimizer)
        try:
            for step in () if memory.get("stopped") else range(start, options.generator_steps):
                if step == int(PRUNED * options.generator_steps):
                    module.generator.prune()
                optimizer.param_groups[0]["lr"] = options.generator_lr * cooled(step, options.generator_steps)
                forced = step < TEACHER_FORCED * options.generator_steps
                known = targets if forced else None
                loss, penalty = module.generator_loss(
                    conditions, frozen or moments, known, target_penalty=target_penalty
                )
                descent.step(loss + penalty)
                metrics = {"generator_nll": (loss.item() + constant) / len(conditions.n)}
                if validation is not None and len(validation.n):
                    metrics["nll_validation"] = self._validation_loss(validation, validation_moments)
                    if self.patience is not None and not forced:
                        memory["stopped"] = self._worse(metrics, step, memory)
                yield metrics
                if memory.get("stopped"):
                    break
        finally:  # also if training is interrupted
            if "best" in memory:
                module.generator.load_state_dict(memory["best"]["state"])

    def _worse(self, metrics: dict[str, float], step: int, memory: dict[str, Any]) -> bool:
        """Whether the best validation loss was reached `patience` steps ago. A better one is kept with its weights."""
        value, best = metrics["nll_validation"], memory.get("best", {"value": np.inf, "step": 0})
        if value < best["value"]:
            state = {k: v.clone() for k, v in self.module.generator.state_dict().items()}
            memory["best"] = {"value": value, "step": step, "state": state}
            return False
        return step - best["step"] >= self.patience

    @torch.no_grad()
    def _validation_loss(self, validation: MeasuredConditions, moments: Moments) -> float:
        """Negative log-likelihood per validation condition."""
        return -self.module.log_likelihood(
            validation, moments, target_penalty=self.module.generator_penalty
        ).sum().item() / len(validation.n)

    @torch.no_grad()
    def _without_targets(self, conditions: MeasuredConditions, moments: Moments) -> float:
        """Log-likelihood of all conditions without targets."""
        nothing = torch.zeros_like(moments.residual)
        _, without = log_likelihoods(
            self.module.intervention, moments, nothing, conditions.n, self.module.mechanism.variance
        )
        return without.sum().item()
