"""Which genes are targets of a measured condition: its own cells, and what features say of it by other conditions."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class EffectPrior(NamedTuple):
    """What is known of the effects in measured conditions before their own data; ``(conditions, genes)`` or ``(genes,)`` each."""

    psi: Tensor  # the effect that is expected of a target
    variance: Tensor  # of effects around psi
    penalty: Tensor  # nats that a target costs
    log_odds: Tensor | None  # of a target whose effect is as features say; None: every effect has the one prior above


class EffectData(NamedTuple):
    """What the cells of measured conditions say of effects, ``(conditions, genes)`` each."""

    psi: Tensor  # the effect that fits best
    gain: Tensor  # nats by which a target with that effect explains the condition better than no target
    negligible: Tensor  # nats by which an effect too small to matter does
    variance: Tensor  # sampling variance of psi


def target_log_odds(prior: EffectPrior, data: EffectData, misfit: Tensor) -> tuple[Tensor, Tensor]:
    r"""Log odds of every gene to be a target given the cells, and the share in them of the effect that features expect.

    With the observed effect :math:`a`, its sampling variance :math:`v`, the gain :math:`G = S^1(\psi = a) - S^0` less that of a negligible
    effect, the prior :math:`N(\hat\psi, \tau^2)`, the log odds :math:`\lambda` of features and the target penalty :math:`c`,

    .. math:: \log\frac{p(I=1 \mid D)}{p(I=0 \mid D)} = G + \tfrac12\log\frac{v}{\tau^2 + v}
        + \log\Bigl(e^{\lambda - (a - \hat\psi)^2 / 2(\tau^2 + v)} + \tfrac12 e^{-c}\Bigr).

    The first term of the bracket is a target as features say. The second is an effect of the drug's own, about which features say
    nothing. Where drugs are known by name alone, the bracket is :math:`e^{-c - (a - \hat\psi)^2 / 2(\tau^2 + v)}`.

    Parameters
    ----------
    prior, data
        What is known before and by the cells.
    misfit
        Share of misfit in the noise of every gene, ``(genes,)``, by which :math:`\lambda` counts less: features may predict the misfit of
        a gene that is no target.
    """
    total = prior.variance + data.variance
    gain = data.gain - 0.5 * torch.log(total / data.variance) - data.negligible
    gap = (data.psi - prior.psi) ** 2 / (2 * total)
    if prior.log_odds is None:
        return gain - gap - prior.penalty, torch.ones_like(gain)
    own = (-prior.penalty - math.log(2)).expand_as(prior.log_odds)
    by_features = prior.log_odds - misfit * (prior.log_odds - own).clamp(min=0) - gap
    return gain + torch.logaddexp(by_features, own), torch.sigmoid(by_features - own)


def effect_moments(prior: EffectPrior, data: EffectData, share: Tensor) -> tuple[Tensor, Tensor]:
    r"""Posterior mean and standard deviation of a target's effect, ``(conditions, genes)`` each.

    Of the effect that features expect, with probability ``share``: :math:`(\tau^2 a + v \hat\psi) / (\tau^2 + v)` with variance
    :math:`\tau^2 v / (\tau^2 + v)`. Otherwise of the drug's own effect: :math:`a` with variance :math:`v`. The variance of the mixture
    contains the distance between both means.
    """
    total = prior.variance + data.variance
    shrinkage = data.variance * (data.psi - prior.psi) / total
    within = share * prior.variance * data.variance / total + (1 - share) * data.variance
    variance = within + share * (1 - share) * shrinkage**2
    return data.psi - share * shrinkage, variance.sqrt().expand_as(data.psi)
