from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from scipy.optimize import brentq
from scipy.special import polygamma

from ._means import ConditionMeans

if TYPE_CHECKING:
    from ._statistics import SufficientStatistics

BURST = 4.0  # times a gene's dispersion, beyond which that of a condition is its own
PRIOR = 0.5  # of a rate's ratio to the controls', in units of the controls'
_STRONG = 0.25, 5.0  # log ratio and standard errors beyond which a gene is no measure of size
_LEAST_RATIO = 0.3  # a gene without counts does not have a variance of zero
_LEAST_LATENT, _LEAST_EIGENVALUE = 0.02, 0.05
_SIZE_ROUNDS = 3
_PRIOR_FREEDOM = 10.0  # of the variance of all genes between batches, beside a gene's own, where few genes say it
_FEW_GENES, _PRIOR_RANGE = 20, (1.0, 1e4)


class SizeFactors:
    """What a cell's counts are measured against: its total less the genes that some condition moves strongly.

    A strong effect on an abundant gene changes the total, and would look like the opposite effect on all others; that
    holds for conditions and, as much, for cells within one. Sizes that are no totals (a condition has more counts than
    size) are taken as they are.

    Parameters
    ----------
    totals
        Of raw counts, the last column the cells' given sizes, by fine condition (control, drug, dose, line, batch).
    group
        Line x batch of every fine condition, ``(fine conditions,)`` int.
    label
        0 for fine conditions of controls, else 1 + the condition, ``(fine conditions,)`` int.
    """

    def __init__(self, totals: SufficientStatistics, group: np.ndarray, label: np.ndarray) -> None:
        counts, given = _split(totals)
        treated, k = label > 0, int(label.max(initial=0))
        self.strong, self.whole = np.zeros(counts.shape[1], dtype=bool), bool((given >= 0.999 * counts.sum(1)).all())
        for _ in range(_SIZE_ROUNDS):
            size = self._less(given, counts)
            base = _control_rates(counts, size, group, treated)
            expected = _sum(size[treated, None] * base[group[treated]], label[treated] - 1, k)
            observed = _sum(counts[treated], label[treated] - 1, k)
            # most genes do not move, so what most seem to do is the total's doing
            ratio = np.log(np.maximum(observed / np.maximum(expected, 1e-9), 1e-3))
            middle = np.median(ratio, axis=1, keepdims=True)
            expected = expected * np.exp(middle)
            z = (observed - expected) / np.sqrt(2 * expected + 1)
            found = ((np.abs(ratio - middle) > _STRONG[0]) & (np.abs(z) > _STRONG[1])).any(0)
            # where nearly all is moved, a total is as good as any
            if found.mean() > 0.5 or (found == self.strong).all():
                break
            self.strong = found
        self.rate = counts / self._less(given, counts)[:, None]

    def _less(self, given: np.ndarray, counts: np.ndarray | sp.csr_matrix) -> np.ndarray:
        if not self.strong.any() or not self.whole:
            return given
        return np.maximum(given - np.asarray(counts[:, self.strong].sum(1)).ravel(), 0.02 * given)

    def of(self, x: np.ndarray | sp.csr_matrix) -> np.ndarray:
        """Sizes of cells, ``(cells,)``, from counts with given sizes, ``(cells, genes + 1)``, dense or sparse."""
        given = x[:, -1].toarray().ravel() if sp.issparse(x) else x[:, -1]
        return self._less(given.astype(np.float64), x[:, :-1])

    def residuals(self, x: np.ndarray, code: np.ndarray) -> np.ndarray:
        """Counts with sizes, ``(cells, genes + 1)``, of fine conditions -> what the condition's rate leaves of them, and sizes."""
        size = self.of(x)
        return np.column_stack([x[:, :-1] - size[:, None] * self.rate[code], size])


def log_fold_changes(
    totals: SufficientStatistics,
    residuals: SufficientStatistics,
    rate: np.ndarray,
    group: np.ndarray,
    label: np.ndarray,
    line: np.ndarray,
) -> ConditionMeans:
    r"""Changes of UMI counts: logarithms of the ratio of a condition's rates to those of its controls.

    With counts :math:`O_{kj}`, and :math:`X_{kj}` those expected from the controls of the condition's own line and batches,

    .. math:: \rho_{kj} = O_{kj} / X_{kj}, \qquad M_{kj} = (1 + a) \log \frac{\rho_{kj} + a}{1 + a}, \qquad a = 1/2.

    Its variance is Poisson's, times what the gene's counts vary beyond that in a condition (:func:`own_dispersion`), plus what
    condition means vary between batches beyond both. The latent covariance is that of log rates,
    :math:`\log(1 + \sum_i (e_i e_i' - \operatorname{diag} y_i) / \sum_i \mu_i \mu_i')` with
    :math:`e_i = y_i - \mu_i` and :math:`\mu_i = s_i \rho_k`, every entry shrunk by its own sampling error.

    Parameters
    ----------
    totals, group, label
        As in :class:`SizeFactors`.
    residuals
        Of :meth:`Sizes.residuals`, by fine condition.
    rate
        ``Sizes.rate``.
    line
        Of every condition, ``(conditions,)`` int.
    """
    counts, n, k, treated = _split(totals)[0], totals.n, len(line), label > 0
    size = n * residuals.mean[:, -1]
    squares = (residuals.squares + n[:, None] * residuals.mean**2)[:, :-1]
    context = label[treated] - 1
    base = _control_rates(counts, size, group, treated)
    observed = _sum(counts[treated], context, k)
    expected = _sum(size[treated, None] * base[group[treated]], context, k)
    # squares about a condition's own rate: one degree of freedom of its cells is gone
    dispersion = np.maximum(squares.sum(0) / np.maximum((1 - 1 / n) @ counts, 1.0), 1.0)

    cells = _sum(n[treated, None], context, k)
    own = own_dispersion(dispersion, _sum(squares[treated], context, k), observed, cells)
    change, variance = log_fold_change(observed, expected, own)
    alone = size[treated, None] * base[group[treated]] + 0.5
    controls = _sum(counts[~treated], group[~treated], len(base))[group[treated]] + 0.5
    ratios = np.log((counts[treated] + 0.5) / alone)
    between, batches = between_batch_variance(ratios, dispersion * (1 / alone + 1 / controls), context, n[treated], k)

    lines = int(line.max(initial=0)) + 1
    line_of_group = np.zeros(len(base), dtype=np.int64)
    line_of_group[group[treated]] = line[context]
    used = ~treated & np.isin(group, group[treated])  # controls that some condition is compared with
    seen = _sum(counts[used], line_of_group[group[used]], lines)
    correlation, latent, reliability = _latent(residuals, counts, size)
    return ConditionMeans(
        n=_sum(n[treated, None], context, k)[:, 0],
        change=change,
        variance=variance + between / batches,
        line=np.asarray(line, dtype=np.int64),
        control=dispersion / np.maximum(seen, 1.0),
        correlation=correlation,
        latent=latent,
        reliability=reliability,
        n_cells=float(n.sum()),
        dispersion=dispersion,
    )


def own_dispersion(dispersion: np.ndarray, squares: np.ndarray, counts: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Dispersion of every gene's counts in single conditions, ``(conditions, genes)``: the gene's, or the condition's own where a burst is.

    A burst of counts in one cell is as large as its own standard error, and the gene's dispersion would take it for an effect of the condition.
    Below :data:`BURST` times that of the gene a condition's own dispersion is left out, because few counts say little of it.

    Parameters
    ----------
    dispersion
        Of genes over all conditions, ``(genes,)``.
    squares, counts
        Of a condition's cells: squares about its own rate, and counts, ``(conditions, genes)``; one Poisson count is added to them.
    n
        Cells of every condition, ``(conditions, 1)``.
    """
    own = (squares + 1) / (np.maximum(1 - 1 / n, 0.5) * counts + 1)
    return np.where(own > BURST * dispersion, own, dispersion)


def log_fold_change(
    observed: np.ndarray, expected: np.ndarray, dispersion: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Change of every condition and its sampling variance, ``(conditions, genes)`` each; see :func:`log_fold_changes`."""
    ratio = observed / expected
    slope = (1 + PRIOR) / (ratio + PRIOR)
    change = (1 + PRIOR) * np.log((ratio + PRIOR) / (1 + PRIOR))
    return change, dispersion * np.maximum(ratio, _LEAST_RATIO) / expected * slope**2


def _split(totals: SufficientStatistics) -> tuple[np.ndarray, np.ndarray]:
    """Counts ``(fine conditions, genes)`` and sizes ``(fine conditions,)``, summed over cells."""
    sums = totals.n[:, None] * totals.mean
    return sums[:, :-1], sums[:, -1]


def _sum(x: np.ndarray, code: np.ndarray, n: int) -> np.ndarray:
    """Rows of ``x`` summed by code, ``(n, columns)``."""
    out = np.zeros((n, x.shape[1]))
    np.add.at(out, code, x)
    return out


def _control_rates(counts: np.ndarray, size: np.ndarray, group: np.ndarray, treated: np.ndarray) -> np.ndarray:
    """Rates of the controls of every line x batch, ``(groups, genes)``, as if each had one count more at the rate of all."""
    groups = int(group.max()) + 1
    own = _sum(counts[~treated], group[~treated], groups)
    own_size = _sum(size[~treated, None], group[~treated], groups)
    overall = np.maximum(own.sum(0) / own_size.sum(), 0.5 / own_size.sum())
    return (own + 1) / (own_size + 1 / overall)


def between_batch_variance(
    change: np.ndarray, variance: np.ndarray, context: np.ndarray, n: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    r"""Variance of conditions' changes between batches beyond sampling, ``(genes,)``, and how many batches a condition has, ``(k, 1)``.

    By moments (DerSimonian & Laird 1986): with weights :math:`w_b` the inverse sampling variances and
    :math:`Q = \sum_b w_b (m_b - \bar m)^2` about the condition's weighted mean,
    :math:`E[Q] = (B - 1) + \tau^2 (\sum_b w_b - \sum_b w_b^2 / \sum_b w_b)`, summed over conditions; a gene's own estimate is
    pooled with that of all genes, the more the less genes differ. A condition's mean is over its cells, so that of batches of :math:`n_b` cells it has as many as
    :math:`(\sum_b n_b)^2 / \sum_b n_b^2` equal ones.

    Parameters
    ----------
    change, variance
        Of every condition in every of its batches and the sampling variance, ``(rows, genes)``.
    condition
        Of every row, ``(rows,)`` int below ``k``.
    n
        Cells of every row, ``(rows,)``.
    """
    batches = np.bincount(context, minlength=k).astype(float)
    w = 1 / variance
    total, square = _sum(w, context, k), _sum(w**2, context, k)
    center = _sum(w * change, context, k) / np.maximum(total, 1e-300)
    q = _sum(w * (change - center[context]) ** 2, context, k).sum(0)
    cells, squares = (np.bincount(context, power, minlength=k)[:, None] for power in (n, n**2))
    equal = cells**2 / np.maximum(squares, 1e-300)
    freedom = float(np.maximum(batches - 1, 0).sum())
    if freedom < 1:
        return np.zeros(change.shape[1]), equal
    leverage = (total - square / np.maximum(total, 1e-300)).sum(0)
    each = (q - freedom) / np.maximum(leverage, 1e-12)
    pooled = max(float((q - freedom).sum() / leverage.sum()), 0.0)
    share = freedom / (freedom + _prior_freedom(q / freedom, freedom))
    return np.maximum(share * each + (1 - share) * pooled, 0.0), equal


def _prior_freedom(squares: np.ndarray, freedom: float) -> float:
    r"""Degrees of freedom that all genes' variance is worth beside a gene's own, from how genes differ (Smyth 2004).

    :math:`\psi'(d_0 / 2) = \mathrm{var}(\log s_j^2) - \psi'(f / 2)` for mean squares :math:`s_j^2` of :math:`f` degrees of
    freedom; infinite if genes differ no more than by chance.
    """
    if len(squares) < _FEW_GENES:
        return _PRIOR_FREEDOM
    excess = np.log(np.maximum(squares, 1e-12)).var(ddof=1) - polygamma(1, freedom / 2)
    low, high = _PRIOR_RANGE
    if excess <= polygamma(1, high / 2):
        return np.inf
    return max(low, 2 * brentq(lambda half: polygamma(1, half) - excess, 1e-3, high))


def _latent(
    residuals: SufficientStatistics, counts: np.ndarray, size: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Correlation of sampling errors, latent covariance of log rates, and reliability."""
    scatter, n, left = residuals.scatter[:-1, :-1], residuals.n, 1 - 1 / residuals.n
    variance = np.maximum(np.diag(scatter), 1e-12)
    correlation = scatter / np.sqrt(np.outer(variance, variance))
    rate, overall = counts / size[:, None], np.maximum(counts.sum(0) / size.sum(), 1e-12)
    squared = (residuals.squares[:, -1] + size**2 / n) * left  # sizes, of the degrees of freedom that are left
    unit = (squared[:, None] * rate).T @ rate
    unit -= np.diag((squared / size) @ rate)  # what Poisson adds to the square of a rate
    unit = np.maximum(unit, 0.1 * squared.sum() * np.outer(overall, overall))
    latent = np.log1p(np.maximum((scatter - np.diag(left @ counts)) / unit, -0.9))
    error = np.outer(variance, variance) / max((n - 1).sum(), 1.0) / unit**2
    # James-Stein: an entry of the size of its error is none
    shrunk = latent * np.maximum(1 - error / np.maximum(latent**2, 1e-300), 0)
    diagonal = np.maximum(np.diag(latent), _LEAST_LATENT)
    shrunk[np.diag_indices(len(overall))] = diagonal
    values, vectors = np.linalg.eigh(shrunk)
    latent = (vectors * np.maximum(values, _LEAST_EIGENVALUE)) @ vectors.T
    reliability = np.clip(diagonal * np.diag(unit) / variance, 0.0, 1.0)
    return correlation, latent, reliability
