"""The exact mixture likelihood over unknown intervention targets."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

if TYPE_CHECKING:
    from ._moments import Moments
    from .interventions import Hard, Shift

DOUBT = 0.15  # that a graph learned from means says nothing of a condition; calibrates targets on simulated counts
SPIKE = 10.0  # standard deviations of negligible effects that the least effect is away from 0
CLEAR_MARGIN = 1.0  # nats beyond the penalty that make a target clear
MIN_EFFECT = 0.2  # control sd that a target moves at least; chosen on measured and simulated screens
_LINEAR = 40.0  # beyond it log(1 + e^x) is x in double precision


def marginal_log_likelihood(
    logits: Tensor, with_target: Tensor, without: Tensor, target_penalty: Tensor | float
) -> Tensor:
    r"""Log-likelihood of every gene in every condition, the unknown target summed out.

    The indicators :math:`I_{kj}` are independent given the drug's features, and each changes only the conditional of
    its own gene. The sum over all :math:`2^d` intervention sets therefore factorises and is exact:

    .. math:: \log \sum_I p(I)\, p(D_k \mid I)\, e^{-c|I|}
        = \sum_j \log\left(e^{\log\sigma(\ell_{kj}) + S^1_{kj} - c} + e^{\log\sigma(-\ell_{kj}) + S^0_{kj}}\right)

    Parameters
    ----------
    logits
        :math:`\ell_{kj}`, ``(conditions, genes)``.
    with_target, without
        :math:`S^1` and :math:`S^0`, log-likelihoods of the condition's cells if the gene is a target and if it is none;
        ``(conditions, genes)``.
    target_penalty
        :math:`c`, nats for every target: the negative log prior odds.

    Examples
    --------
    >>> import torch
    >>> even = marginal_log_likelihood(torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(1, 1), 0.0)
    >>> bool(even.abs() < 1e-6)
    True
    """
    return without + marginal_gain(logits, with_target - without, target_penalty)


def marginal_gain(logits: Tensor, gain: Tensor, target_penalty: Tensor | float) -> Tensor:
    r"""By how much :func:`marginal_log_likelihood` exceeds the log-likelihood without a target, ``(conditions, genes)``.

    With :math:`G = S^1 - S^0` as ``gain``, :math:`\log(1 + e^{\ell + G - c}) - \log(1 + e^\ell)`.
    """
    target = softplus(logits + (gain - target_penalty), threshold=_LINEAR)
    return target - softplus(logits, threshold=_LINEAR)


def complete_log_likelihood(
    logits: Tensor, with_target: Tensor, without: Tensor | float, target_penalty: Tensor | float, targets: Tensor
) -> Tensor:
    """As :func:`marginal_log_likelihood` with the targets known: what teacher forcing and the M step of EM maximize.

    ``targets``, ``(conditions, genes)``, are bool, or probabilities, for which it is the expectation.
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
    r"""Log-likelihoods of a condition's cells if a gene is a target, and if it is none, up to what both share.

    Gaussian noise sees cells through a mean and a variance alone. With the residual's, :math:`r_{kj}` and :math:`w_{kj}`,
    and those of what the intervention leaves over, :math:`a_{kj}` and :math:`b_{kj}` (the residual's for a shift, the
    gene's own for a hard intervention),

    .. math:: S^0 = -n_k \frac{r_{kj}^2 + w_{kj}}{2\sigma_j^2}, \qquad
        S^1 = -n_k \left(\frac{(a_{kj} - \psi_{kj})^2 + b_{kj}}{2\sigma_j^2 e^{2 s_{kj}}} + s_{kj}\right)

    Parameters
    ----------
    intervention
        One of :data:`~scgim.module.INTERVENTIONS`.
    moments
        Of the conditions.
    psi
        ``(conditions, genes)``.
    n
        Cells per condition, ``(conditions, 1)``.
    variance
        :math:`\sigma_j^2`, ``(genes,)``.
    log_scale
        :math:`s_{kj}`, the log of what a target's noise is multiplied by.

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
    """The log-likelihood of conditions whose mechanisms no longer move: a parabola in psi.

    The log-likelihood without targets is left out, because it does not depend on drugs.
    """

    best: Tensor  # (conditions, genes) the psi that fits best
    gain: Tensor  # (conditions, genes) nats by which a target with that psi explains the condition better
    precision: Tensor  # (conditions, genes)

    def gain_of(self, psi: Tensor) -> Tensor:
        """Nats by which a target with effect ``psi`` explains the condition better than no target, ``(conditions, genes)``."""
        return self.gain - self.precision * (self.best - psi) ** 2


def graph_averaged(probability: Tensor, moved: Tensor, doubt: float = DOUBT) -> Tensor:
    r"""Probabilities of targets if the graph that they rest on may be wrong.

    With probability :math:`\delta` the graph says nothing. Then any gene that moved may be the target, as many in all as the graph leaves:

    .. math:: (1 - \delta)\, p_{kj} + \delta\, m_{kj} \min\left(1, \frac{\sum_i p_{ki}}{\sum_i m_{ki}}\right)

    Parameters
    ----------
    probability, moved
        Probabilities of targets given the graph, :math:`p`, and without any, :math:`m`; ``(conditions, genes)``.
    doubt
        :math:`\delta`.
    """
    share = probability.sum(1, keepdim=True) / moved.sum(1, keepdim=True).clamp(min=1e-9)
    return (1 - doubt) * probability + doubt * moved * share.clamp(max=1.0)


def negligible_gain(residual: Tensor, variance: Tensor, least: Tensor | float) -> Tensor:
    r"""By how many nats an effect too small to matter explains a mean residual better than no effect, ``(conditions, genes)``.

    .. math:: \max_{0 \le \nu \le \delta / 10} \log\frac{N(r_{kj}; 0, v_{kj} + \nu^2)}{N(r_{kj}; 0, v_{kj})}

    Subtracted from the gain of a target, it makes effects :math:`\psi \sim N(0, \nu^2)` part of the null hypothesis, the continuous
    spike of George & McCulloch (1993): a small effect is no target, however many cells show it, and where the standard error is as large
    as :math:`\delta` next to nothing changes.

    Parameters
    ----------
    residual, variance
        Mean residual of every condition and its sampling variance, ``(conditions, genes)``.
    least
        :math:`\delta`, the least effect that matters.

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
    """Probabilities of targets, at most one half for an effect smaller than what matters or than its own standard error.

    Parameters
    ----------
    probability
        ``(conditions, genes)``.
    effect, error
        Posterior mean and standard deviation, ``(conditions, genes)``.
    least
        The least effect that matters.
    """
    small = effect.abs() < torch.clamp(error, min=least)
    return torch.where(small, probability.clamp(max=0.5), probability)


def noise_loss(pooled: Tensor, variance: Tensor, n_cells: Tensor | float) -> Tensor:
    r"""Minus log likelihood that no unknown target enters, ``(genes,)``: :math:`\tfrac N2 \log 2\pi\sigma_j^2 + R_j / 2\sigma_j^2`.

    ``pooled`` is :math:`R_j`, the residual sum of squares of the controls, and of all cells around their condition's mean
    where no intervention changes that.
    """
    return 0.5 * n_cells * torch.log(2 * math.pi * variance) + pooled / (2 * variance)
