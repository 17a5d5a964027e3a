"""Distances between two populations of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

from ._arrays import matrix

if TYPE_CHECKING:
    from types import ModuleType

    from numpy.typing import ArrayLike

_BLOCK = 2**22  # distances in memory at a time (32 MiB)


def energy_distance(x: ArrayLike, y: ArrayLike) -> float:
    r"""Energy distance between two populations of cells.

    .. math:: 2\,E\lVert X - Y \rVert_2 - E\lVert X - X' \rVert_2 - E\lVert Y - Y' \rVert_2

    :math:`X` and :math:`X'` are cells of the first population, :math:`Y` and :math:`Y'` cells of the second. Means run over all pairs,
    a cell with itself included (the V-statistic). The distance is never negative, and 0 for identical samples. Two samples of one
    population have a distance of about ``E|X - X'| (1/n + 1/m)``, so compare with a technical duplicate of the same size. The unit is
    that of expression: scaling both samples by ``c`` scales the distance by ``c``. Computed in blocks of 32 MiB.

    Parameters
    ----------
    x, y
        Cells, ``(n, genes)`` and ``(m, genes)``.

    Returns
    -------
    The distance, 0 or more.

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
    r"""Sinkhorn divergence between two populations of cells: entropic transport cost minus its bias.

    .. math::

        S(x, y) = T(x, y) - \tfrac12 T(x, x) - \tfrac12 T(y, y), \qquad
        T(x, y) = \min_P \sum_{ij} P_{ij} \lVert x_i - y_j \rVert_2^2
        + \lambda\, \mathrm{KL}\left(P \,\middle\|\, \tfrac1n \tfrac1m\right)

    The plans :math:`P` have uniform marginals. :math:`\lambda` is `epsilon` times the median over all pairs of cells of
    :math:`\lVert x_i - y_j \rVert_2^2`, the same in all three terms; if this median is 0, so is :math:`\lambda`. The divergence tends to
    the squared :func:`wasserstein2` for small `epsilon`, and to the squared distance of the means for large `epsilon`, so report
    `epsilon` with the result. It is never negative, and 0 for identical samples. Two samples of one population do not have 0: compare
    with a technical duplicate of the same size. The unit is that of squared expression: scaling both samples by ``c`` scales the
    divergence by ``c**2``. Needs POT, and memory for ``n * m`` distances.

    Parameters
    ----------
    x, y
        Cells, ``(n, genes)`` and ``(m, genes)``.
    epsilon
        Regularization as a share of the median squared distance, positive.

    Returns
    -------
    The divergence, 0 or more.

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
    return max(_transport(cost, reg) - within / 2, 0.0)  # rounding may leave a small negative number


def wasserstein2(x: ArrayLike, y: ArrayLike) -> float:
    r"""Wasserstein-2 distance between two populations of cells, solved exactly.

    .. math:: \sqrt{\min_P \sum_{ij} P_{ij} \lVert x_i - y_j \rVert_2^2}

    The minimum is over plans :math:`P` with uniform marginals. The distance is a metric in units of expression. With many genes, two
    samples of one population are far from 0, so compare with a technical duplicate. Needs POT, memory for ``n * m`` distances, and time
    that grows with the cube of the number of cells.

    Parameters
    ----------
    x, y
        Cells, ``(n, genes)`` and ``(m, genes)``.

    Returns
    -------
    The distance, 0 or more.

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
    r"""Wasserstein-1 distance between two populations of cells, gene by gene.

    .. math:: \int_0^1 |F_x^{-1}(u) - F_y^{-1}(u)|\,du

    :math:`F_x^{-1}` and :math:`F_y^{-1}` are the quantile functions of a gene. The result equals
    :func:`scipy.stats.wasserstein_distance`, for all genes at once. The unit is that of expression. Dependence between genes is ignored.

    Parameters
    ----------
    x, y
        Cells, ``(n, genes)`` and ``(m, genes)``.

    Returns
    -------
    The distances, ``(genes,)``.

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
    # Both quantile functions are step functions. They are constant between these levels (times n m, to be exact integers).
    level = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    width = np.diff(level, prepend=0) / (n * m)
    return width @ abs(np.sort(x, axis=0)[(level - 1) // m] - np.sort(y, axis=0)[(level - 1) // n])


def rmse_sd(x: ArrayLike, y: ArrayLike) -> float:
    r"""Root mean squared error over genes of the SD between cells.

    .. math:: \sqrt{\tfrac1d \textstyle\sum_j (s_{xj} - s_{yj})^2}

    :math:`s_{xj}` and :math:`s_{yj}` are the SDs of gene :math:`j` of :math:`d`, with divisors ``n - 1`` and ``m - 1``. The unit is that
    of expression. Equal spread gives 0 for any means.

    Parameters
    ----------
    x, y
        Cells, ``(n, genes)`` and ``(m, genes)``; two or more each.

    Returns
    -------
    The error, 0 or more.

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
    """Entropic transport cost between uniform weights."""
    n, m = cost.shape
    weights = np.full(n, 1 / n), np.full(m, 1 / m)
    *_, log = _pot().bregman.sinkhorn_log(*weights, cost, reg, numItermax=5_000, stopThr=1e-5 / m**0.5, log=True)
    # The dual value is used: the remaining error of the iterations enters it squared, but enters the primal value linearly.
    return reg * float(log["log_u"].mean() + np.log(n) + log["log_v"].mean() + np.log(m))


def _self_transport(x: np.ndarray, reg: float) -> float:
    """Entropic transport cost of a population to itself.

    Both potentials are equal here. Averaged updates at least halve the error per step (Feydy et al. 2019); alternating updates converge
    far more slowly.
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
