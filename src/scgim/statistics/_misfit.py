"""Misfit: change between conditions that a graph does not explain, although it is spread over too many conditions for targets."""

from __future__ import annotations

import numpy as np

MOST_NEIGHBORS = 15  # most neighbors of a gene on whose changes its misfit may depend
PER_NEIGHBOR = 10  # conditions required per neighbor
MOST_CONDITIONS = 400  # most conditions in the fit, which has a dozen numbers per gene
FEWEST_DRUGS = 4  # with fewer drugs, a target that all of them share looks like misfit
START = 0.25  # squared relative error of a neighbor at which the fit starts
ROUNDS = 60
WIDEST = 0.3  # scale of the half-normal prior of a component: share of the control variance, or of a neighbor's square
PRICE = 3.0  # nats for a gene to have a misfit, in addition to the price of each component
LEAST_PART = 0.01  # least share of the sampling variance for a component to count
TARGETS = (1.0, 9.0)  # beta prior of the share of conditions in which a gene is a target
CLEAR = 12.0  # least squared standardized residual of the clear targets from which the size of effects is estimated
LEAST_EFFECT = 1.0  # least variance of effects, in control variances


def misfit_variance(
    residual: np.ndarray,
    change: np.ndarray,
    variance: np.ndarray,
    weight: np.ndarray,
    noise: np.ndarray,
    drug: np.ndarray,
) -> np.ndarray:
    r"""Variance of mean residuals that neither sampling nor targets explain, ``(conditions, genes)``.

    A wrong slope, a feedback loop or an unmeasured factor causes residuals in every condition that changes the genes involved, for any
    drug. A target causes residuals in the conditions of some drugs only. So a gene's mean residuals are modeled as a mixture over
    conditions,

    .. math:: r_{kj} \sim (1 - \pi_j)\, N(0, v_{kj} + m_{kj}^2) + \pi_j\, N(0, v_{kj} + m_{kj}^2 + s), \qquad
        m_{kj}^2 = \theta_{0j} + \sum_{i \sim j} \theta_{ij} (x_{ki} - r_{kj} t_{ji})^2.

    :math:`v_{kj}` is the sampling variance, :math:`m_{kj}^2` the misfit variance, :math:`\pi_j` the share of conditions that target the
    gene and :math:`s` the variance of effects. The sum runs over the neighbors :math:`i` of gene :math:`j` in the graph. Their change
    :math:`x_{ki}` counts without the part :math:`r_{kj} t_{ji}` that a shift of gene :math:`j` itself would cause (:math:`t` are total
    effects). The components :math:`\theta \ge 0` and :math:`\pi_j` maximize the posterior by multiplicative steps. The prior of
    :math:`\theta` is half-normal with scale 0.3, because misfit is smaller than the effect of a drug.

    Three fits are compared: no misfit, :math:`\theta_0` alone, and all components. A fit with :math:`q` components pays
    :math:`3 + q D / (D - q - 1)` nats for :math:`D` drugs, as in the corrected Akaike criterion. Drugs are counted instead of
    conditions, because doses of a drug share its targets. A gene may have one neighbor per ten conditions, at most 15. With fewer than
    four drugs the misfit is 0: a target shared by all drugs could not be distinguished from misfit.

    Parameters
    ----------
    residual, change
        :math:`r` and :math:`x`: condition means minus the prediction of the mechanisms, and minus controls; ``(conditions, genes)``.
    variance
        :math:`v`: variance of the residuals' sampling error, ``(conditions, genes)``.
    weight
        Weights of the graph, ``(genes, genes)``, row = source; mean derivatives for nonlinear mechanisms.
    noise
        Noise variance of a cell, ``(genes,)``: it determines which neighbors are most informative about a gene.
    drug
        Drug of every condition, ``(conditions,)`` int.
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
    # The size of effects is estimated once, from residuals far beyond sampling error. If it were fitted along with the misfit, the
    # two normal components could exchange their roles.
    clear = squares > CLEAR * v
    effect = max(LEAST_EFFECT, float(squares[clear].mean())) if clear.any() else LEAST_EFFECT
    theta, best = _climb(squares, v, parts, np.zeros((len(parts), d)), effect)
    # The likelihood has several optima, so the fit without misfit, with a constant and with all components start separately, and each
    # gene keeps the best one.
    for slots in (1, len(parts)):
        start = np.where((parts.max(1) > 0) & (np.arange(len(parts)) < slots)[:, None], START, 0.0)
        other, reached = _climb(squares, v, parts, start, effect)
        # Components below a share of the sampling variance have no effect, so they pay no price.
        reached = reached - _price(other * parts.mean(1) > LEAST_PART * v.mean(0), drugs)
        theta, best = np.where(reached > best, other, theta), np.maximum(reached, best)
    out = np.broadcast_to(theta[0], (k, d)).copy()
    if theta[1:].any():
        for share, part in zip(theta[1:], _moved(residual, change, near, exists, total), strict=True):
            out += share * part
    return out


def _price(used: np.ndarray, drugs: int) -> np.ndarray:
    """Price (nats) of the components of a misfit, ``(genes,)``; ``used`` is ``(components, genes)`` bool."""
    count = used.sum(0)
    return PRICE + count * drugs / np.maximum(drugs - count - 1, 0.5)


def neighbors(weight: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""Parents and children of every gene, the most informative neighbors first.

    Neighbors are sorted by the absolute partial regression coefficient that the graph implies, :math:`-\Theta_{ij} / \Theta_{jj}`, for
    the precision matrix :math:`\Theta = (I - W) \mathrm{diag}(\sigma^{-2}) (I - W)^\top` with weights :math:`W` and noise variances
    :math:`\sigma^2`.

    Returns
    -------
    ``(slots, genes)`` int, and which of these neighbors exist.
    """
    own = np.eye(len(weight)) - weight
    precision = (own / noise) @ own.T
    tells = np.abs(precision / np.diag(precision)) * ((weight != 0) | (weight.T != 0))
    slots = min(MOST_NEIGHBORS, int((tells > 0).sum(0).max(initial=0)))
    near = np.argsort(-tells, axis=0, kind="stable")[:slots]
    return near, np.take_along_axis(tells, near, 0) > 0


def _some(k: int) -> np.ndarray:
    """Conditions in the fit: all, or a random sample of them."""
    if k <= MOST_CONDITIONS:
        return np.arange(k)
    return np.sort(np.random.default_rng(0).choice(k, MOST_CONDITIONS, replace=False))


def _moved(residual: np.ndarray, change: np.ndarray, near: np.ndarray, exists: np.ndarray, total: np.ndarray):
    """Squared change of each neighbor without the part caused by the gene's own shift, slot by slot, ``(conditions, genes)``."""
    gene = np.arange(residual.shape[1])
    for i, there in zip(near, exists, strict=True):
        yield np.where(there, change[:, i] - residual * total[gene, i], 0.0) ** 2


def _climb(
    squares: np.ndarray, v: np.ndarray, parts: np.ndarray, theta: np.ndarray, effect: float
) -> tuple[np.ndarray, np.ndarray]:
    """Fit the components of the misfit, ``(components, genes)``, from a start. Also returns the log-posterior of every gene."""
    k, (a, b) = len(squares), TARGETS
    share = np.full(squares.shape[1], 0.1)

    def densities() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        m = v + np.einsum("pkd,pd->kd", parts, theta)
        alone = np.log1p(-share) - 0.5 * (np.log(m) + squares / m)
        targeted = np.log(share) - 0.5 * (np.log(m + effect) + squares / (m + effect))
        return m, alone, np.logaddexp(alone, targeted)

    for _ in range(ROUNDS if theta.any() else ROUNDS // 4):
        m, alone, both = densities()
        not_targeted = np.exp(alone - both)
        share = ((1 - not_targeted).sum(0) + a) / (k + a + b)
        if theta.any():
            # Multiplicative step: the ratio of the positive to the negative part of the gradient. It keeps theta non-negative, and
            # the square root damps it, so that the posterior does not fall. A component that starts at 0 stays 0.
            one, two = not_targeted / m, (1 - not_targeted) / (m + effect)
            up = np.einsum("pkd,kd->pd", parts, squares * (one / m + two / (m + effect)))
            down = np.einsum("pkd,kd->pd", parts, one + two)
            theta = theta * np.sqrt(up / (down + 2 * theta / WIDEST**2 + 1e-300))
    both = densities()[2]
    return theta, both.sum(0) + a * np.log(share) + b * np.log1p(-share) - 0.5 * (theta**2).sum(0) / WIDEST**2
