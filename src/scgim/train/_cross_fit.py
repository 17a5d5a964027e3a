"""Cross-fitting: predictions of measured conditions by generators trained on other conditions, and their reliability."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch

from scgim.module import FeatureEvidence

from ._folds import Folds, ObservedEffects, answers, equal_drugs

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from scgim.module import TreatmentInputs
    from scgim.module.generators import Generator

FOLDS = 4
MIN_DRUGS = 8  # fewer distinct drugs are too few for folds
LARGEST = 8.0  # largest deviation of a logit from its gene's mean, in nats
SURE = 2.0  # number of standard errors subtracted from the slope
LEAST_VARIANCE = 0.01  # least variance of effects around the predicted psi, in control variances
FEW = 3.0  # a gene with fewer targets takes the pooled variance
_ROUNDS = 40  # of EM


class Reliability(NamedTuple):
    r"""Reliability of held-out logits.

    ``slope`` is :math:`\beta`. ``trust`` is the share of :math:`\beta` that remains after the subtraction of two standard errors.
    ``log_ratio`` is the log-likelihood ratio :math:`\log\Lambda_{kj}`, ``(conditions, genes)``.
    """

    slope: float
    trust: float
    log_ratio: Tensor


def cross_fit(
    name: str,
    build: Callable[[], Generator],
    inputs: TreatmentInputs,
    observed_effects: ObservedEffects,
    sure: ObservedEffects,
    penalty: Tensor,
    learning_penalty: Tensor,
    seed: int,
    share: float = 1.0,
) -> FeatureEvidence | None:
    r"""Predict every measured condition from a generator trained without the condition.

    A generator that was trained on a condition reproduces its data. As a prior of the same condition it would count the data twice.
    Other doses and lines of the drug stay in the training set. A drug with a single condition is held out together with all drugs of
    equal features. ``psi`` is the prediction of the fold without the condition. ``variance`` is the variance of observed shifts around it,

    .. math:: \tau_j^2 = \frac{\sum_k p_{kj} \bigl((r_{kj} - \psi_{kj})^2 - \sigma_j^2 / n_{kj}\bigr)}{\sum_k p_{kj}},

    with the observed shifts :math:`r_{kj}`, their probabilities :math:`p_{kj}`, the noise variance :math:`\sigma_j^2` and the effective cells
    :math:`n_{kj}`. ``log_odds`` is the log-likelihood ratio of :func:`reliability` less a penalty. The penalty lies between the
    negative log odds of one target among all genes, for a reliable slope, and the full target penalty, for an unreliable slope.

    Parameters
    ----------
    name, build
        Key of the generator in :data:`~scgim.module.GENERATORS`, and a function that returns a new generator.
    inputs
        Inputs of the training conditions.
    observed_effects, sure
        Observed effects for the training of the generator, and for the probabilities of targets. The second count misfit of the graph
        as noise.
    penalty, learning_penalty
        Target penalty in nats, and target penalty while a generator is trained by gradient, ``(genes,)`` each.
    seed
        Seed of the folds.
    share
        Share of the gradient steps, for a shortened training.

    Returns
    -------
    The predictions. ``None`` if fewer than eight drugs differ in their features, or if the generator knows drugs only by name.
    """
    generator = build()
    groups = len(torch.unique(equal_drugs(inputs)))
    if not generator.pools_drugs or groups < MIN_DRUGS:
        return None
    used_penalty = learning_penalty if generator.by_gradient else penalty
    folds = Folds.of_conditions(inputs, FOLDS, seed)
    logits, psi = (
        each[0] for each in answers(name, generator, inputs, observed_effects, folds, used_penalty, share=share)
    )
    noise = sure.variance / sure.n
    certain = torch.sigmoid(sure.gain - penalty)
    excess, targets = (certain * ((sure.observed - psi) ** 2 - noise)).sum(0), certain.sum(0)
    pooled = excess.sum() / targets.sum().clamp(min=1.0)
    variance = torch.where(targets >= FEW, excess / targets.clamp(min=FEW), pooled).clamp(min=LEAST_VARIANCE)
    total = variance + noise
    # Log odds of a target by the condition's cells alone. The effect is an equal mixture of an effect around the predicted psi and an
    # effect peculiar to the drug, as in the posterior.
    gap = (sure.observed - psi) ** 2 / (2 * total)
    odds = sure.gain - 0.5 * torch.log(total / noise) + torch.log(0.5 * torch.exp(-gap) + 0.5)
    found = reliability(logits, odds, inputs.drug)
    # Reliable features replace the penalty from placebos by the odds of one target per condition. With unreliable features, each
    # of the two components of the posterior has half of the prior odds of a target, hence log 2.
    chance = penalty.clamp(max=math.log(max(len(penalty) - 1, 2)))
    cost = found.trust * chance + (1 - found.trust) * (penalty + math.log(2))
    return FeatureEvidence(torch.sigmoid(logits), found.log_ratio - cost, psi, variance)


def reliability(logits: Tensor, odds: Tensor, drug: Tensor) -> Reliability:
    r"""Likelihood ratio of a target given its held-out logit, calibrated on all conditions.

    Let :math:`x_{kj}` be the logit less the mean of gene :math:`j` over conditions. The mean is subtracted because it describes how many
    drugs target the gene, and not whether this drug does. Let :math:`M_{kj}` be the log odds of a target by the condition's cells. EM
    finds the intercepts :math:`\alpha_j` and the slope :math:`\beta`,

    .. math:: \max_{\alpha, \beta} \sum_{kj} \log\bigl(1 + q_{kj} (e^{M_{kj}} - 1)\bigr), \qquad q_{kj} = \sigma(\alpha_j + \beta x_{kj}).

    The standard error of :math:`\beta` is clustered by drugs. Two standard errors are subtracted from :math:`\beta`, down to 0. The
    likelihood ratio has mean 1 over genes that are not targets, and it is 1 for features without information:

    .. math:: \Lambda_{kj} = e^{\beta x_{kj}} \frac{\sum_k (1 - q_{kj})}{\sum_k (1 - q_{kj}) e^{\beta x_{kj}}}.

    Parameters
    ----------
    logits, odds
        Held-out logits, and :math:`M_{kj}`, ``(conditions, genes)`` each.
    drug
        Index of the drug of every condition, ``(conditions,)``.
    """
    x = (logits - logits.mean(0)).clamp(-LARGEST, LARGEST)
    if not bool((x.abs() > 1e-9).any()):
        return Reliability(0.0, 0.0, torch.zeros_like(x))
    alpha, beta = torch.full((1, x.shape[1]), -3.0, dtype=x.dtype), 0.0
    for _ in range(_ROUNDS):
        prior = torch.sigmoid(alpha + beta * x)
        target = torch.sigmoid(alpha + beta * x + odds)
        weight = prior * (1 - prior)
        # A twentieth of a pseudo-condition keeps the intercept of a gene without targets finite.
        alpha = alpha + ((target - prior).sum(0) + 0.05 - torch.sigmoid(alpha)) / (weight.sum(0) + 0.05)
        alpha = alpha.clamp(-12.0, 3.0)
        prior = torch.sigmoid(alpha + beta * x)
        step = ((target - prior) * x).sum() / ((prior * (1 - prior) * x**2).sum() + 1.0)
        beta = float((beta + step).clamp(-2.0, 2.0))
    prior, target = torch.sigmoid(alpha + beta * x), torch.sigmoid(alpha + beta * x + odds)
    # The observed information is the complete-data information less the information lost because targets are unknown (Louis 1982).
    information = (((prior * (1 - prior) - target * (1 - target)) * x**2).sum()).clamp(min=1.0)
    score = torch.zeros(int(drug.max()) + 1, dtype=x.dtype).index_add(0, drug, ((target - prior) * x).sum(1))
    error = float(score.square().sum().sqrt() / information)
    trust = max(1 - SURE * error / beta, 0.0) if beta > 0 else 0.0
    none, tilt = 1 - prior, torch.exp(trust * beta * x)
    return Reliability(beta, trust, trust * beta * x - torch.log((none * tilt).sum(0) / none.sum(0)))
