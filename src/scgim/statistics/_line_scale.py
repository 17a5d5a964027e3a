"""Noise scale of cell lines: the control SD of every cell line relative to the pooled control SD."""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq
from scipy.special import digamma, polygamma

_MOST_FREEDOM = 2_000.0  # prior degrees of freedom beyond which cell lines count as equal
_RANGE = (0.1, 10.0)  # range of a relative SD


def relative_scales(variance: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    r"""Control SD of every cell line relative to the pooled SD, ``(lines, genes)``; exactly 1 if lines do not differ.

    With the variance :math:`s_{lj}^2` of gene :math:`j` in line :math:`l`, its degrees of freedom :math:`f_l`, and the pooled variance
    :math:`s_j^2`, the relative variance is

    .. math:: F_{lj}^2 \propto \frac{d_0 s_{0j}^2 + f_l s_{lj}^2}{(d_0 + f_l)\, s_j^2}, \qquad
        \log s_{0j}^2 = \overline{\log s_{lj}^2 - \psi(f_l / 2) + \log(f_l / 2)} + \psi(d_0 / 2) - \log(d_0 / 2)

    (Smyth 2004). :math:`s_{0j}^2` is the location of the prior and :math:`d_0` its degrees of freedom. They follow from the variance of
    :math:`\log s_{lj}^2 / s_j^2` beyond sampling over all lines and genes, :math:`\psi'(d_0 / 2) = \mathrm{var} - \psi'(f / 2)`.
    Without excess variance all relative SDs are 1. The constant of each gene keeps the pooled control variance at 1.

    Parameters
    ----------
    variance
        Variance of the controls of every line about the mean of their batch, ``(lines, genes)``.
    freedom
        Degrees of freedom: control cells of every line minus batches, ``(lines,)``.

    Examples
    --------
    >>> import numpy as np
    >>> relative_scales(np.array([[1.0, 1.0], [9.0, 9.0]]), np.array([500, 500])).round(1).tolist()
    [[0.4, 0.4], [1.3, 1.3]]
    >>> relative_scales(np.array([[1.0, 0.97], [1.02, 1.0]]), np.array([500, 500])).tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    one = np.ones_like(variance)
    share = freedom[:, None] / max(freedom.sum(), 1.0)
    pooled = (share * variance).sum(0)
    known, varies = freedom >= 1, pooled > 0
    if known.sum() < 2 or not varies.any():
        return one
    ratio = np.where(varies, variance / np.where(varies, pooled, 1.0), 1.0)
    half = np.maximum(freedom[known], 1.0)[:, None] / 2
    # A variance of zero has no logarithm: the range bounds it.
    spread = np.log(np.clip(ratio[known][:, varies], _RANGE[0] ** 2, _RANGE[1] ** 2)) - (digamma(half) - np.log(half))
    excess = float(spread.var(0, ddof=1).mean() - polygamma(1, half).mean())
    if excess <= polygamma(1, _MOST_FREEDOM / 2):
        return one
    prior = 2 * brentq(lambda x: polygamma(1, x) - excess, 1e-3, _MOST_FREEDOM / 2)
    # The location of the prior is a mean of logarithms: lines with many cells or a large variance do not dominate it.
    center = np.exp(spread.mean(0) + digamma(prior / 2) - np.log(prior / 2))
    location = np.ones(variance.shape[1])
    location[varies] = center
    squared = (prior * location + freedom[:, None] * ratio) / (prior + freedom[:, None])
    squared = np.clip(squared, _RANGE[0] ** 2, _RANGE[1] ** 2)
    return np.sqrt(squared * np.where(varies, (share * ratio / squared).sum(0), 1.0))
