from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from ._means import ConditionMeans
from ._moderation import prior_freedom, sum_rows

if TYPE_CHECKING:
    from ._replicates import Replicates, ReplicateVariance
    from ._statistics import SufficientStatistics

BURST = 4.0  # ratio to the gene's dispersion beyond which a condition's own dispersion is used
PRIOR = 0.5  # pseudo-rate added to the ratio of rates, in units of the control rate
_STRONG = 0.25, 5.0  # log ratio and standard errors beyond which a gene is excluded from size factors
_LEAST_RATIO = 0.3  # floor of the ratio in the variance: a gene without counts does not have a variance of zero
_LEAST_LATENT, _LEAST_EIGENVALUE = 0.002, 0.05
_BULK = 0.95  # share of the eigenvalues of latent correlations that no factor of many genes has
_SIZE_ROUNDS = 3


class SizeFactors:
    """Size factors: total counts of a cell without the genes that some condition changes strongly.

    A strong effect on an abundant gene changes the total and would look like the opposite effect on all other genes. This holds
    between conditions and between the cells of one condition alike. Given sizes that are no totals are used as they are (they are
    recognized by a condition with more counts than size).

    Parameters
    ----------
    totals
        Statistics of raw counts by fine condition (control, drug, dose, line, batch); the last column holds the given sizes.
    group
        Control group (cell line x batch) of every fine condition, ``(fine conditions,)`` int.
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
            expected = sum_rows(size[treated, None] * base[group[treated]], label[treated] - 1, k)
            observed = sum_rows(counts[treated], label[treated] - 1, k)
            # Most genes do not change. A change that most genes seem to share is an artifact of the total, so it is divided out.
            ratio = np.log(np.maximum(observed / np.maximum(expected, 1e-9), 1e-3))
            middle = np.median(ratio, axis=1, keepdims=True)
            expected = expected * np.exp(middle)
            z = (observed - expected) / np.sqrt(2 * expected + 1)
            found = ((np.abs(ratio - middle) > _STRONG[0]) & (np.abs(z) > _STRONG[1])).any(0)
            # If more than half of the genes change, no subset is a better reference than the total.
            if found.mean() > 0.5 or (found == self.strong).all():
                break
            self.strong = found
        self.rate = counts / self._less(given, counts)[:, None]

    def _less(self, given: np.ndarray, counts: np.ndarray | sp.csr_matrix) -> np.ndarray:
        if not self.strong.any() or not self.whole:
            return given
        return np.maximum(given - np.asarray(counts[:, self.strong].sum(1)).ravel(), 0.02 * given)

    def of(self, x: np.ndarray | sp.csr_matrix) -> np.ndarray:
        """Size factors of cells, ``(cells,)``, from counts with the given sizes as last column, ``(cells, genes + 1)``."""
        given = x[:, -1].toarray().ravel() if sp.issparse(x) else x[:, -1]
        return self._less(given.astype(np.float64), x[:, :-1])

    def residuals(self, x: np.ndarray, code: np.ndarray) -> np.ndarray:
        """Counts with sizes, ``(cells, genes + 1)``, minus the counts expected from the rate of the fine condition; and sizes."""
        size = self.of(x)
        return np.column_stack([x[:, :-1] - size[:, None] * self.rate[code], size])


def log_fold_changes(
    totals: SufficientStatistics,
    residuals: SufficientStatistics,
    rate: np.ndarray,
    group: np.ndarray,
    label: np.ndarray,
    line: np.ndarray,
    replicates: tuple[Replicates, np.ndarray] | None = None,
) -> ConditionMeans:
    r"""Log fold changes of UMI counts: log ratios of a condition's rates to the rates of its controls.

    Let :math:`O_{kj}` be the counts of gene :math:`j` in condition :math:`k`, and :math:`X_{kj}` the counts expected from the controls
    of the same cell line and batches. Then

    .. math:: \rho_{kj} = O_{kj} / X_{kj}, \qquad M_{kj} = (1 + a) \log \frac{\rho_{kj} + a}{1 + a}, \qquad a = 1/2.

    The sampling variance of :math:`M_{kj}` is the Poisson variance times the overdispersion of the gene (:func:`own_dispersion`), plus
    the variance of condition means between replicates and between batches beyond both. The latent covariance between cells is that of log rates,
    :math:`\log(1 + \sum_i (e_i e_i' - \operatorname{diag} y_i) / \sum_i \mu_i \mu_i')`, with counts :math:`y_i`, size factors
    :math:`s_i`, rates :math:`\rho_k`, :math:`\mu_i = s_i \rho_k` and :math:`e_i = y_i - \mu_i`. Every entry is shrunk by its sampling
    error.

    Parameters
    ----------
    totals, group, label
        The arguments of :class:`SizeFactors`.
    residuals
        Statistics of :meth:`SizeFactors.residuals` by fine condition.
    rate
        ``SizeFactors.rate``.
    line
        Cell line of every condition, ``(conditions,)`` int.
    replicates
        Replicates of the fine conditions, and the counts of every unit with its size as last column, ``(units, genes + 1)``.
    """
    counts, n, k, treated = _split(totals)[0], totals.n, len(line), label > 0
    size = n * residuals.mean[:, -1]
    squares = (residuals.squares + n[:, None] * residuals.mean**2)[:, :-1]
    condition = label[treated] - 1
    base = _control_rates(counts, size, group, treated)
    observed = sum_rows(counts[treated], condition, k)
    expected = sum_rows(size[treated, None] * base[group[treated]], condition, k)
    # Squares about the fitted rate of a condition have one degree of freedom less than cells.
    dispersion = np.maximum(squares.sum(0) / np.maximum((1 - 1 / n) @ counts, 1.0), 1.0)

    cells = sum_rows(n[treated, None], condition, k)
    own = own_dispersion(dispersion, sum_rows(squares[treated], condition, k), observed, cells)
    change, variance = log_fold_change(observed, expected, own)
    alone = size[treated, None] * base[group[treated]] + 0.5
    # Variance between batches needs the ratio and its sampling error in every batch alone. Half a count keeps the logs finite.
    controls = sum_rows(counts[~treated], group[~treated], len(base))[group[treated]] + 0.5
    ratios = np.log((counts[treated] + 0.5) / alone)
    sampling, found, excess = dispersion * (1 / alone + 1 / controls), None, 0.0
    if replicates is not None:
        found = _between_replicates(*replicates, rate, dispersion)
        expected_square, total = replicates[0].between_parts(condition, k)
        # Batches weigh alike for every gene as far as they have the same rates.
        excess = found.variance * expected_square * (1 / sampling).sum(0) / total
    between, batches = between_batch_variance(ratios, sampling, condition, n[treated], k, excess)

    lines = int(line.max(initial=0)) + 1
    line_of_group = np.zeros(len(base), dtype=np.int64)
    line_of_group[group[treated]] = line[condition]
    used = ~treated & np.isin(group, group[treated])  # controls to which some condition is compared
    seen = sum_rows(counts[used], line_of_group[group[used]], lines)
    correlation, latent, reliability = _latent(residuals, counts, size)
    means = ConditionMeans(
        n=sum_rows(n[treated, None], condition, k)[:, 0],
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
    if found is None:
        return means
    known = replicates[0]
    return means.with_replicates(found, known.concentration(condition, k)[0], known.of_lines(line_of_group, lines))


def _between_replicates(
    replicates: Replicates, units: np.ndarray, rate: np.ndarray, dispersion: np.ndarray
) -> ReplicateVariance:
    """Variance of log rates between replicates: of the counts of units over those expected from the rate of their part."""
    expected = np.maximum(units[:, -1:] * rate[replicates.part], 1e-9)
    return replicates.variance(units[:, :-1] / expected, dispersion / expected)


def own_dispersion(dispersion: np.ndarray, squares: np.ndarray, counts: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Dispersion of every gene's counts in every condition, ``(conditions, genes)``.

    This is the dispersion of the gene over all conditions, except in conditions with a burst. A burst of counts in one cell is as large
    as its own standard error. With the dispersion of the gene it would pass as an effect of the condition. Below :data:`BURST` times the
    gene's dispersion a condition's own dispersion is ignored, because it is estimated from few counts.

    Parameters
    ----------
    dispersion
        Dispersion of genes over all conditions, ``(genes,)``.
    squares, counts
        Sums of squares about the condition's rate, and counts, ``(conditions, genes)``. One Poisson count is added to both.
    n
        Cells of every condition, ``(conditions, 1)``.
    """
    own = (squares + 1) / (np.maximum(1 - 1 / n, 0.5) * counts + 1)
    return np.where(own > BURST * dispersion, own, dispersion)


def log_fold_change(
    observed: np.ndarray, expected: np.ndarray, dispersion: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Log fold change of every condition and its sampling variance, ``(conditions, genes)`` each; defined in :func:`log_fold_changes`.

    The variance follows from the delta method: Poisson variance of the ratio times the squared slope of the log ratio.
    """
    ratio = observed / expected
    slope = (1 + PRIOR) / (ratio + PRIOR)
    change = (1 + PRIOR) * np.log((ratio + PRIOR) / (1 + PRIOR))
    return change, dispersion * np.maximum(ratio, _LEAST_RATIO) / expected * slope**2


def _split(totals: SufficientStatistics) -> tuple[np.ndarray, np.ndarray]:
    """Counts ``(fine conditions, genes)`` and sizes ``(fine conditions,)``, summed over cells."""
    sums = totals.n[:, None] * totals.mean
    return sums[:, :-1], sums[:, -1]


def _control_rates(counts: np.ndarray, size: np.ndarray, group: np.ndarray, treated: np.ndarray) -> np.ndarray:
    """Rates of the controls of every line x batch, ``(groups, genes)``, with one pseudo-count at the rate of all controls."""
    groups = int(group.max()) + 1
    own = sum_rows(counts[~treated], group[~treated], groups)
    own_size = sum_rows(size[~treated, None], group[~treated], groups)
    overall = np.maximum(own.sum(0) / own_size.sum(), 0.5 / own_size.sum())
    return (own + 1) / (own_size + 1 / overall)


def between_batch_variance(
    change: np.ndarray,
    variance: np.ndarray,
    condition: np.ndarray,
    n: np.ndarray,
    k: int,
    excess: np.ndarray | float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Variance of conditions' changes between batches beyond sampling, ``(genes,)``, and effective number of batches, ``(k, 1)``.

    The estimate is by moments (DerSimonian & Laird 1986). Let :math:`m_b` be the change in batch :math:`b` of :math:`B`,
    :math:`w_b` its inverse sampling variance and :math:`Q = \sum_b w_b (m_b - \bar m)^2` about the weighted mean. Then
    :math:`E[Q] = (B - 1) + \tau^2 (\sum_b w_b - \sum_b w_b^2 / \sum_b w_b)`, summed over conditions, gives the variance
    :math:`\tau^2`. The estimate of a gene is pooled with that of all genes; its weight is larger if genes differ more. The mean of a
    condition is over its cells, so batches of :math:`n_b` cells count as :math:`(\sum_b n_b)^2 / \sum_b n_b^2` batches of equal size.

    Parameters
    ----------
    change, variance
        Change of every condition in each of its batches, and its sampling variance, ``(rows, genes)``.
    condition
        Condition of every row, ``(rows,)`` int below ``k``.
    n
        Cells of every row, ``(rows,)``.
    k
        Number of conditions.
    excess
        Expectation of the sum of all :math:`Q` beyond sampling without a variance between batches, ``(genes,)``.
    """
    batches = np.bincount(condition, minlength=k).astype(float)
    w = 1 / variance
    total, square = sum_rows(w, condition, k), sum_rows(w**2, condition, k)
    center = sum_rows(w * change, condition, k) / np.maximum(total, 1e-300)
    q = sum_rows(w * (change - center[condition]) ** 2, condition, k).sum(0)
    cells, squares = (np.bincount(condition, power, minlength=k)[:, None] for power in (n, n**2))
    equal = cells**2 / np.maximum(squares, 1e-300)
    freedom = float(np.maximum(batches - 1, 0).sum())
    if freedom < 1:
        return np.zeros(change.shape[1]), equal
    leverage = (total - square / np.maximum(total, 1e-300)).sum(0)
    expected = freedom + excess
    each = (q - expected) / np.maximum(leverage, 1e-12)
    # Single estimates may be negative; they are truncated only after pooling, because truncation first would bias the mean upwards.
    pooled = max(float((q - expected).sum() / leverage.sum()), 0.0)
    share = freedom / (freedom + prior_freedom(q / expected, freedom))
    return np.maximum(share * each + (1 - share) * pooled, 0.0), equal


def _latent(
    residuals: SufficientStatistics, counts: np.ndarray, size: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Correlation of sampling errors, latent covariance of log rates, and reliability of every gene."""
    scatter, n, left = residuals.scatter[:-1, :-1], residuals.n, 1 - 1 / residuals.n
    variance = np.maximum(np.diag(scatter), 1e-12)
    correlation = scatter / np.sqrt(np.outer(variance, variance))
    rate, overall = counts / size[:, None], np.maximum(counts.sum(0) / size.sum(), 1e-12)
    # `squared` is the sum of squared sizes minus the part that belongs to the fitted rate of the condition. `unit` is the sum of
    # squared expected counts; the square of an observed rate exceeds the square of the rate by Poisson noise, which is removed.
    squared = (residuals.squares[:, -1] + size**2 / n) * left
    unit = (squared[:, None] * rate).T @ rate
    unit -= np.diag((squared / size) @ rate)
    unit = np.maximum(unit, 0.1 * squared.sum() * np.outer(overall, overall))
    latent = np.log1p(np.maximum((scatter - np.diag(left @ counts)) / unit, -0.9))
    error = np.outer(variance, variance) / max((n - 1).sum(), 1.0) / unit**2
    # The variance of a gene without measurable variation between cells is at most two standard errors.
    diagonal = np.maximum(np.diag(latent), np.maximum(2 * np.sqrt(np.diag(error)), _LEAST_LATENT))
    # James-Stein shrinkage: an entry no larger than its error becomes 0.
    shrunk = latent * np.maximum(1 - error / np.maximum(latent**2, 1e-300), 0)
    latent = _less_shared_factors(shrunk, diagonal)
    reliability = np.clip(np.diag(latent) * np.diag(unit) / variance, 0.0, 1.0)
    return correlation, latent, reliability


def _less_shared_factors(covariance: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """A positive definite covariance with at most the given variances, with a reduced share of the factors that many genes share.

    Cell cycle, activation and other states of cells vary many genes together, and no slope between two genes explains them. They are
    the few largest eigenvalues of the correlations, at most one in twenty. An eigenvalue beyond the quantile :data:`_BULK` is replaced by its geometric mean
    with the quantile, because a cascade of genes also has a large eigenvalue: half the trim transform of spectral
    deconfounding (Cevid, Buehlmann & Meinshausen 2020). Entries were shrunk one by one, so small eigenvalues are raised. They are raised
    for correlations and not for the covariance, where a floor that suits variable genes would attenuate the slopes of all others.
    """
    sd = np.sqrt(variance)
    correlation = covariance / np.outer(sd, sd)
    np.fill_diagonal(correlation, 1.0)
    values, vectors = np.linalg.eigh(correlation)
    raised = np.maximum(values, _LEAST_EIGENVALUE)
    sd = sd / np.sqrt((vectors**2) @ raised)
    bulk = np.quantile(values[values > _LEAST_EIGENVALUE], _BULK, method="higher")
    return (vectors * np.where(raised > bulk, np.sqrt(raised * bulk), raised)) @ vectors.T * np.outer(sd, sd)
