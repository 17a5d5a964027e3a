from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.special import log_ndtr

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
    with_certain,
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
        Number of genes.
    generator
        An instance of a class in :data:`~scgim.module.GENERATORS`.
    mechanism, intervention
        Keys of :data:`~scgim.module.MECHANISMS` and :data:`~scgim.module.INTERVENTIONS`.
    scale_map
        Map from drug features to the scale of the noise of intervened-on genes; ``None``: interventions do not scale noise.
    target_penalty
        Negative log prior odds of a target in nats. The buffer :attr:`target_penalty` is ``(genes,)``, initially the same for all genes.
    generator_target_penalty
        Upper bound (nats) on the target penalty while the generator is trained. The feature map is already regularized, so the full
        penalty in every condition would stop weak conditions from contributing to it.
    min_effect
        Smallest effect of a target in a measured condition, in control SD, for :func:`negligible_gain` and :func:`capped`.
    """

    mechanism: LinearMechanism | NetworkMechanism
    # Annotations of buffers, because torch declares them as tensors or modules.
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
        # Share of misfit in the variance of the mean residuals of genes that are not targets; the rest is sampling variance.
        self.register_buffer("misfit", torch.zeros(n_genes, dtype=torch.float64))
        # Only for graphs learned from means: prior variance of shifts, and the largest gain that is expected by chance.
        self.register_buffer("slab", torch.zeros(n_genes, dtype=torch.float64))
        self.register_buffer("chance", torch.zeros(n_genes, dtype=torch.float64))

    @property
    def needs_own(self) -> bool:
        """Whether the likelihood needs every condition's own scatter, not only the pooled one."""
        return self.intervention.needs_own or self.scale_map is not None

    @property
    def generator_penalty(self) -> Tensor:
        """Target penalty while the generator is trained on frozen mechanisms, ``(genes,)``."""
        return (
            self.target_penalty.clamp(max=self.generator_target_penalty)
            if self.generator.pools_drugs
            else self.target_penalty
        )

    def drug_parameters(self) -> list[torch.nn.Parameter]:
        """All parameters except the parameters of the mechanisms."""
        return [p for name, p in self.named_parameters() if not name.startswith("mechanism.")]

    def log_scale(self, conditions: MeasuredConditions) -> Tensor | float:
        """Log of the noise scale of intervened-on genes, ``(conditions, genes)``; 0 without a scale map."""
        return 0.0 if self.scale_map is None else self.scale_map(conditions.inputs)

    def profile_log_likelihood_ratio(self, conditions: MeasuredConditions, moments: Moments) -> Tensor:
        """Log-likelihood gain of a target at its maximum-likelihood psi, with prior log odds, in nats; ``(conditions, genes)``."""
        best, _ = self.intervention.observed(moments)
        with_target, without = log_likelihoods(self.intervention, moments, best, conditions.n, self.mechanism.variance)
        return with_target - without + conditions.target_log_odds

    @torch.no_grad()
    def freeze(self, conditions: MeasuredConditions, moments: Moments) -> QuadraticEvidence | None:
        """The log-likelihood under frozen mechanisms, a parabola in psi; ``None`` with a scale map, because it is no parabola."""
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

        ``targets``, ``(conditions, genes)``, are known targets (bool) or probabilities of targets. ``target_penalty`` defaults to
        :attr:`target_penalty`.
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
        with_target = with_target + conditions.target_log_odds
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
        """Negative log-likelihood of the conditions' cells, and the penalty on the parameters of generator and scale map; nats.

        ``weight`` is the weight of every condition, ``(conditions, 1)``. ``target_penalty`` defaults to :attr:`target_penalty`. With
        :class:`QuadraticEvidence`, the log-likelihood without targets is omitted.
        """
        logits, psi = self.generator(conditions.inputs)
        penalty = self.generator.penalty(logits, psi)
        if self.scale_map is not None:
            penalty = penalty + self.scale_map.penalty()
        value = self._log_likelihood(conditions, moments, logits, psi, targets, target_penalty)
        return -(value if weight is None else weight * value).sum(), penalty

    def joint_loss(
        self,
        conditions: MeasuredConditions,
        moments: Moments,
        n_cells: Tensor | float,
        targets: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Negative log-likelihood of all ``n_cells`` training cells, and the generator's penalty; nats.

        ``weight`` is the weight of every condition, ``(conditions, 1)``: more than 1 in a minibatch of conditions.
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
        r"""Posterior of targets and effects in measured conditions, from their cells and from the features of their drugs.

        :func:`~scgim.module.posterior.target_log_odds` gives the log odds. A negligible effect belongs to the null hypothesis
        (:func:`negligible_gain`). A gene with an effect below :attr:`min_effect`, or below its standard error, has a probability of at
        most 0.5 (:func:`capped`). Prior log odds of the conditions are added to the log odds. The graph is assumed to be wrong with some probability if it was learned from means
        (:func:`graph_averaged`).

        Parameters
        ----------
        conditions, moments
            Measured conditions and their moments.
        prior_variance
            :math:`\tau^2` without ``features``, ``(genes,)`` or ``(conditions, genes)``.
        features
            Cross-fitted predictions from features. ``None``: no log odds from features, and :math:`\hat\psi` is the generator's.
        unit
            Unit of the conditions' values in pooled control SD, the unit of :attr:`min_effect`; ``(conditions, genes)``.

        Returns
        -------
        Probabilities of targets, and effects and their standard errors given that the gene is a target; ``(conditions, genes)`` each.
        Drugs that the generator does not know for want of features have the prior of drugs that are known by name alone.
        """
        by_name, known = not self.generator.pools_drugs, self.generator.knows(conditions.inputs)
        if known.all():
            return self._posterior(conditions, moments, prior_variance, features, unit, by_name=by_name)
        whole = tuple(torch.empty_like(moments.residual) for _ in range(3))
        prior_variance, unit = (torch.as_tensor(each).expand_as(moments.residual) for each in (prior_variance, unit))
        for rows, by_name in ((known, False), (~known, True)):
            shared = None if features is None or by_name else features.take(rows)
            own = conditions.take(rows), moments.take(rows), prior_variance[rows], shared, unit[rows]
            for each, part in zip(whole, self._posterior(*own, by_name=by_name), strict=True):
                each[rows] = part
        return whole

    def _posterior(
        self,
        conditions: MeasuredConditions,
        moments: Moments,
        prior_variance: Tensor,
        features: FeatureEvidence | None,
        unit: Tensor | float,
        *,
        by_name: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """:meth:`posterior` of drugs that are all known by their features or, with ``by_name``, by their names alone."""
        least = self.min_effect / unit
        data = self._effect_data(conditions, moments, least)
        prior = self._effect_prior(conditions, data.psi, prior_variance, features, by_name=by_name)
        log_odds, share = target_log_odds(prior, data, self.misfit)
        probability = torch.sigmoid(log_odds)
        if self._from_means:
            # With a graph without edges, the residual of a gene is its whole change.
            whole = moments._replace(residual=moments.value, within=moments.spread)
            moved, _ = target_log_odds(prior, self._effect_data(conditions, whole, least), self.misfit)
            probability = graph_averaged(probability, torch.sigmoid(moved))
        effect, error = effect_moments(prior, data, share)
        if by_name and not self._from_means:
            # Without features the prior variance is not estimated from other conditions, so the error is the sampling error alone.
            error = data.variance.sqrt().expand_as(effect)
        # An effect is measured from the value without intervention: 0 for a shift, the mechanism's prediction for a hard intervention.
        without = 0.0 if self.intervention.keeps_parents else moments.value - moments.residual
        probability = capped(probability, effect - without, error, least)
        return with_certain(probability, conditions.target_log_odds), effect, error

    @property
    def _from_means(self) -> bool:
        """Whether the graph was learned from means, with a prior variance of shifts."""
        return bool(self.slab.any())

    def _effect_data(self, conditions: MeasuredConditions, moments: Moments, least: Tensor | float) -> EffectData:
        """Estimates of effects from the cells of measured conditions."""
        variance, scale = self.mechanism.variance, self.log_scale(conditions)
        best, _ = self.intervention.observed(moments)
        with_target, without = log_likelihoods(self.intervention, moments, best, conditions.n, variance, scale)
        sampling = variance / conditions.n
        negligible = negligible_gain(moments.residual, sampling, least)
        if isinstance(scale, Tensor):
            sampling = sampling * torch.exp(2 * scale)
        # A prior with one sign of the effect has half the width of a symmetric prior, and twice the density.
        sign = torch.as_tensor(conditions.target_sign)
        agreement = torch.where(sign == 0, 0.0, math.log(2) + log_ndtr(sign * best / sampling.sqrt()))
        gain = with_target - without + conditions.target_log_odds + agreement
        return EffectData(best, gain, negligible, sampling)

    def _effect_prior(
        self,
        conditions: MeasuredConditions,
        observed: Tensor,
        variance: Tensor,
        features: FeatureEvidence | None,
        *,
        by_name: bool,
    ) -> EffectPrior:
        """Prior of the effects in measured conditions."""
        penalty = self.target_penalty
        if by_name and self._from_means:
            # The penalty is the largest gain expected by chance, less the Occam factor that the posterior subtracts. Its lower bound
            # corresponds to one expected target.
            sampling = self.mechanism.variance / conditions.n
            occam = 0.5 * torch.log((self.slab + sampling) / sampling)
            penalty = (self.chance - occam).clamp(min=math.log(max(len(penalty) - 1, 2)))
            return EffectPrior(torch.zeros_like(occam), self.slab, penalty, None)
        if features is not None:
            return EffectPrior(features.psi, features.variance, penalty, None if by_name else features.log_odds)
        # A map of features knows nothing of drugs without features. Their effects are expected to be as they are observed.
        psi = observed if by_name and self.generator.pools_drugs else self.generator(conditions.inputs)[1]
        nothing = (-penalty - math.log(2)).expand_as(psi)
        return EffectPrior(psi, variance, penalty, None if by_name else nothing)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        # a target penalty was a charge in older versions
        for name, old in {"target_penalty": "charge", "generator_target_penalty": "generator_charge"}.items():
            if prefix + old in state_dict:
                state_dict[prefix + name] = state_dict.pop(prefix + old)
        super()._load_from_state_dict(state_dict, prefix, *args)
