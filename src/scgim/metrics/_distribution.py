"""How far two populations of cells are from each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

from ._arrays import matrix

if TYPE_CHECKING:
    from types import ModuleType

    from numpy.typing import ArrayLike

_BLOCK = 2**22  # distances at a time, 32 MiB


def energy_distance(x: ArrayLike, y: ArrayLike) -> float:
    r"""Energy distance of two populations.

    .. math:: 2\,E\lVert X - Y \rVert_2 - E\lVert X - X' \rVert_2 - E\lVert Y - Y' \rVert_2

    All means run over all pairs, of a cell with itself too (the V-statistic): never negative, and 0 for the same cells.
    Two samples of one population are not at 0, but at about ``E|X - X'| (1/n + 1/m)``; compare with that of a technical
    duplicate of the same size. In units of expression: ``c x`` and ``c y`` are ``c`` times as far apart. Blockwise, in
    memory of 32 MiB.

    Parameters
    ----------
    x, y
        Cells, ``(n, genes)`` and ``(m, genes)``.

    Raises
    ------
    ValueError
        If the genes differ in number or a value is not finite.

    References
    ----------
    Székely and Rizzo, Energy statistics: a class of statistics based on distances, Journal of Statistical Planning and
    Inference 143:1249 (2013).

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(50, 3))
    >>> energy_distance(x, x), round(energy_distance(x, x + 1), 2)
    (0.0, 1.11)
    """
    x, y = _cells(x, y)
    return max(2 * _mean_distance(x, y) - _mean_distance(x, x) - _mean_distance(y, y), 0.0)  # rounding


def sinkhorn_divergence(x: ArrayLike, y: ArrayLike, *, epsilon: float = 0.1) -> float:
    r"""Sinkhorn divergence of two populations: entropic transport, less its bias.

    .. math::

        S(x, y) = T(x, y) - \tfrac12 T(x, x) - \tfrac12 T(y, y), \qquad
        T(x, y) = \min_P \sum_{ij} P_{ij} \lVert x_i - y_j \rVert_2^2
        + \lambda\, \mathrm{KL}\left(P \,\middle\|\, \tfrac1n \tfrac1m\right)

    The plans P have uniform marginals. :math:`\lambda` is `epsilon` times the median over all pairs of cells
    :math:`\lVert x_i - y_j \rVert_2^2`, in all three terms; where that median is 0, so is :math:`\lambda`. Towards the
    squared :func:`wasserstein2` for small, the squared distance of the means for large `epsilon`; state it with the
    number. Never negative, 0 for the same cells, but not for two samples of one population: compare with a technical
    duplicate of the same size. In squared units of expression: ``c x`` and ``c y`` are ``c**2`` times as far apart.
    Needs POT, and memory for ``n * m`` distances.

    Parameters
    ----------
    x, y
        Cells, ``(n, genes)`` and ``(m, genes)``.
    epsilon
        Share of the median squared distance, positive.

    Raises
    ------
    ValueError
        If the genes differ in number, a value is not finite or `epsilon` is not positive.
    ImportError
        If POT is not installed.

    Warns
    -----
    UserWarning
        If `epsilon` is too small for Sinkhorn's iterations to converge.

    References
    ----------
    Feydy et al., Interpolating between optimal transport and MMD using Sinkhorn divergences, AISTATS 2019.
    Flamary et al., POT: Python Optimal Transport, Journal of Machine Learning Research 22(78) (2021).

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(50, 3))
    >>> round(sinkhorn_divergence(x, x), 6), round(sinkhorn_divergence(x, x + 1), 6)
    (0.0, 3.0)
    """
    x, y = _cells(x, y)
    if not (np.isfinite(epsilon) and epsilon > 0):
        raise ValueError(f"epsilon={epsilon!r} must be positive: a share of the median squared distance.")
    cost = cdist(x, y, "sqeuclidean")
    reg = epsilon * float(np.median(cost))
    if reg == 0:
        return wasserstein2(x, y) ** 2
    within = _self_transport(x, reg) + _self_transport(y, reg)
    return max(_transport(cost, reg) - within / 2, 0.0)  # rounding may leave a little less than 0


def wasserstein2(x: ArrayLike, y: ArrayLike) -> float:
    r"""Wasserstein-2 distance of two populations, solved exactly.

    .. math:: \sqrt{\min_P \sum_{ij} P_{ij} \lVert x_i - y_j \rVert_2^2}

    over plans P with uniform marginals. A metric; in units of expression. Two samples of one population are far from 0
    if there are many genes: compare with a technical duplicate. Needs POT, memory for ``n * m`` distances and a time
    that grows as the cube of the number of cells.

    Parameters
    ----------
    x, y
        Cells, ``(n, genes)`` and ``(m, genes)``.

    Raises
    ------
    ValueError
        If the genes differ in number or a value is not finite.
    ImportError
        If POT is not installed.

    References
    ----------
    Flamary et al., POT: Python Optimal Transport, Journal of Machine Learning Research 22(78) (2021).

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(50, 4))
    >>> wasserstein2(x, x), round(wasserstein2(x, x + 1), 6)
    (0.0, 2.0)
    """
    x, y = _cells(x, y)
    return float(np.sqrt(max(_pot().emd2([], [], cdist(x, y, "sqeuclidean"), numItermax=10_000_000), 0.0)))


def per_gene_w1(x: ArrayLike, y: ArrayLike) -> np.ndarray:
    r"""Wasserstein-1 distance of two populations, gene by gene.

    .. math:: \int_0^1 |F_x^{-1}(u) - F_y^{-1}(u)|\,du

    :func:`scipy.stats.wasserstein_distance` of all genes at once. In units of expression; blind to what genes do
    together.

    Parameters
    ----------
    x, y
        Cells, ``(n, genes)`` and ``(m, genes)``.

    Returns
    -------
    ``(genes,)``.

    Raises
    ------
    ValueError
        If the genes differ in number or a value is not finite.

    Examples
    --------
    >>> per_gene_w1([[0.0, 1.0], [2.0, 1.0]], [[1.0, 4.0]]).tolist()
    [1.0, 3.0]
    """
    x, y = _cells(x, y)
    n, m = len(x), len(y)
    # Both quantile functions are steps; between these levels, times n m to be exact, neither has one.
    level = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    width = np.diff(level, prepend=0) / (n * m)
    return width @ abs(np.sort(x, axis=0)[(level - 1) // m] - np.sort(y, axis=0)[(level - 1) // n])


def rmse_sd(x: ArrayLike, y: ArrayLike) -> float:
    r"""Root mean squared error over genes of the standard deviation between cells.

    .. math:: \sqrt{\tfrac1d \textstyle\sum_j (s_{xj} - s_{yj})^2}

    with divisors ``n - 1`` and ``m - 1``. In units of expression; 0 for equal spread, whatever the means.

    Parameters
    ----------
    x, y
        Cells, ``(n, genes)`` and ``(m, genes)``; two or more each.

    Raises
    ------
    ValueError
        If the genes differ in number, a value is not finite or there is one cell only.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[-1.0, 0.0], [0.0, 3.0], [1.0, 6.0]])
    >>> rmse_sd(x, x + 5), rmse_sd(x, [0.0, 1.0] * x)
    (0.0, 0.7071067811865476)
    """
    x, y = _cells(x, y)
    if min(len(x), len(y)) < 2:
        raise ValueError(
            f"A standard deviation needs two cells or more; x and y are of shapes {x.shape} and {y.shape}."
        )
    return float(np.sqrt(np.mean((x.std(0, ddof=1) - y.std(0, ddof=1)) ** 2)))


def _cells(x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    x, y = matrix(x, "x", axes="(cells, genes)"), matrix(y, "y", axes="(cells, genes)")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"x and y must have the same genes; their shapes are {x.shape} and {y.shape}.")
    return x, y


def _mean_distance(x: np.ndarray, y: np.ndarray) -> float:
    rows = max(1, _BLOCK // len(y))
    total = sum(cdist(x[i : i + rows], y).sum() for i in range(0, len(x), rows))
    return float(total / (len(x) * len(y)))


def _transport(cost: np.ndarray, reg: float) -> float:
    """Entropic transport between uniform weights."""
    n, m = cost.shape
    weights = np.full(n, 1 / n), np.full(m, 1 / m)
    *_, log = _pot().bregman.sinkhorn_log(*weights, cost, reg, numItermax=5_000, stopThr=1e-5 / m**0.5, log=True)
    # the dual: what the iterations leave undone enters squared, in the primal value it would enter as it is
    return reg * float(log["log_u"].mean() + np.log(n) + log["log_v"].mean() + np.log(m))


def _self_transport(x: np.ndarray, reg: float) -> float:
    """Entropic transport of a population to itself.

    Both potentials are equal there, and half steps at least halve the error (Feydy et al. 2019), where
    alternating ones crawl.
    """
    cost, f = cdist(x, x, "sqeuclidean") / reg, np.zeros(len(x))
    for _ in range(100):
        step = np.log(len(x)) - logsumexp(f - cost, axis=1)
        if abs(step - f).max() < 1e-6:
            break
        f = (f + step) / 2
    return reg * float(f.mean() + step.mean())


def _pot() -> ModuleType:
    try:
        import ot
    except ImportError as error:
        raise ImportError("Optimal transport needs POT: pip install scgim[evaluate]") from error
    return ot
