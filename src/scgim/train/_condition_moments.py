"""What the mechanisms leave of the training conditions, and what that is worth."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from scgim.module import cell_moments
from scgim.module.likelihood import CLEAR_MARGIN
from scgim.structure import SLAB

from ._calibration import Calibration, calibration, misfit, rest, with_effective_cells

if TYPE_CHECKING:
    from scgim.data._training_data import TrainingData
    from scgim.module import GIMModule, MeasuredConditions, Moments

    from ._graph_regression import GraphRegression
    from ._options import TrainingOptions

LEARNING_SHARE = 0.04  # of a clear target's median gain: what a target costs while the generator learns


@torch.no_grad()
def clear_targets(
    module: GIMModule, conditions: MeasuredConditions, moments: Moments, target_penalty: torch.Tensor | None = None
) -> torch.Tensor:
    """Targets of conditions whose gain exceeds what they cost by :data:`CLEAR_MARGIN`, ``(conditions, genes)`` bool."""
    return (
        module.profile_log_likelihood_ratio(conditions, moments)
        > (module.target_penalty if target_penalty is None else target_penalty) + CLEAR_MARGIN
    )


class ConditionMoments:
    """The training conditions under a module's mechanisms: moments, effective cells, and the target penalty that placebos set.

    Parameters
    ----------
    module, data
        What is trained, and on what.
    regression
        Behind the search's score.
    options
        Of training.
    """

    def __init__(
        self, module: GIMModule, data: TrainingData, *, regression: GraphRegression, options: TrainingOptions
    ) -> None:
        self.module, self.data, self.regression, self.options = module, data, regression, options
        self.calibration: Calibration | None = None

    def about_penalty(self) -> dict:
        """How the target penalty was set, in plain values."""
        return {} if self.calibration is None else self.calibration.about()

    def of(self, conditions: MeasuredConditions, controls: object, store: object) -> Moments:
        """Moments of whole conditions, from their statistics or from all kept cells."""
        mechanism = self.module.mechanism
        if not mechanism.affine:
            return cell_moments(mechanism, store)
        return mechanism.moments(self._with_own_scatter(conditions), controls)

    def _with_own_scatter(self, conditions: MeasuredConditions | None) -> MeasuredConditions | None:
        """With every condition's own scatter gathered on the graph, which divides by its cells and not by its effective cells."""
        mechanism = self.module.mechanism
        if conditions is None or not mechanism.affine or not isinstance(conditions.own, torch.Tensor):
            return conditions
        return conditions._replace(own=mechanism.families(conditions.own, conditions.n))

    @torch.no_grad()
    def weighed(
        self, conditions: MeasuredConditions, held: MeasuredConditions | None
    ) -> tuple[MeasuredConditions, MeasuredConditions | None]:
        """The conditions with their effective cells; also sets the target penalty, once."""
        module, means = self.module, self.data.means
        conditions, held = (self._with_own_scatter(each) for each in (conditions, held))
        fit = None if means is None else self.regression.fit(module.mechanism.graph.cpu().numpy())
        if self.calibration is None:
            self.calibration = (
                calibration(self.data, module.mechanism, fit)
                if self.options.target_penalty is None
                else Calibration.given(self.options.target_penalty, len(module.target_penalty))
            )
            module.target_penalty.copy_(torch.as_tensor(self.calibration.target_penalty))
            if fit is not None and module.mechanism.affine:
                module.slab.copy_(torch.as_tensor(SLAB * means.unit**2))
                module.chance.copy_(torch.as_tensor(self.calibration.chance))
        if module.scale_map is not None:
            return conditions, held  # the noise's scale shows in every cell
        return with_effective_cells(self.data, module.mechanism, fit, conditions, held)

    @torch.no_grad()
    def seen(self, conditions: MeasuredConditions, moments: Moments) -> tuple:
        """What the conditions show, as generators take it: their best psi, and whether it is one."""
        best, _ = self.module.intervention.observed(moments)
        probability = torch.sigmoid(
            self.module.profile_log_likelihood_ratio(conditions, moments) - self.module.target_penalty
        )
        if not self.module.generator.by_gradient:  # which take every shift for one, however weak
            best = best - self.rest
        return conditions.inputs, best, probability, conditions.n, self.module.mechanism.variance.detach()

    @cached_property
    def rest(self) -> torch.Tensor:
        """What shifts are measured from, ``(genes,)``, with the mechanisms of the last phase; values that are set have no such place."""
        mechanism = self.module.mechanism
        here = (
            rest(self.data, mechanism) if self.module.intervention.keeps_parents else torch.zeros(len(mechanism.bias))
        )
        return here.to(mechanism.bias)

    def learning_penalty(self, conditions: MeasuredConditions, moments: Moments) -> float:
        r"""Nats that a target costs a condition while the generator learns: :data:`LEARNING_SHARE` of a clear target's median gain.

        Conditions that are too weak to pay the whole penalty each can then learn what they have in common; where they are strong,
        the whole penalty costs nothing and keeps features from calling what they cannot see.
        """
        gain = self.module.profile_log_likelihood_ratio(conditions, moments)
        clear = gain[gain > self.module.target_penalty + CLEAR_MARGIN]
        least = self.options.generator_target_penalty
        return max(least, LEARNING_SHARE * float(clear.median()) if len(clear) else 0.0)

    def with_misfit(self, conditions: MeasuredConditions, moments: Moments) -> MeasuredConditions:
        """The conditions with effective cells that count the graph's misfit as noise; the module is told which genes misfit.

        Only calls of targets are asked this way. The generator learns from means at what sampling leaves of them, because what it
        predicts of a drug should contain what the graph does not explain.
        """
        if self.module.scale_map is not None:  # as in weighing
            return conditions
        variance, n = self.module.mechanism.variance.detach(), conditions.n
        beyond = torch.as_tensor(misfit(self.data, self.module.mechanism, moments, n)).to(moments.residual)
        self.module.misfit.copy_((beyond / (beyond + variance / n)).mean(0))
        return conditions._replace(n=1 / (1 / n + beyond / variance))

    def changes_as_residuals(
        self, error: np.ndarray
    ) -> tuple[MeasuredConditions, torch.Tensor, torch.Tensor, torch.Tensor]:
        """The conditions, their mean changes, effective cells and noise variance if there were no graph.

        ``error`` is the variance of the changes' error, ``(conditions, genes)``.
        """
        conditions = self.data.conditions
        keeps = self.module.intervention.keeps_parents
        change = conditions.mean - self.data.controls.mean if keeps else conditions.mean
        variance = torch.as_tensor(np.median(error * conditions.n.numpy(), axis=0))
        return conditions, change, variance / torch.as_tensor(error), variance
