"""Changes without their sampling errors, from the conditions that share a drug."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

# Variances of a drug's effect on a gene at the highest dose, in squared units of the change; 0: no effect.
EFFECT_VARIANCES = (0.0, 0.02, 0.1, 0.5, 2.0)
LINE_SHARE = 0.3  # share of the variance that belongs to a single cell line
DOSE_WIDTH = 0.5  # length scale of a dose response, as a share of the range of log doses
LOWEST_DOSE = 0.3  # SD of an effect at the lowest dose, as a share of the SD at the highest dose
MOST_CONDITIONS = 64  # conditions of a drug that share information; further conditions form a block of their own
_ROUNDS = 20
_MOST_NUMBERS = 2**22  # numbers in a block of covariance matrices


def denoise(
    change: np.ndarray, variance: np.ndarray, drug: np.ndarray, log_dose: np.ndarray, line: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    r"""Posterior mean and variance of true changes given noisy changes, ``(conditions, genes)`` each.

    The effect of a drug on a gene is a Gaussian process over the drug's conditions with one of several variances :math:`\tau^2`,
    among them 0:

    .. math:: y = f + e, \qquad f \sim \sum_m \pi_m\, N(0, \tau_m^2 C), \qquad e \sim N(0, \operatorname{diag} v)

    :math:`C` is smooth in log dose, increases with the dose, and has a share of its own for every cell line. The weights :math:`\pi` are
    common to all drugs and genes and maximize the marginal likelihood (EM), as in adaptive shrinkage (Stephens 2017,
    doi:10.1093/biostatistics/kxw041). A drug without an effect on a gene is shrunk to 0, and a strong effect remains as it was measured.

    Parameters
    ----------
    change, variance
        Changes and variances of their errors, ``(conditions, genes)``.
    drug, log_dose, line
        Drug (int), log dose (not finite: no dose) and cell line (int) of every condition, ``(conditions,)``.
    """
    blocks = _blocks(drug, log_dose, line)
    covariances = [_covariance(log_dose, line, rows) for rows in blocks]
    evidence = np.empty((len(blocks), len(EFFECT_VARIANCES), change.shape[1]))
    for block, (rows, covariance) in enumerate(zip(blocks, covariances, strict=True)):
        for genes in _parts(change.shape[1], len(rows)):
            for m, scale in enumerate(EFFECT_VARIANCES):
                evidence[block, m, genes] = _posterior(change[rows, genes], variance[rows, genes], scale * covariance)[
                    0
                ]
    prior = np.full((len(EFFECT_VARIANCES), 1), 1 / len(EFFECT_VARIANCES))
    for _ in range(_ROUNDS):
        joint = evidence + np.log(prior)
        share = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
        prior = (share.mean((0, 2))[:, None] + 1e-6) / (1 + 1e-6 * len(prior))
    mean, square = np.zeros(change.shape), np.zeros(change.shape)
    for block, (rows, covariance) in enumerate(zip(blocks, covariances, strict=True)):
        for genes in _parts(change.shape[1], len(rows)):
            for m, scale in enumerate(EFFECT_VARIANCES):
                if scale:
                    _, f, left = _posterior(change[rows, genes], variance[rows, genes], scale * covariance)
                    mean[rows, genes] += share[block, m, genes] * f
                    square[rows, genes] += share[block, m, genes] * (f**2 + left)
    return mean, np.maximum(square - mean**2, 0.0)


def _posterior(y: np.ndarray, noise: np.ndarray, prior: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log marginal likelihood ``(genes,)``, posterior means and variances ``(rows, genes)`` of a Gaussian process."""
    if not prior.any():
        return -0.5 * (y**2 / noise + np.log(noise)).sum(0), np.zeros(y.shape), np.zeros(y.shape)
    total = prior + noise.T[:, :, None] * np.eye(len(y))
    inverse = np.linalg.inv(total)
    weighted = np.einsum("gab,bg->ag", inverse, y)
    likelihood = -0.5 * ((y * weighted).sum(0) + np.linalg.slogdet(total)[1])
    # prior - prior (prior + noise)^-1 prior = noise - noise (prior + noise)^-1 noise
    left = noise - noise**2 * np.diagonal(inverse, axis1=1, axis2=2).T
    return likelihood, prior @ weighted, np.maximum(left, 0.0)


def _covariance(log_dose: np.ndarray, line: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Covariance of a drug's effects between its conditions, 1 at the highest dose."""
    finite = log_dose[np.isfinite(log_dose)]
    low, high = finite.min(initial=np.inf), finite.max(initial=-np.inf)
    place = np.ones(len(rows))
    if high > low:
        place = np.where(np.isfinite(log_dose[rows]), (log_dose[rows] - low) / (high - low), 1.0)
    size = LOWEST_DOSE + (1 - LOWEST_DOSE) * place
    smooth = np.exp(-0.5 * ((place[:, None] - place) / DOSE_WIDTH) ** 2) * size[:, None] * size
    return smooth * (1 - LINE_SHARE + LINE_SHARE * (line[rows][:, None] == line[rows]))


def _blocks(drug: np.ndarray, log_dose: np.ndarray, line: np.ndarray) -> list[np.ndarray]:
    """Conditions that share information: those of a drug, at most :data:`MOST_CONDITIONS` together."""
    order = np.lexsort((log_dose, line, drug))
    blocks = np.split(order, np.flatnonzero(np.diff(drug[order])) + 1)
    return [part for rows in blocks for part in np.array_split(rows, -(-len(rows) // MOST_CONDITIONS))]


def _parts(genes: int, rows: int) -> list[slice]:
    """Genes in parts, so that their covariance matrices fit into a block."""
    step = max(1, _MOST_NUMBERS // rows**2)
    return [slice(start, start + step) for start in range(0, genes, step)]
