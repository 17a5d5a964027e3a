"""Empirical Bayes for the variances of genes."""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq
from scipy.special import digamma, polygamma

_PRIOR_FREEDOM = (
    10.0  # prior degrees of freedom of the variance between batches if there are too few genes to estimate them
)
_FEW_GENES, _PRIOR_RANGE = 20, (1.0, 1e4)


def moderated_variance(variance: np.ndarray, freedom: float) -> tuple[np.ndarray, float]:
    r"""Variances of genes, moderated by empirical Bayes, and the prior degrees of freedom (Smyth 2004, limma's ``squeezeVar``).

    With :math:`s_j^2 \sim \sigma_j^2 \chi^2_f / f` and the prior :math:`1 / \sigma_j^2 \sim \chi^2_{d_0} / (d_0 s_0^2)`, the moderated
    variance is

    .. math:: \tilde s_j^2 = \frac{d_0 s_0^2 + f s_j^2}{d_0 + f}, \qquad
        \log s_0^2 = \overline{\log s_j^2 - \psi(f / 2) + \log(f / 2)} + \psi(d_0 / 2) - \log(d_0 / 2).

    :func:`prior_freedom` estimates :math:`d_0`. If it is infinite, all genes have the mean variance.

    Examples
    --------
    >>> import numpy as np
    >>> moderated_variance(np.array([0.5, 1.0, 4.0]), 10.0)[0].round(1).tolist()
    [0.9, 1.1, 2.6]
    """
    positive = np.maximum(variance, 1e-12)
    prior = prior_freedom(positive, freedom)
    if np.isinf(prior):
        return np.full_like(positive, positive.mean()), prior
    location = np.log(positive).mean() - digamma(freedom / 2) + np.log(freedom / 2)
    location = np.exp(location + digamma(prior / 2) - np.log(prior / 2))
    return (prior * location + freedom * positive) / (prior + freedom), prior


def prior_freedom(squares: np.ndarray, freedom: float) -> float:
    r"""Prior degrees of freedom of a gene's variance, estimated from how much genes differ (Smyth 2004).

    :math:`\psi'(d_0 / 2) = \mathrm{var}(\log s_j^2) - \psi'(f / 2)` for mean squares :math:`s_j^2` with :math:`f` degrees of freedom.
    The result :math:`d_0` is infinite if genes differ no more than by chance.
    """
    if len(squares) < _FEW_GENES:
        return _PRIOR_FREEDOM
    excess = np.log(np.maximum(squares, 1e-12)).var(ddof=1) - polygamma(1, freedom / 2)
    low, high = _PRIOR_RANGE
    if excess <= polygamma(1, high / 2):
        return np.inf
    return max(low, 2 * brentq(lambda half: polygamma(1, half) - excess, 1e-3, high))


def sum_rows(x: np.ndarray, code: np.ndarray, n: int) -> np.ndarray:
    """Sum rows of ``x`` by code, ``(n, columns)``."""
    out = np.zeros((n, x.shape[1]))
    np.add.at(out, code, x)
    return out
