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
    evidence,
    graph_averaged,
    marginal_gain,
    marginal_log_likelihood,
    negligible_gain,
    noise_loss,
)
from .mechanisms import MECHANISMS

if TYPE_CHECKING:
    from ._moments import FeatureEvidence, MeasuredConditions, Moments
    from ._scale import NoiseScale
    from .generators import Generator


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
        touched, untouched = evidence(self.intervention, moments, best, conditions.n, self.mechanism.variance)
        return touched - untouched

    @torch.no_grad()
    def freeze(self, conditions: MeasuredConditions, moments: Moments) -> QuadraticEvidence | None:
        """The evidence once the mechanisms are frozen, cheap in every step; ``None`` if noise is scaled by what is learned."""
        if self.scale_map is not None:
            return None
        best, _ = self.intervention.observed(moments)
        return QuadraticEvidence(
            best, self.profile_log_likelihood_ratio(conditions, moments), conditions.n / (2 * self.mechanism.variance)
        )

    def evidence(
        self,
        conditions: MeasuredConditions,
        moments: Moments,
        targets: Tensor | None = None,
        target_penalty: Tensor | None = None,
    ) -> Tensor:
        """Log likelihood of the conditions' cells under the generator, ``(conditions, genes)``, exact over unknown targets.

        ``targets``, ``(conditions, genes)``, forces them (bool), or gives their probabilities; ``charge`` is :attr:`target_penalty` unless given.
        """
        return self._evidence(conditions, moments, *self.generator(conditions.inputs), targets, target_penalty)

    def _evidence(
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
            gain = moments.touched(psi)
            if targets is None:
                return marginal_gain(logits, gain, target_penalty)
            return complete_log_likelihood(logits, gain, 0.0, target_penalty, targets)
        variance, scale = self.mechanism.variance, self.log_scale(conditions)
        touched, untouched = evidence(self.intervention, moments, psi, conditions.n, variance, scale)
        if targets is None:
            return marginal_log_likelihood(logits, touched, untouched, target_penalty)
        return complete_log_likelihood(logits, touched, untouched, target_penalty, targets)

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
        found = self._evidence(conditions, moments, logits, psi, targets, target_penalty)
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
        r"""Targets of measured conditions: their own cells, and what features say by other drugs.

        A gene is a target as features say, with :math:`\psi_{kj} \sim N(\hat\psi_{kj}, \tau_{kj}^2)`, or in a way of the drug's own, with
        :math:`\psi` around what is seen. With the moments :math:`a, b` of :func:`evidence`,
        :math:`v = \sigma_j^2 e^{2s_{kj}} / n_{kj}`, the target penalty :math:`c_j` and the log odds :math:`\lambda_{kj}` that features
        are worth (:math:`-c_j - \log 2` where they say nothing),

        .. math:: \log\frac{p(I=1 \mid D)}{p(I=0 \mid D)} = S^1(\psi = a) - S^0 + \tfrac12\log\frac{v}{\tau^2 + v}
            + \log\Bigl(e^{\lambda_{kj} - (a - \hat\psi_{kj})^2 / 2(\tau^2 + v)} + \tfrac12 e^{-c_j}\Bigr)

        and :math:`E[\psi \mid D]` is :math:`(\tau^2 a + v\, \hat\psi_{kj}) / (\tau^2 + v)` in the first case and :math:`a` in the second.
        Both cases pay the whole penalty, which placebos set, unless features have shown on other conditions what they are worth.

        What features say of a gene that misfits need not be a target: it counts less by the gene's share of misfit. Effects too small to
        matter are part of the null hypothesis, see :func:`negligible_gain`, and no effect below :attr:`min_effect` or its own standard
        error is called, see :func:`capped`.

        A generator that knows drugs only by name has the first case only, and of means
        :math:`\psi_{kj} \sim N(0, s_j)`. A graph learned from means is not taken for certain, see :func:`graph_averaged`.

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
        Probabilities, psi, and its standard error, :math:`(1/\tau^2 + 1/v)^{-1/2}` and more where both cases are likely, all given that
        the gene is a target; ``(conditions, genes)`` each.
        """
        target_penalty = self.target_penalty
        alone, of_means = not self.generator.pools_drugs, bool(self.slab.any())
        if features is not None:
            _, log_odds, psi, prior_variance = features
        else:
            _, psi = self.generator(conditions.inputs)
            log_odds = (-target_penalty - math.log(2)).expand_as(psi)
        if alone and of_means:
            psi, prior_variance = torch.zeros_like(psi), self.slab
        scale = self.log_scale(conditions)
        v = self.mechanism.variance / conditions.n
        if isinstance(scale, Tensor):
            v = v * torch.exp(2 * scale)
        total = prior_variance + v
        occam = 0.5 * torch.log(total / v)
        if alone and of_means:  # one gene is expected to be touched, and no gain counts that chance can bring about
            target_penalty = (self.chance - occam).clamp(min=math.log(max(len(target_penalty) - 1, 2)))

        def touched(moments: Moments) -> tuple[Tensor, Tensor, Tensor]:
            """Probabilities, the best psi, and which share of the odds the features' psi has."""
            best, _ = self.intervention.observed(moments)
            with_it, without = evidence(self.intervention, moments, best, conditions.n, self.mechanism.variance, scale)
            gain, gap = with_it - without - occam, (best - psi) ** 2 / (2 * total)
            gain = gain - negligible_gain(
                moments.residual, self.mechanism.variance / conditions.n, self.min_effect / unit
            )
            if alone:
                return torch.sigmoid(gain - gap - target_penalty), best, torch.ones_like(gain)
            own = (-target_penalty - math.log(2)).expand_as(log_odds)
            # what features tell of a gene that misfits need not be a target
            told = log_odds - self.misfit * (log_odds - own).clamp(min=0) - gap
            return torch.sigmoid(gain + torch.logaddexp(told, own)), best, torch.sigmoid(told - own)

        probability, best, told = touched(moments)
        if of_means:
            moved, *_ = touched(moments._replace(residual=moments.value, within=moments.spread))
            probability = graph_averaged(probability, moved)
        drawn = v * (best - psi) / total  # towards what the features say
        # what features do not tell of is seen with the error of the condition's own data
        spread = told * prior_variance * v / total + (1 - told) * v + told * (1 - told) * drawn**2
        error = (v if alone and not of_means else spread).sqrt().expand_as(best)
        effect = best - told * drawn
        # what the mechanism would give is no effect: 0 of a shift, and of a value that is set the mean left alone
        alone = 0.0 if self.intervention.keeps_parents else moments.value - moments.residual
        return capped(probability, effect - alone, error, self.min_effect / unit), effect, error
