from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .interventions import INTERVENTIONS
from .likelihood import (
    MIN_EFFECT,
    QuadraticEvidence,
    capped,
    complete_log_likelihood,
    graph_averaged,
    log_likelihoods,
    marginal_gain,
    marginal_log_likelihood,
    negligible_gain,
    noise_loss,
)
from .mechanisms import MECHANISMS
from .posterior import EffectData, EffectPrior, effect_moments, target_log_odds

if TYPE_CHECKING:
    from ._moments import FeatureEvidence, MeasuredConditions, Moments
    from ._noise_scale import NoiseScale
    from .generators import Generator
    from .mechanisms import LinearMechanism, NetworkMechanism


class GIMModule(nn.Module):
    """The generative intervention model: mechanisms on a graph, and a generator of interventions on them.

    Parameters
    ----------
    n_genes
        Genes.
    generator
        See :data:`~scgim.module.GENERATORS`.
    mechanism, intervention
        Keys of :data:`~scgim.module.MECHANISMS` and :data:`~scgim.module.INTERVENTIONS`.
    scale_map
        What says how far a touched mechanism's noise is scaled; ``None``: it is not.
    charge
        Occam charge in nats for every target, at first the same for all genes: :attr:`target_penalty` is ``(genes,)``.
    generator_target_penalty
        Most nats that a target costs a condition where features call it: the map from features pays for an effect once, by its
        penalty, and conditions that are too weak to pay ``charge`` each still show what they have in common.
    min_effect
        Least effect that makes a gene a target of a measured condition, in control standard deviations; see
        :func:`negligible_gain` and :func:`capped`.
    """

    mechanism: LinearMechanism | NetworkMechanism
    # buffers, which torch declares as tensors or modules
    target_penalty: Tensor
    generator_target_penalty: Tensor
    min_effect: Tensor
    misfit: Tensor
    slab: Tensor
    chance: Tensor

    def __init__(
        self,
        n_genes: int,
        generator: Generator,
        *,
        mechanism: str = "linear",
        intervention: str = "shift",
        scale_map: NoiseScale | None = None,
        target_penalty: float = 5.0,
        generator_target_penalty: float = 0.5,
        min_effect: float = MIN_EFFECT,
    ) -> None:
        super().__init__()
        self.mechanism = MECHANISMS[mechanism](n_genes)
        self.intervention = INTERVENTIONS[intervention]
        self.generator = generator
        self.scale_map = scale_map
        self.register_buffer("target_penalty", torch.full((n_genes,), float(target_penalty), dtype=torch.float64))
        self.register_buffer(
            "generator_target_penalty", torch.tensor(float(generator_target_penalty), dtype=torch.float64)
        )
        self.register_buffer("min_effect", torch.tensor(float(min_effect), dtype=torch.float64))
        # share of the variance of untouched mechanisms' mean residuals that is misfit and not sampling
        self.register_buffer("misfit", torch.zeros(n_genes, dtype=torch.float64))
        # learned from means: a priori variance of a shift, and what chance can gain
        self.register_buffer("slab", torch.zeros(n_genes, dtype=torch.float64))
        self.register_buffer("chance", torch.zeros(n_genes, dtype=torch.float64))

    @property
    def needs_own(self) -> bool:
        """Whether the likelihood needs every condition's own scatter, not only the pooled one."""
        return self.intervention.needs_own or self.scale_map is not None

    @property
    def generator_penalty(self) -> Tensor:
        """What a target costs a condition while the generator learns on frozen mechanisms, ``(genes,)``."""
        return (
            self.target_penalty.clamp(max=self.generator_target_penalty)
            if self.generator.pools_drugs
            else self.target_penalty
        )

    def drug_parameters(self) -> list[torch.nn.Parameter]:
        """All parameters but those of the mechanisms."""
        return [p for name, p in self.named_parameters() if not name.startswith("mechanism.")]

    def log_scale(self, conditions: MeasuredConditions) -> Tensor | float:
        """Log of what a touched mechanism's noise is multiplied by, ``(conditions, genes)``; 0 if it never is."""
        return 0.0 if self.scale_map is None else self.scale_map(conditions.inputs)

    def profile_log_likelihood_ratio(self, conditions: MeasuredConditions, moments: Moments) -> Tensor:
        """By how many nats a touched mechanism explains a condition better, its psi chosen at best; ``(conditions, genes)``."""
        best, _ = self.intervention.observed(moments)
        with_target, without = log_likelihoods(self.intervention, moments, best, conditions.n, self.mechanism.variance)
        return with_target - without

    @torch.no_grad()
    def freeze(self, conditions: MeasuredConditions, moments: Moments) -> QuadraticEvidence | None:
        """The log-likelihood of frozen mechanisms, cheap in every step; ``None`` if noise is scaled by what is learned."""
        if self.scale_map is not None:
            return None
        best, _ = self.intervention.observed(moments)
        return QuadraticEvidence(
            best, self.profile_log_likelihood_ratio(conditions, moments), conditions.n / (2 * self.mechanism.variance)
        )

    def log_likelihood(
        self,
        conditions: MeasuredConditions,
        moments: Moments,
        targets: Tensor | None = None,
        target_penalty: Tensor | None = None,
    ) -> Tensor:
        """Log-likelihood of the conditions' cells under the generator, ``(conditions, genes)``, exact over unknown targets.

        ``targets``, ``(conditions, genes)``, forces them (bool), or gives their probabilities; ``charge`` is :attr:`target_penalty` unless given.
        """
        return self._log_likelihood(conditions, moments, *self.generator(conditions.inputs), targets, target_penalty)

    def _log_likelihood(
        self,
        conditions: MeasuredConditions,
        moments: Moments | QuadraticEvidence,
        logits: Tensor,
        psi: Tensor,
        targets: Tensor | None,
        target_penalty: Tensor | None,
    ) -> Tensor:
        target_penalty = self.target_penalty if target_penalty is None else target_penalty
        if isinstance(moments, QuadraticEvidence):
            gain = moments.gain_of(psi)
            if targets is None:
                return marginal_gain(logits, gain, target_penalty)
            return complete_log_likelihood(logits, gain, 0.0, target_penalty, targets)
        variance, scale = self.mechanism.variance, self.log_scale(conditions)
        with_target, without = log_likelihoods(self.intervention, moments, psi, conditions.n, variance, scale)
        if targets is None:
            return marginal_log_likelihood(logits, with_target, without, target_penalty)
        return complete_log_likelihood(logits, with_target, without, target_penalty, targets)

    def generator_loss(
        self,
        conditions: MeasuredConditions,
        moments: Moments | QuadraticEvidence,
        targets: Tensor | None = None,
        weight: Tensor | None = None,
        target_penalty: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Minus log likelihood of the conditions' cells, and the penalty of what is learned of drugs; nats.

        ``weight`` is what a condition counts for, ``(conditions, 1)``; ``charge`` is :attr:`target_penalty` unless given. With frozen moments, what
        they leave out is missing.
        """
        logits, psi = self.generator(conditions.inputs)
        penalty = self.generator.penalty(logits, psi)
        if self.scale_map is not None:
            penalty = penalty + self.scale_map.penalty()
        found = self._log_likelihood(conditions, moments, logits, psi, targets, target_penalty)
        return -(found if weight is None else weight * found).sum(), penalty

    def joint_loss(
        self,
        conditions: MeasuredConditions,
        moments: Moments,
        n_cells: Tensor | float,
        targets: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Minus log likelihood of all training cells, ``n_cells`` of them, and the generator's penalty; nats.

        ``weight`` is what a condition counts for, ``(conditions, 1)``: more than 1 if they are a sample of all.
        """
        nll, penalty = self.generator_loss(conditions, moments, targets, weight)
        return nll + noise_loss(moments.pooled, self.mechanism.variance, n_cells).sum(), penalty

    @torch.no_grad()
    def posterior(
        self,
        conditions: MeasuredConditions,
        moments: Moments,
        prior_variance: Tensor,
        features: FeatureEvidence | None = None,
        unit: Tensor | float = 1.0,
    ) -> tuple[Tensor, Tensor, Tensor]:
        r"""Targets of measured conditions: their own cells, and what features say of them by other conditions.

        The log odds are those of :func:`~scgim.module.posterior.target_log_odds`. An effect that is too small to matter belongs to the null
        hypothesis (:func:`negligible_gain`). An effect below :attr:`min_effect`, or below its standard error, is never called
        (:func:`capped`). A graph learned from means is taken for wrong with some probability (:func:`graph_averaged`).

        Parameters
        ----------
        conditions, moments
            Measured conditions.
        prior_variance
            :math:`\tau^2` where there are no ``features``, ``(genes,)`` or ``(conditions, genes)``.
        features
            What features say of the conditions, learned without them. ``None``: they say nothing, and :math:`\hat\psi` is the generator's.
        unit
            Of the conditions' values in pooled control SD, in which the least effect is given; ``(conditions, genes)``.

        Returns
        -------
        Probabilities of targets, effects and their standard errors, the latter two given that the gene is a target;
        ``(conditions, genes)`` each.
        """
        prior, least = self._effect_prior(conditions, prior_variance, features), self.min_effect / unit
        data = self._effect_data(conditions, moments, least)
        log_odds, share = target_log_odds(prior, data, self.misfit)
        probability = torch.sigmoid(log_odds)
        if self._from_means:
            # without a graph, the residual of a gene is its whole change
            whole = moments._replace(residual=moments.value, within=moments.spread)
            moved, _ = target_log_odds(prior, self._effect_data(conditions, whole, least), self.misfit)
            probability = graph_averaged(probability, torch.sigmoid(moved))
        effect, error = effect_moments(prior, data, share)
        if not self.generator.pools_drugs and not self._from_means:
            error = data.variance.sqrt().expand_as(
                effect
            )  # the prior variance of names alone says nothing of the error
        # what the mechanism would give is no effect: 0 of a shift, and of a value that is set the mean left alone
        without = 0.0 if self.intervention.keeps_parents else moments.value - moments.residual
        return capped(probability, effect - without, error, least), effect, error

    @property
    def _from_means(self) -> bool:
        """Whether the graph was learned from means, with a prior variance of shifts."""
        return bool(self.slab.any())

    def _effect_data(self, conditions: MeasuredConditions, moments: Moments, least: Tensor | float) -> EffectData:
        """What the cells of measured conditions say of effects."""
        variance, scale = self.mechanism.variance, self.log_scale(conditions)
        best, _ = self.intervention.observed(moments)
        with_target, without = log_likelihoods(self.intervention, moments, best, conditions.n, variance, scale)
        sampling = variance / conditions.n
        negligible = negligible_gain(moments.residual, sampling, least)
        if isinstance(scale, Tensor):
            sampling = sampling * torch.exp(2 * scale)
        return EffectData(best, with_target - without, negligible, sampling)

    def _effect_prior(
        self, conditions: MeasuredConditions, variance: Tensor, features: FeatureEvidence | None
    ) -> EffectPrior:
        """What is known of the effects in measured conditions beforehand."""
        penalty, by_name = self.target_penalty, not self.generator.pools_drugs
        if by_name and self._from_means:
            # one gene is expected to be a target, and no gain counts that chance can bring about
            sampling = self.mechanism.variance / conditions.n
            occam = 0.5 * torch.log((self.slab + sampling) / sampling)
            penalty = (self.chance - occam).clamp(min=math.log(max(len(penalty) - 1, 2)))
            return EffectPrior(torch.zeros_like(occam), self.slab, penalty, None)
        if features is not None:
            return EffectPrior(features.psi, features.variance, penalty, None if by_name else features.log_odds)
        _, psi = self.generator(conditions.inputs)
        nothing = (-penalty - math.log(2)).expand_as(psi)
        return EffectPrior(psi, variance, penalty, None if by_name else nothing)
