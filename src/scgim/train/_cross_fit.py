"""What a generator says of the measured conditions: learned from others, and believed as far as they bear it out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch

from scgim.module import FeatureEvidence

from ._folds import Evidence, Folds, answers, equal_drugs

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from scgim.module import TreatmentInputs
    from scgim.module.generators import Generator

FOLDS = 4
MIN_DRUGS = 8  # with fewer, folds say nothing
LARGEST = 8.0  # nats by which a logit may differ from its gene's others
SURE = 2.0  # standard errors that the slope has to be above 0
LEAST_VARIANCE = 0.01  # of psi around what features say, in control variances
FEW = 3.0  # targets, whose spread says little
_ROUNDS = 40


class Reliability(NamedTuple):
    r"""What held-out logits are worth.

    ``slope`` is :math:`\beta`, ``trust`` the share of it that is left two standard errors lower, ``log_ratio``
    :math:`\log\Lambda_{kj}`, ``(conditions, genes)``.
    """

    slope: float
    trust: float
    log_ratio: Tensor


def cross_fit(
    name: str,
    build: Callable[[], Generator],
    inputs: TreatmentInputs,
    evidence: Evidence,
    sure: Evidence,
    penalty: Tensor,
    learning_penalty: Tensor,
    seed: int,
    share: float = 1.0,
) -> FeatureEvidence | None:
    r"""What a generator says of every measured condition when the condition is held out.

    A generator that was trained on a condition repeats what the condition showed; taken for a prior, it would count the same
    data twice. It may know other doses and lines of the drug; a drug with one condition is held out together with all drugs of
    equal features. ``psi`` is that of the fold that did not see the condition, ``variance`` how far observed shifts lie from it,

    .. math:: \tau_j^2 = \frac{\sum_k p_{kj} \bigl((r_{kj} - \psi_{kj})^2 - \sigma_j^2 / n_{kj}\bigr)}{\sum_k p_{kj}},

    and ``log_odds`` the likelihood ratio of :func:`reliability` at the odds of one target among all genes as far as its slope is sure,
    and at the whole target penalty as far as it is not.

    Parameters
    ----------
    name, build
        Of the generator: key of :data:`~scgim.module.GENERATORS`, and a new one.
    conditions, evidence, sure
        Of the training conditions: what the generator learns from, and what calls targets, which counts a misfit of the graph as noise.
    penalty, learning_penalty
        Nats that a target costs, ``(genes,)``; the second while a generator learns.
    seed
        Deals drugs out to folds.
    share
        Of the gradient steps, where training was asked to be short.

    Returns
    -------
    ``None`` where fewer than eight drugs differ in their features, or where the generator knows drugs only by name.
    """
    generator = build()
    groups = len(torch.unique(equal_drugs(inputs)))
    if not generator.pools_drugs or groups < MIN_DRUGS:
        return None
    used = learning_penalty if generator.by_gradient else penalty
    folds = Folds.of_conditions(inputs, FOLDS, seed)
    logits, psi = (each[0] for each in answers(name, generator, inputs, evidence, folds, used, share=share))
    noise = sure.variance / sure.n
    certain = torch.sigmoid(sure.gain - penalty)
    excess, targets = (certain * ((sure.observed - psi) ** 2 - noise)).sum(0), certain.sum(0)
    pooled = excess.sum() / targets.sum().clamp(min=1.0)
    variance = torch.where(targets >= FEW, excess / targets.clamp(min=FEW), pooled).clamp(min=LEAST_VARIANCE)
    total = variance + noise
    # the odds of a target by the condition's own data, as features say or of the drug's own
    gap = (sure.observed - psi) ** 2 / (2 * total)
    odds = sure.gain - 0.5 * torch.log(total / noise) + torch.log(0.5 * torch.exp(-gap) + 0.5)
    found = reliability(logits, odds, inputs.drug)
    # trusted, one gene is expected to be a target; untrusted, either of two cases pays the penalty that placebos set
    chance = penalty.clamp(max=math.log(max(len(penalty) - 1, 2)))
    cost = found.trust * chance + (1 - found.trust) * (penalty + math.log(2))
    return FeatureEvidence(torch.sigmoid(logits), found.log_ratio - cost, psi, variance)


def reliability(logits: Tensor, odds: Tensor, drug: Tensor) -> Reliability:
    r"""The likelihood ratio of a target that held-out logits are worth, learned from all conditions.

    With :math:`x_{kj}` the logit less its gene's mean over conditions, for features have to speak for this drug and not for a gene that
    many drugs move, and :math:`M_{kj}` the log odds of a target by the condition's own data,

    .. math:: \max_{\alpha, \beta} \sum_{kj} \log\bigl(1 + q_{kj} (e^{M_{kj}} - 1)\bigr), \qquad q_{kj} = \sigma(\alpha_j + \beta x_{kj}),

    by EM. The standard error of :math:`\beta` is clustered by drugs, and what counts is :math:`\beta` two standard errors lower, at least 0.
    The likelihood ratio averages to 1 over what is no target, and is 1 where features say nothing:

    .. math:: \Lambda_{kj} = e^{\beta x_{kj}} \frac{\sum_k (1 - q_{kj})}{\sum_k (1 - q_{kj}) e^{\beta x_{kj}}}.

    Parameters
    ----------
    logits, odds
        ``(conditions, genes)``.
    drug
        Index of every condition's, ``(conditions,)``.
    """
    x = (logits - logits.mean(0)).clamp(-LARGEST, LARGEST)
    if not bool((x.abs() > 1e-9).any()):
        return Reliability(0.0, 0.0, torch.zeros_like(x))
    alpha, beta = torch.full((1, x.shape[1]), -3.0, dtype=x.dtype), 0.0
    for _ in range(_ROUNDS):
        prior = torch.sigmoid(alpha + beta * x)
        target = torch.sigmoid(alpha + beta * x + odds)
        weight = prior * (1 - prior)
        # one in twenty of a pseudo-condition keeps a gene without targets in place
        alpha = alpha + ((target - prior).sum(0) + 0.05 - torch.sigmoid(alpha)) / (weight.sum(0) + 0.05)
        alpha = alpha.clamp(-12.0, 3.0)
        prior = torch.sigmoid(alpha + beta * x)
        step = ((target - prior) * x).sum() / ((prior * (1 - prior) * x**2).sum() + 1.0)
        beta = float((beta + step).clamp(-2.0, 2.0))
    prior, target = torch.sigmoid(alpha + beta * x), torch.sigmoid(alpha + beta * x + odds)
    information = (((prior * (1 - prior) - target * (1 - target)) * x**2).sum()).clamp(min=1.0)
    score = torch.zeros(int(drug.max()) + 1, dtype=x.dtype).index_add(0, drug, ((target - prior) * x).sum(1))
    error = float(score.square().sum().sqrt() / information)
    trust = max(1 - SURE * error / beta, 0.0) if beta > 0 else 0.0
    none, tilt = 1 - prior, torch.exp(trust * beta * x)
    return Reliability(beta, trust, trust * beta * x - torch.log((none * tilt).sum(0) / none.sum(0)))
