"""What a gradient step of the mechanisms sees: sufficient statistics, or some cells of every context."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from scgim.module import Moments, cell_moments

if TYPE_CHECKING:
    from scgim.module import Contexts, Controls

    from ._train import TrainingPlan

_VALUES = 400_000  # gene values of cells in a step; of a large screen a step sees some contexts
_REFRESH = 150  # steps between two looks at which mechanisms the contexts touch


class Batches:
    """Moments of the contexts for every step of the joint phase.

    Mechanisms on sufficient statistics see everything in every step. The others see ``cells_per_step`` cells of every
    context, or of a share of the contexts if these are many, whose sums are scaled up to the whole: as the mixture is no
    sum over cells, its targets are looked up from all kept cells now and then (the E step of EM), and between two looks
    the loss is a sum, of which a batch is an unbiased sample.
    """

    def __init__(self, plan: TrainingPlan, contexts: Contexts, controls: Controls) -> None:
        self.plan, self.contexts, self.controls = plan, contexts, controls
        self.store, mechanism = plan.data.store, plan.module.mechanism
        if mechanism.affine and contexts.own is not None:
            self.contexts = contexts._replace(own=mechanism.families(contexts.own, contexts.n))
        if not mechanism.affine:
            self.generator = torch.Generator().manual_seed(plan.seed)
            k, d = contexts.mean.shape
            self.at_once = min(k, max(1, _VALUES // (plan.cells_per_step * d)))
            self.n_controls = max(plan.cells_per_step, self.at_once * plan.cells_per_step // 5)
            self.targets: torch.Tensor | None = None

    def at(self, step: int) -> tuple[Contexts, Moments, torch.Tensor | None, float]:
        """Contexts, their moments, targets (``None``: unknown) and the share of all contexts that this is."""
        if self.plan.module.mechanism.affine:
            moments = self.plan.module.mechanism.moments(self.contexts, self.controls)
            forced = step < self.plan.forced_steps
            return self.contexts, moments, self.plan.clear_targets(self.contexts, moments) if forced else None, 1.0
        if self.targets is None or step % _REFRESH == 0:
            with torch.no_grad():
                moments = cell_moments(self.plan.module.mechanism, self.store)
            self.targets = self.plan.clear_targets(self.contexts, moments)
        return self._sample()

    def _sample(self) -> tuple[Contexts, Moments, torch.Tensor, float]:
        k, n, mechanism = len(self.contexts.n), self.plan.cells_per_step, self.plan.module.mechanism
        chosen = torch.randperm(k, generator=self.generator)[: self.at_once].sort().values
        treated = self.store.draw(chosen + 1, n, self.generator)
        control = self.store.draw(torch.zeros(1, dtype=torch.long), self.n_controls, self.generator)[0]
        x = torch.cat([treated.flatten(0, 1), control]).double()
        noise = x - mechanism(x)
        m = len(chosen)
        x, noise, at_control = x[: m * n].view(m, n, -1), noise[: m * n].view(m, n, -1), noise[m * n :]
        pooled = self.store.size[0] * (at_control**2).mean(0)
        moments = Moments(noise.mean(1), noise.var(1, correction=0), x.mean(1), x.var(1, correction=0), pooled)
        contexts = self.contexts._replace(
            n=self.contexts.n[chosen],
            mean=self.contexts.mean[chosen],
            spread=self.contexts.spread[chosen],
            conditions=type(self.contexts.conditions)(*(a[chosen] for a in self.contexts.conditions)),
        )
        return contexts, moments, self.targets[chosen], m / k
