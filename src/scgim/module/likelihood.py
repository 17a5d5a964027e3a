"""The exact mixture likelihood over unknown intervention targets."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from ._moments import CERTAIN

if TYPE_CHECKING:
    from ._moments import Moments
    from .interventions import Hard, Shift

DOUBT = (
    0.15  # probability that a graph learned from means is wrong for a condition; calibrates targets on simulated counts
)
SPIKE = 10.0  # smallest relevant effect in SDs of negligible effects
CLEAR_MARGIN = 1.0  # a target is clear if its gain exceeds the target penalty by this number of nats
MIN_EFFECT = 0.2  # smallest effect of a target in control SD; chosen on measured and simulated screens
_LINEAR = 40.0  # log(1 + e^x) equals x in double precision beyond this x


def marginal_log_likelihood(
    logits: Tensor, with_target: Tensor, without: Tensor, target_penalty: Tensor | float
) -> Tensor:
    r"""Log-likelihood of every gene in every condition, marginal over the unknown targets.

    The indicators :math:`I_{kj}` are independent given the drug's features, and each indicator changes only the conditional
    distribution of its own gene. The sum over all :math:`2^d` sets of targets :math:`I` therefore factorizes and is exact:

    .. math:: \log \sum_I p(I)\, p(D_k \mid I)\, e^{-c|I|}
        = \sum_j \log\left(e^{\log\sigma(\ell_{kj}) + S^1_{kj} - c} + e^{\log\sigma(-\ell_{kj}) + S^0_{kj}}\right)

    Parameters
    ----------
    logits
        :math:`\ell_{kj}`, ``(conditions, genes)``.
    with_target, without
        :math:`S^1` and :math:`S^0`, log-likelihoods of the condition's cells with and without the gene as a target;
        ``(conditions, genes)``.
    target_penalty
        :math:`c`, the negative log prior odds of a target, in nats.

    Examples
    --------
    >>> import torch
    >>> even = marginal_log_likelihood(torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(1, 1), 0.0)
    >>> bool(even.abs() < 1e-6)
    True
    """
    return without + marginal_gain(logits, with_target - without, target_penalty)


def marginal_gain(logits: Tensor, gain: Tensor, target_penalty: Tensor | float) -> Tensor:
    r"""Marginal log-likelihood less the log-likelihood without a target, ``(conditions, genes)``.

    It is :math:`\log(1 + e^{\ell + G - c}) - \log(1 + e^\ell)`, where ``gain`` is :math:`G = S^1 - S^0`.
    """
    target = softplus(logits + (gain - target_penalty), threshold=_LINEAR)
    return target - softplus(logits, threshold=_LINEAR)


def complete_log_likelihood(
    logits: Tensor, with_target: Tensor, without: Tensor | float, target_penalty: Tensor | float, targets: Tensor
) -> Tensor:
    """Log-likelihood with known targets: the objective of teacher forcing and of the M step of EM.

    ``targets``, ``(conditions, genes)``, are bool or probabilities. For probabilities the result is the expectation.
    """
    targets, yes = targets.to(logits.dtype), logsigmoid(logits)
    return targets * (yes + with_target - target_penalty) + (1 - targets) * (yes - logits + without)


def log_likelihoods(
    intervention: type[Shift] | type[Hard],
    moments: Moments,
    psi: Tensor,
    n: Tensor,
    variance: Tensor,
    log_scale: Tensor | float = 0.0,
) -> tuple[Tensor, Tensor]:
    r"""Log-likelihoods of a condition's cells with and without the gene as a target, up to a common constant.

    For Gaussian noise, a mean and a variance are sufficient. The residual of gene :math:`j` in condition :math:`k` has mean
    :math:`r_{kj}` and variance :math:`w_{kj}`. An intervention is observed through the mean :math:`a_{kj}` and the variance
    :math:`b_{kj}`: of the residual for a shift, of the gene's value for a hard intervention. Then

    .. math:: S^0 = -n_k \frac{r_{kj}^2 + w_{kj}}{2\sigma_j^2}, \qquad
        S^1 = -n_k \left(\frac{(a_{kj} - \psi_{kj})^2 + b_{kj}}{2\sigma_j^2 e^{2 s_{kj}}} + s_{kj}\right)

    Parameters
    ----------
    intervention
        One of :data:`~scgim.module.INTERVENTIONS`.
    moments
        Moments of the conditions.
    psi
        :math:`\psi_{kj}`, ``(conditions, genes)``.
    n
        :math:`n_k`, cells per condition, ``(conditions, 1)``.
    variance
        :math:`\sigma_j^2`, noise variance, ``(genes,)``.
    log_scale
        :math:`s_{kj}`, the log of the factor by which an intervention scales the noise of its target.

    Returns
    -------
    :math:`S^1` and :math:`S^0`, ``(conditions, genes)`` each.
    """
    center, deviation = intervention.observed(moments)
    without = -n * (moments.residual**2 + moments.within) / (2 * variance)
    if not isinstance(log_scale, Tensor):
        return -n * ((center - psi) ** 2 + deviation) / (2 * variance), without
    scaled = variance * torch.exp(2 * log_scale)
    return -n * (((center - psi) ** 2 + deviation) / (2 * scaled) + log_scale), without


class QuadraticEvidence(NamedTuple):
    """The log-likelihood of conditions under fixed mechanisms: a parabola in psi.

    The log-likelihood without targets is omitted, because it does not depend on the generator.
    """

    best: Tensor  # (conditions, genes) maximum-likelihood psi
    gain: Tensor  # (conditions, genes) log-likelihood gain of a target at that psi
    precision: Tensor  # (conditions, genes) curvature: half the inverse sampling variance of psi

    def gain_of(self, psi: Tensor) -> Tensor:
        """Log-likelihood gain of a target with effect ``psi`` over no target, in nats; ``(conditions, genes)``."""
        return self.gain - self.precision * (self.best - psi) ** 2


def graph_averaged(probability: Tensor, moved: Tensor, doubt: float = DOUBT) -> Tensor:
    r"""Probabilities of targets, averaged over the possibility that the graph is wrong.

    The graph is wrong with probability :math:`\delta`. In this case every changed gene may be a target. The expected number of
    targets does not exceed the number given the graph:

    .. math:: (1 - \delta)\, p_{kj} + \delta\, m_{kj} \min\left(1, \frac{\sum_i p_{ki}}{\sum_i m_{ki}}\right)

    Parameters
    ----------
    probability, moved
        Probabilities of targets given the graph, :math:`p`, and given a graph without edges, :math:`m`; ``(conditions, genes)``.
    doubt
        :math:`\delta`, the probability that the graph is wrong.
    """
    share = probability.sum(1, keepdim=True) / moved.sum(1, keepdim=True).clamp(min=1e-9)
    return (1 - doubt) * probability + doubt * moved * share.clamp(max=1.0)


def negligible_gain(residual: Tensor, variance: Tensor, least: Tensor | float) -> Tensor:
    r"""Log-likelihood gain of a negligible effect over no effect, in nats; ``(conditions, genes)``.

    .. math:: \max_{0 \le \nu \le \delta / 10} \log\frac{N(r_{kj}; 0, v_{kj} + \nu^2)}{N(r_{kj}; 0, v_{kj})}

    Its subtraction from the gain of a target makes effects :math:`\psi \sim N(0, \nu^2)` part of the null hypothesis, the continuous
    spike of George & McCulloch (1993). A small effect is then not a target, whatever the number of cells. The subtraction is close
    to 0 where the standard error is as large as :math:`\delta`.

    Parameters
    ----------
    residual, variance
        :math:`r_{kj}` and :math:`v_{kj}`, mean residual of every condition and its sampling variance, ``(conditions, genes)``.
    least
        :math:`\delta`, the smallest relevant effect.

    Examples
    --------
    >>> import torch
    >>> negligible_gain(torch.tensor([0.0, 0.05]), torch.tensor(1e-4), 0.2).round().tolist()
    [0.0, 9.0]
    """
    square = residual**2
    best = torch.minimum(torch.maximum(square, variance), variance + (least / SPIKE) ** 2)
    return 0.5 * (square / variance - square / best - torch.log(best / variance))


def capped(probability: Tensor, effect: Tensor, error: Tensor, least: Tensor | float) -> Tensor:
    """Probabilities of targets, at most 0.5 for an effect below the smallest relevant effect or below its standard error.

    Parameters
    ----------
    probability
        Probabilities of targets, ``(conditions, genes)``.
    effect, error
        Posterior mean and SD of the effect, ``(conditions, genes)``.
    least
        The smallest relevant effect.
    """
    small = effect.abs() < torch.clamp(error, min=least)
    return torch.where(small, probability.clamp(max=0.5), probability)


def with_certain(probability: Tensor, log_odds: Tensor | float) -> Tensor:
    """Probabilities of targets, 1 for known and 0 for excluded targets: genes with prior log odds of at least :data:`CERTAIN`."""
    if not isinstance(log_odds, Tensor):
        return probability
    return torch.where(log_odds.abs() >= CERTAIN, (log_odds > 0).to(probability), probability)


def noise_loss(pooled: Tensor, variance: Tensor, n_cells: Tensor | float) -> Tensor:
    r"""The part of the negative log-likelihood without unknown targets, :math:`\tfrac N2 \log 2\pi\sigma_j^2 + R_j / 2\sigma_j^2`.

    ``pooled`` is :math:`R_j`, the residual sum of squares of the controls. For shifts it includes the residual sum of squares of all
    cells around their condition's mean, because a shift does not change it. ``n_cells`` is :math:`N`. Shape ``(genes,)``.
    """
    return 0.5 * n_cells * torch.log(2 * math.pi * variance) + pooled / (2 * variance)
