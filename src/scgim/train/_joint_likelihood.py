"""The likelihood of the model for a joint descent of graph, mechanisms and generator."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from scgim.module import Moments
from scgim.module.likelihood import CLEAR_MARGIN

if TYPE_CHECKING:
    from scgim.module import GIMModule, MeasuredConditions
    from scgim.statistics import SufficientStatistics


class JointLikelihood(torch.nn.Module):
    """The exact likelihood of all cells, and the generator's penalty, for :func:`~scgim.structure.gradient.descend_dag`.

    Parameters
    ----------
    module
        Module with the trained generator and noise. The descent has its own graph and mechanisms.
    conditions
        The training conditions.
    statistics
        Sufficient statistics of the conditions and controls.
    rates
        Step sizes of the trained parameters of the module.
    """

    def __init__(
        self,
        module: GIMModule,
        conditions: MeasuredConditions,
        statistics: SufficientStatistics,
        rates: dict[str, float],
    ) -> None:
        super().__init__()
        self.module, self.rates = module, {f"module.{name}": rate for name, rate in rates.items()}
        n = torch.as_tensor(statistics.n).to(conditions.mean)
        self.conditions, self.n_cells = conditions._replace(n=n[1:, None], own=None), float(n.sum())

    def forward(
        self, mean: torch.Tensor, within: torch.Tensor, pooled: torch.Tensor, forced: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Negative log-likelihood and penalty in nats, and noise variance, given the residuals of a graph."""
        moments = Moments(mean, within, self.conditions.mean, self.conditions.spread, pooled)
        targets = None
        if forced:
            targets = (
                self.module.profile_log_likelihood_ratio(self.conditions, moments)
                > self.module.target_penalty + CLEAR_MARGIN
            ).detach()
        loss, penalty = self.module.joint_loss(self.conditions, moments, self.n_cells, targets)
        return loss, penalty, self.module.mechanism.variance
