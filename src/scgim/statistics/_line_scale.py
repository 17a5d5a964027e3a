"""Noise that differs between cell lines: the control SD of every line relative to that of all."""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq
from scipy.special import digamma, polygamma

_MOST_FREEDOM = 2_000.0  # prior degrees of freedom beyond which lines count as equal
_RANGE = (0.1, 10.0)  # of a relative SD


def relative_scales(variance: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    r"""Control SD of every line relative to the pooled one, ``(lines, genes)``; exactly 1 where lines do not differ.

    With the variance :math:`s_{lj}^2` of :math:`f_l` degrees of freedom and the pooled :math:`s_j^2`,

    .. math:: F_{lj}^2 \propto \frac{d_0 s_{0j}^2 + f_l s_{lj}^2}{(d_0 + f_l)\, s_j^2}, \qquad
        \log s_{0j}^2 = \overline{\log s_{lj}^2 - \psi(f_l / 2) + \log(f_l / 2)} + \psi(d_0 / 2) - \log(d_0 / 2)

    (Smyth 2004). The prior degrees of freedom :math:`d_0` follow from how much :math:`\log s_{lj}^2 / s_j^2` varies beyond
    sampling, :math:`\psi'(d_0 / 2) = \mathrm{var} - \psi'(f / 2)`, over all lines and genes; where it varies no more, all
    are 1. The constant of every gene keeps the pooled control variance at 1.

    Parameters
    ----------
    variance
        Of the controls of every line about their batch's mean, ``(lines, genes)``.
    freedom
        Its degrees of freedom: control cells of every line less their batches, ``(lines,)``.

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
    # a line that never varies is as far from the others as the range allows
    spread = np.log(np.clip(ratio[known][:, varies], _RANGE[0] ** 2, _RANGE[1] ** 2)) - (digamma(half) - np.log(half))
    excess = float(spread.var(0, ddof=1).mean() - polygamma(1, half).mean())
    if excess <= polygamma(1, _MOST_FREEDOM / 2):
        return one
    prior = 2 * brentq(lambda x: polygamma(1, x) - excess, 1e-3, _MOST_FREEDOM / 2)
    # the location of the prior, which heavy lines do not pull up as they do the pooled variance
    center = np.exp(spread.mean(0) + digamma(prior / 2) - np.log(prior / 2))
    location = np.ones(variance.shape[1])
    location[varies] = center
    squared = (prior * location + freedom[:, None] * ratio) / (prior + freedom[:, None])
    squared = np.clip(squared, _RANGE[0] ** 2, _RANGE[1] ** 2)
    return np.sqrt(squared * np.where(varies, (share * ratio / squared).sum(0), 1.0))
