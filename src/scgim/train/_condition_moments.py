"""Moments of the training conditions under the mechanisms, and their effective cells."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from scgim.module import cell_moments
from scgim.module.likelihood import CLEAR_MARGIN
from scgim.structure import SLAB

from ._calibration import Calibration, calibrate_penalty, control_residual_mean, misfit, with_effective_cells

if TYPE_CHECKING:
    from scgim.data._training_data import TrainingData
    from scgim.module import GIMModule, MeasuredConditions, Moments

    from ._graph_regression import GraphRegression
    from ._options import TrainingOptions

LEARNING_SHARE = 0.04  # target penalty while the generator is trained, as a share of the median gain of clear targets


@torch.no_grad()
def clear_targets(
    module: GIMModule, conditions: MeasuredConditions, moments: Moments, target_penalty: torch.Tensor | None = None
) -> torch.Tensor:
    """Genes with a gain above the target penalty plus :data:`CLEAR_MARGIN`, ``(conditions, genes)`` bool."""
    return (
        module.profile_log_likelihood_ratio(conditions, moments)
        > (module.target_penalty if target_penalty is None else target_penalty) + CLEAR_MARGIN
    )


class ConditionMoments:
    """The training conditions under a module's mechanisms: moments, effective cells, and the target penalty from placebos.

    Parameters
    ----------
    module, data
        The trained module and the training data.
    regression
        Regression of the score of the structure search.
    options
        Options of training.
    """

    def __init__(
        self, module: GIMModule, data: TrainingData, *, regression: GraphRegression, options: TrainingOptions
    ) -> None:
        self.module, self.data, self.regression, self.options = module, data, regression, options
        self.calibration: Calibration | None = None

    def about_penalty(self) -> dict:
        """Provenance of the target penalty in plain values."""
        return {} if self.calibration is None else self.calibration.about()

    def of(self, conditions: MeasuredConditions, controls: object, store: object) -> Moments:
        """Moments of the conditions, from their sufficient statistics or from all sampled cells."""
        mechanism = self.module.mechanism
        if not mechanism.affine:
            return cell_moments(mechanism, store)
        return mechanism.moments(self._with_own_scatter(conditions), controls)

    def _with_own_scatter(self, conditions: MeasuredConditions | None) -> MeasuredConditions | None:
        """The conditions with their scatter gathered on the graph, before effective cells replace their number of cells."""
        mechanism = self.module.mechanism
        if conditions is None or not mechanism.affine or not isinstance(conditions.own, torch.Tensor):
            return conditions
        return conditions._replace(own=mechanism.families(conditions.own, conditions.n))

    @torch.no_grad()
    def weighed(
        self, conditions: MeasuredConditions, validation: MeasuredConditions | None
    ) -> tuple[MeasuredConditions, MeasuredConditions | None]:
        """The conditions with their effective cells. The first call also sets the target penalty of the module."""
        module, means = self.module, self.data.means
        conditions, validation = (self._with_own_scatter(each) for each in (conditions, validation))
        fit = None if means is None else self.regression.fit(module.mechanism.graph.cpu().numpy())
        if self.calibration is None:
            self.calibration = (
                calibrate_penalty(self.data, module.mechanism, fit)
                if self.options.target_penalty is None
                else Calibration.given(self.options.target_penalty, len(module.target_penalty))
            )
            module.target_penalty.copy_(torch.as_tensor(self.calibration.target_penalty))
            if fit is not None and module.mechanism.affine:
                module.slab.copy_(torch.as_tensor(SLAB * means.unit**2))
                module.chance.copy_(torch.as_tensor(self.calibration.chance))
        if module.scale_map is not None:
            return conditions, validation  # the noise scale is estimated from single cells
        return with_effective_cells(self.data, module.mechanism, fit, conditions, validation)

    @torch.no_grad()
    def seen(self, conditions: MeasuredConditions, moments: Moments) -> tuple:
        """Arguments of :meth:`Generator.solve`: inputs, observed psi, probabilities of targets, effective cells, noise variance."""
        best, _ = self.module.intervention.observed(moments)
        probability = torch.sigmoid(
            self.module.profile_log_likelihood_ratio(conditions, moments) - self.module.target_penalty
        )
        # Closed-form generators average all shifts, not only the shifts of targets, so an offset common to all conditions and
        # controls would become an effect.
        if not self.module.generator.by_gradient:
            best = best - self.control_residual_mean
        return conditions.inputs, best, probability, conditions.n, self.module.mechanism.variance.detach()

    @cached_property
    def control_residual_mean(self) -> torch.Tensor:
        """Mean residual of the controls under the mechanisms of the last phase, ``(genes,)``; 0 for hard interventions."""
        mechanism = self.module.mechanism
        mean = (
            control_residual_mean(self.data, mechanism)
            if self.module.intervention.keeps_parents
            else torch.zeros(len(mechanism.bias))
        )
        return mean.to(mechanism.bias)

    def learning_penalty(self, conditions: MeasuredConditions, moments: Moments) -> float:
        r"""Target penalty while the generator is trained: :data:`LEARNING_SHARE` of the median gain of clear targets, in nats.

        With a reduced penalty, weak conditions contribute to the effects that they have in common. With strong conditions, a larger
        penalty does not hide targets, and it prevents the prediction of targets that features do not determine.
        """
        gain = self.module.profile_log_likelihood_ratio(conditions, moments) - conditions.target_log_odds
        clear = gain[gain > self.module.target_penalty + CLEAR_MARGIN]
        least = self.options.generator_target_penalty
        return max(least, LEARNING_SHARE * float(clear.median()) if len(clear) else 0.0)

    def with_misfit(self, conditions: MeasuredConditions, moments: Moments) -> MeasuredConditions:
        """The conditions with effective cells that count misfit of the graph as noise; sets the module's share of misfit.

        Only the posterior of targets uses these effective cells. The generator is trained without them, because its predictions should
        include the changes that the graph does not explain.
        """
        if self.module.scale_map is not None:  # then the conditions have no effective cells
            return conditions
        variance, n = self.module.mechanism.variance.detach(), conditions.n
        beyond = torch.as_tensor(misfit(self.data, self.module.mechanism, moments, n)).to(moments.residual)
        self.module.misfit.copy_((beyond / (beyond + variance / n)).mean(0))
        return conditions._replace(n=1 / (1 / n + beyond / variance))

    def changes_as_residuals(
        self, error: np.ndarray
    ) -> tuple[MeasuredConditions, torch.Tensor, torch.Tensor, torch.Tensor]:
        """The conditions, and their mean changes, effective cells and noise variance for a graph without edges.

        ``error`` is the variance of the changes' error, ``(conditions, genes)``.
        """
        conditions = self.data.conditions
        keeps = self.module.intervention.keeps_parents
        change = conditions.mean - self.data.controls.mean if keeps else conditions.mean
        variance = torch.as_tensor(np.median(error * conditions.n.numpy(), axis=0))
        return conditions, change, variance / torch.as_tensor(error), variance
