"""The last phase of training: the generator, on frozen mechanisms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from scgim.module import evidence

from ._condition_moments import clear_targets
from ._gradient_step import cooled, gradient_step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scgim.data._training_data import Collected
    from scgim.module import Contexts, GIMModule, Moments

    from ._condition_moments import ConditionMoments
    from ._generator_selection import GeneratorSelection
    from ._options import TrainingOptions


class GeneratorPhase:
    """Selects the generator and trains it, in closed form or by gradient.

    Parameters
    ----------
    module, data
        What is trained, and on what.
    conditions
        The training conditions under the trained mechanisms.
    selection
        Gives the generator.
    options
        Of training.
    patience
        With validation contexts: steps without a better ``nll_validation`` that end the phase; the best weights are restored.
        ``None`` runs all steps.
    """

    name = "generator"

    def __init__(
        self,
        module: GIMModule,
        data: Collected,
        *,
        conditions: ConditionMoments,
        selection: GeneratorSelection,
        options: TrainingOptions,
        patience: int | None,
    ) -> None:
        self.module, self.data, self.conditions = module, data, conditions
        self.selection, self.options, self.patience = selection, options, patience

    def run(self, batch: tuple, optimizers: list, start: int = 0) -> Iterator[dict[str, float]]:
        """One gradient step a step, or one step for a generator in closed form."""
        module, (joint, optimizer) = self.module, optimizers
        module.mechanism.requires_grad_(False)
        contexts, controls, held = batch
        contexts, held = self.conditions.weighed(contexts, held)
        with torch.no_grad():
            moments = self.conditions.of(contexts, controls, self.data.store)
            module.generator_charge.fill_(self.conditions.learning_penalty(contexts, moments))
            held_moments = None if held is None else self.conditions.of(held, controls, self.data.held_store)
        if start == 0:
            module.generator.reset()
            module.generator = self.selection.select(module, contexts, moments, self.conditions.rest)
            joint.state.clear()
        for each in (joint, optimizer):
            each.param_groups[-1]["params"] = module.drug_parameters()
        seen = self.conditions.seen(contexts, moments)
        if module.generator.by_gradient:
            yield from self._descend(optimizer, contexts, moments, held, held_moments, start)
            module.generator.calibrate(*seen)
        else:
            module.generator.solve(*seen)
            optimizer.step()
            with torch.no_grad():
                yield {"generator_nll": -module.evidence(contexts, moments).sum().item() / len(contexts.n)}

    def _descend(
        self,
        optimizer: torch.optim.Optimizer,
        contexts: Contexts,
        moments: Moments,
        held: Contexts | None,
        held_moments: Moments | None,
        start: int,
    ) -> Iterator[dict[str, float]]:
        module, options, charge = self.module, self.options, self.module.taught
        targets = clear_targets(module, contexts, moments, charge)
        frozen = module.freeze(contexts, moments)
        # what the frozen form leaves out
        constant = 0.0 if frozen is None else -self._without_targets(contexts, moments)
        best, best_step, best_state = np.inf, 0, None
        for step in range(start, options.generator_steps):
            if step == int(options.prune_at * options.generator_steps):
                module.generator.prune()
            optimizer.param_groups[0]["lr"] = options.generator_lr * cooled(step, options.generator_steps)
            forced = step < options.forced_share * options.generator_steps
            known = targets if forced else None
            loss, penalty = module.generator_loss(contexts, frozen or moments, known, charge=charge)
            gradient_step(optimizer, loss + penalty, where=f"step {step} of phase {self.name!r}")
            metrics = {"generator_nll": (loss.item() + constant) / len(contexts.n)}
            if held is not None:
                value = self._validation_loss(held, held_moments)
                metrics["nll_validation"] = value
                if self.patience is not None and not forced:
                    if value < best:
                        best, best_step = value, step
                        best_state = {k: v.clone() for k, v in module.generator.state_dict().items()}
                    elif step - best_step >= self.patience:
                        yield metrics
                        break
            yield metrics
        if best_state is not None:
            module.generator.load_state_dict(best_state)

    @torch.no_grad()
    def _validation_loss(self, held: Contexts, moments: Moments) -> float:
        """Minus log likelihood a validation context."""
        return -self.module.evidence(held, moments, charge=self.module.taught).sum().item() / len(held.n)

    @torch.no_grad()
    def _without_targets(self, contexts: Contexts, moments: Moments) -> float:
        """Log likelihood of all contexts if no gene is a target."""
        nothing = torch.zeros_like(moments.residual)
        _, without = evidence(self.module.intervention, moments, nothing, contexts.n, self.module.mechanism.variance)
        return without.sum().item()
