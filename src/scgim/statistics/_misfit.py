"""What a graph leaves unexplained between conditions although no sparse set of targets would explain it."""

from __future__ import annotations

import numpy as np

MOST_NEIGHBORS = 15  # of a gene, whose changes its misfit may grow with
PER_NEIGHBOR = 10  # conditions that one more of them takes
MOST_CONDITIONS = 400  # that the misfit is learned from; it has a dozen numbers a gene
FEWEST_DRUGS = 4  # of fewer, a target that all of them share looks like a misfit
START = 0.25  # squared relative error of a neighbor from which the fit descends
ROUNDS = 60
WIDEST = 0.3  # scale of the half-normal prior of a part: share of the control variance, or of a neighbor's square
PRICE = 3.0  # nats for a gene to have a misfit, beside one for each of its parts
LEAST_PART = 0.01  # of the sampling variance, for a part to count as one
TARGETS = (1.0, 9.0)  # beta prior of the share of conditions in which a gene is a target
CLEAR = 12.0  # squared standardized residual of a target that tells how large effects are
LEAST_EFFECT = 1.0  # variance of effects, in control variances


def misfit_variance(
    residual: np.ndarray,
    change: np.ndarray,
    variance: np.ndarray,
    weight: np.ndarray,
    noise: np.ndarray,
    drug: np.ndarray,
) -> np.ndarray:
    r"""Variance of mean residuals about untouched mechanisms that sampling does not explain, ``(conditions, genes)``.

    A wrong slope, a feedback or something that nobody measured shows in every condition that moves the genes around,
    whatever its drug; a target shows in the conditions of some drugs, and leaves the others exactly as the graph says. So a gene's
    mean residuals are a mixture over conditions,

    .. math:: r_{kj} \sim (1 - \pi_j)\, N(0, v_{kj} + m_{kj}^2) + \pi_j\, N(0, v_{kj} + m_{kj}^2 + s), \qquad
        m_{kj}^2 = \theta_{0j} + \sum_{i \sim j} \theta_{ij} (x_{ki} - r_{kj} t_{ji})^2,

    over the neighbors :math:`i` of :math:`j` in the graph, whose changes are counted without the share :math:`r_{kj} t_{ji}`
    that a shift of :math:`j` itself would bring about. :math:`\theta \ge 0` and :math:`\pi_j` maximize the posterior (by
    multiplicative steps); the prior of :math:`\theta` is a half-normal of scale .3, because a misfit is smaller than the
    effect of a drug. The misfit is the better of none, :math:`\theta_0` alone and all parts, after a price of
    :math:`3 + q D / (D - q - 1)` nats for :math:`q` parts and :math:`D` drugs (as in the corrected criterion of Akaike; the
    doses of a drug share its targets and count once). There is a neighbor for every ten conditions, at most 15. With fewer
    than four drugs there is no misfit: a target that they share is in most conditions, as a misfit is.

    Parameters
    ----------
    residual, change
        :math:`r` and :math:`x`: means of conditions less what mechanisms say, and less controls; ``(conditions, genes)``.
    variance
        :math:`v`, of the residuals' sampling error, ``(conditions, genes)``.
    weight
        Of the graph, ``(genes, genes)``, row = source; of other mechanisms their mean derivative.
    noise
        Variance of a cell's noise, ``(genes,)``: tells which neighbors say most of a gene.
    drug
        Of every condition, ``(conditions,)`` int.
    """
    k, d = residual.shape
    if len(np.unique(drug)) < FEWEST_DRUGS:
        return np.zeros((k, d))
    near, exists = (a[: k // PER_NEIGHBOR] for a in neighbors(weight, noise))
    total = np.linalg.inv(np.eye(d) - weight)
    rows = _some(k)
    drugs = len(np.unique(drug[rows]))
    r, v = residual[rows], np.maximum(variance[rows], 1e-12)
    parts = np.stack([np.ones_like(r), *_moved(r, change[rows], near, exists, total)])
    squares = r**2
    clear = squares > CLEAR * v
    effect = max(LEAST_EFFECT, float(squares[clear].mean())) if clear.any() else LEAST_EFFECT
    theta, best = _climb(squares, v, parts, np.zeros((len(parts), d)), effect)
    for slots in (1, len(parts)):  # the same everywhere, and growing with neighbors
        start = np.where((parts.max(1) > 0) & (np.arange(len(parts)) < slots)[:, None], START, 0.0)
        other, reached = _climb(squares, v, parts, start, effect)
        reached = reached - _price(other * parts.mean(1) > LEAST_PART * v.mean(0), drugs)
        theta, best = np.where(reached > best, other, theta), np.maximum(reached, best)
    out = np.broadcast_to(theta[0], (k, d)).copy()
    if theta[1:].any():
        for share, part in zip(theta[1:], _moved(residual, change, near, exists, total), strict=True):
            out += share * part
    return out


def _price(used: np.ndarray, drugs: int) -> np.ndarray:
    """Nats that the parts of a misfit cost, ``(genes,)``; ``used`` ``(parts, genes)`` bool."""
    count = used.sum(0)
    return PRICE + count * drugs / np.maximum(drugs - count - 1, 0.5)


def neighbors(weight: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""Every gene's parents and children, those first that tell most of it given all others.

    By the absolute partial regression coefficient that the graph implies: :math:`-\Theta_{ij} / \Theta_{jj}` for
    :math:`\Theta = (I - W) \mathrm{diag}(\sigma^{-2}) (I - W)^\top`.

    Returns
    -------
    ``(slots, genes)`` int, and which of them exist.
    """
    own = np.eye(len(weight)) - weight
    precision = (own / noise) @ own.T
    tells = np.abs(precision / np.diag(precision)) * ((weight != 0) | (weight.T != 0))
    slots = min(MOST_NEIGHBORS, int((tells > 0).sum(0).max(initial=0)))
    near = np.argsort(-tells, axis=0, kind="stable")[:slots]
    return near, np.take_along_axis(tells, near, 0) > 0


def _some(k: int) -> np.ndarray:
    """Conditions to learn from: all, or so many of them at random."""
    if k <= MOST_CONDITIONS:
        return np.arange(k)
    return np.sort(np.random.default_rng(0).choice(k, MOST_CONDITIONS, replace=False))


def _moved(residual: np.ndarray, change: np.ndarray, near: np.ndarray, exists: np.ndarray, total: np.ndarray):
    """Squares by which each neighbor moved but for the gene's own shift, slot by slot, ``(conditions, genes)``."""
    gene = np.arange(residual.shape[1])
    for i, there in zip(near, exists, strict=True):
        yield np.where(there, change[:, i] - residual * total[gene, i], 0.0) ** 2


def _climb(
    squares: np.ndarray, v: np.ndarray, parts: np.ndarray, theta: np.ndarray, effect: float
) -> tuple[np.ndarray, np.ndarray]:
    """The misfit's parts ``(parts, genes)`` from a start, and the log likelihood of every gene's residuals."""
    k, (a, b) = len(squares), TARGETS
    share = np.full(squares.shape[1], 0.1)

    def densities() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        m = v + np.einsum("pkd,pd->kd", parts, theta)
        alone = np.log1p(-share) - 0.5 * (np.log(m) + squares / m)
        touched = np.log(share) - 0.5 * (np.log(m + effect) + squares / (m + effect))
        return m, alone, np.logaddexp(alone, touched)

    for _ in range(ROUNDS if theta.any() else ROUNDS // 4):
        m, alone, both = densities()
        untouched = np.exp(alone - both)
        share = ((1 - untouched).sum(0) + a) / (k + a + b)
        if theta.any():
            one, two = untouched / m, (1 - untouched) / (m + effect)
            up = np.einsum("pkd,kd->pd", parts, squares * (one / m + two / (m + effect)))
            down = np.einsum("pkd,kd->pd", parts, one + two)
            theta = theta * np.sqrt(up / (down + 2 * theta / WIDEST**2 + 1e-300))
    both = densities()[2]
    return theta, both.sum(0) + a * np.log(share) + b * np.log1p(-share) - 0.5 * (theta**2).sum(0) / WIDEST**2
