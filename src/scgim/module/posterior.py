"""Posterior of targets and effects in measured conditions, from their cells and from the features of their drugs."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class EffectPrior(NamedTuple):
    """Prior of the effects in measured conditions; ``(conditions, genes)`` or ``(genes,)`` each."""

    psi: Tensor  # expected effect of a target
    variance: Tensor  # variance of effects around psi
    penalty: Tensor  # target penalty in nats
    log_odds: (
        Tensor | None
    )  # log odds of a target with the effect expected from features; None: drugs known by name alone


class EffectData(NamedTuple):
    """Estimates of effects from the cells of measured conditions, ``(conditions, genes)`` each."""

    psi: Tensor  # maximum-likelihood effect
    gain: Tensor  # log-likelihood with a target of effect psi, less the log-likelihood without a target
    negligible: Tensor  # log-likelihood gain of the best negligible effect
    variance: Tensor  # sampling variance of psi


def target_log_odds(prior: EffectPrior, data: EffectData, misfit: Tensor) -> tuple[Tensor, Tensor]:
    r"""Posterior log odds that a gene is a target, and the share of the feature component in these odds.

    The observed effect :math:`a` has sampling variance :math:`v`. :math:`G` is the gain :math:`S^1(\psi = a) - S^0` less the gain of a
    negligible effect. With the prior :math:`N(\hat\psi, \tau^2)` of effects, the log odds :math:`\lambda` from features and the target
    penalty :math:`c`,

    .. math:: \log\frac{p(I=1 \mid D)}{p(I=0 \mid D)} = G + \tfrac12\log\frac{v}{\tau^2 + v}
        + \log\Bigl(e^{\lambda - (a - \hat\psi)^2 / 2(\tau^2 + v)} + \tfrac12 e^{-c}\Bigr).

    The first term of the bracket is a target with the effect expected from features. The second term is a target with an effect
    peculiar to the drug, with a flat prior. Where drugs are known by name alone, the bracket is
    :math:`e^{-c - (a - \hat\psi)^2 / 2(\tau^2 + v)}`.

    Parameters
    ----------
    prior, data
        Prior of the effects and their estimates from the cells.
    misfit
        Share of misfit in the noise of every gene, ``(genes,)``. It shrinks :math:`\lambda`, because features can predict the misfit of
        a gene that is not a target.
    """
    # Integrating the effect over its prior replaces the likelihood at a by its average: the ratio of the SDs is the Occam factor.
    total = prior.variance + data.variance
    gain = data.gain - 0.5 * torch.log(total / data.variance) - data.negligible
    gap = (data.psi - prior.psi) ** 2 / (2 * total)
    if prior.log_odds is None:
        return gain - gap - prior.penalty, torch.ones_like(gain)
    # The component of effects peculiar to the drug has half of the prior odds exp(-c). It bounds the log odds from below, so that
    # features without reliability cannot hide a strong effect in the cells.
    own = (-prior.penalty - math.log(2)).expand_as(prior.log_odds)
    by_features = prior.log_odds - misfit * (prior.log_odds - own).clamp(min=0) - gap
    return gain + torch.logaddexp(by_features, own), torch.sigmoid(by_features - own)


def effect_moments(prior: EffectPrior, data: EffectData, share: Tensor) -> tuple[Tensor, Tensor]:
    r"""Posterior mean and SD of a target's effect, ``(conditions, genes)`` each.

    The posterior is a mixture. With probability ``share`` the effect comes from the feature component: mean
    :math:`(\tau^2 a + v \hat\psi) / (\tau^2 + v)` and variance :math:`\tau^2 v / (\tau^2 + v)`. Otherwise it is peculiar to the drug: mean
    :math:`a` and variance :math:`v`. The variance of the mixture includes the distance between the two means.
    """
    total = prior.variance + data.variance
    shrinkage = data.variance * (data.psi - prior.psi) / total
    within = share * prior.variance * data.variance / total + (1 - share) * data.variance
    variance = within + share * (1 - share) * shrinkage**2
    return data.psi - share * shrinkage, variance.sqrt().expand_as(data.psi)
