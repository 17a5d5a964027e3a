"""Compiled kernels: the score of one gene's parents, and the climb over DAGs.

All kernels stand in one file, because numba caches by file and inlines the functions that a kernel calls. A kernel that called
into another file would keep running the old code of that file after a change.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba as nb
import numpy as np
from numba.extending import overload

MAX_PARENTS = 32
TOLERANCE = 1e-6  # nats; smaller gains are rounding errors
_REFITS = 2
_ROUNDS = 8  # most reweightings of the means; they end earlier if the coefficients converge
_CERTAIN = 34.0  # log odds that are certain to 15 digits; beyond, log(1 + odds) is linear in them
_IMPOSSIBLE = 60.0  # minus log odds that are no odds to 15 digits
_FLOOR = 1e-12  # least noise variance, in control variances
# Reassociation of sums lets the compiler use vector registers. Infinities and comparisons stay exact: the kernels rely on both.
_compiled = nb.njit(cache=True, error_model="numpy", nogil=True, fastmath={"reassoc", "contract", "nsz"})


class CellData(NamedTuple):
    """Data of the likelihood of all cells. Means are ``(columns, conditions)``, with the control mean subtracted."""

    n: np.ndarray  # (conditions,)
    mean: np.ndarray
    total: np.ndarray  # (columns,) weighted sum of the means
    scatter: np.ndarray  # (columns, columns) pooled within conditions
    between: np.ndarray  # (columns, columns) weighted second moment of the means
    own: np.ndarray  # (columns, columns, conditions) scatter of every condition; empty for shifts
    cells: float
    target_penalty: float  # nats per target
    penalty: float  # price of a basis function in BICs
    columns: int  # basis functions of a parent
    edges: np.ndarray  # (genes, genes) prior log odds of edges, row = target; empty without prior knowledge
    targets: (
        np.ndarray
    )  # (genes, conditions) prior log odds of targets, infinite if known; empty without prior knowledge

    @property
    def genes(self) -> int:
        """Number of genes."""
        return len(self.mean) // self.columns


class MeanData(NamedTuple):
    """Data of the likelihood of condition means, ``(genes, conditions)`` each unless said otherwise."""

    n: np.ndarray  # (conditions,)
    change: np.ndarray  # condition mean minus control mean
    error_sd: np.ndarray  # SD of the sampling error of the change
    cause: np.ndarray  # posterior mean of the true change, which acts on the children of the gene
    cause_sd: np.ndarray  # posterior SD of the true change
    first: np.ndarray  # (lines + 1,) int: conditions first[l] : first[l + 1] have the controls of cell line l
    control: (
        np.ndarray
    )  # (genes, lines) sampling variance of the control mean, an error shared by all conditions of a line
    correlation: np.ndarray  # (genes, genes) of sampling errors
    latent: np.ndarray  # (genes, genes) covariance between cells of a condition, without measurement noise
    reliability: np.ndarray  # (genes,) latent variance as a share of the total variance
    cells: float
    target_penalty: float  # nats per target
    penalty: float  # nats per parent
    columns: int  # basis functions of a parent: always 1 here
    slab: float  # prior variance of a target's shift
    misfit: float  # SD of the relative error of a parent's contribution to its child
    floor: float  # SD of errors that sampling does not explain
    mismatch: float  # SD of the difference between correlations within conditions and slopes between them
    hard: bool  # hard interventions: a target is cut off from its parents
    edges: np.ndarray  # as in CellData
    targets: np.ndarray  # as in CellData, without the controls

    @property
    def genes(self) -> int:
        """Number of genes."""
        return len(self.change)


# ---- the score of one gene, from all cells --------------------------------------------------------------------------


@_compiled
def _solve(a: np.ndarray, b: np.ndarray, p: int) -> None:
    """Solve ``a[:p, :p] w = b[:p]`` in place (``b`` becomes ``w``) by Cholesky; ``a`` is overwritten."""
    for i in range(p):
        left = a[i]
        pivot = left[i]
        for k in range(i):
            pivot -= left[k] * left[k]
        # A column that is a linear combination of earlier columns carries no information. Its pivot is zero up to rounding. An
        # infinite pivot sets its coefficient to 0, so collinear parents neither blow up nor gain anything.
        pivot = math.sqrt(pivot) if pivot > 1e-10 * left[i] else math.inf
        left[i] = pivot
        for r in range(i + 1, p):
            row = a[r]
            s = row[i]
            for k in range(i):
                s -= row[k] * left[k]
            row[i] = s / pivot
    for i in range(p):
        s = b[i]
        for k in range(i):
            s -= a[i, k] * b[k]
        b[i] = s / a[i, i]
    for i in range(p - 1, -1, -1):
        s = b[i] / a[i, i]
        b[i] = s
        for k in range(i):
            b[k] -= a[i, k] * s


@_compiled
def _block(matrix, cols, m):
    """Lower triangle of the submatrix with the rows and columns ``cols[:m]``."""
    out = np.empty((m, m))
    for a in range(m):
        row = matrix[cols[a]]
        for c in range(a + 1):
            out[a, c] = row[cols[c]]
    return out


@_compiled
def _add_means(system, n, mean, total, between, cols, q, moved):
    """Add the scatter between the means of conditions that are not in ``moved`` to ``system``.

    ``between`` holds the second moment over all conditions. Few conditions are targets of a gene, so it is cheaper to subtract
    their terms than to sum over all others.
    """
    conditions, t, weight = len(n), 0, 0.0
    for k in range(conditions):
        t += moved[k]
        weight += n[k] * (1 - moved[k])
    gone, center = np.empty((q + 1, t)), np.empty(q + 1)
    for a in range(q + 1):
        row, s, u = mean[cols[a]], total[cols[a]], 0
        # Mean over the conditions that stay, and the rows of the conditions that go, scaled by the root of their cells.
        for k in range(conditions):
            if moved[k]:
                gone[a, u] = math.sqrt(n[k]) * row[k]
                s -= n[k] * row[k]
                u += 1
        center[a] = s / weight
        left, row = gone[a], between[cols[a]]
        for c in range(a + 1):
            right, s = gone[c], row[cols[c]] - weight * center[a] * center[c]
            for u in range(t):
                s -= left[u] * right[u]
            system[a, c] += s


@_compiled
def _excess(own, cols, w, q, out):
    """Change of every condition's sum of squares about its own mean by the regression; negative where the regression helps."""
    conditions = len(out)
    out[:] = 0.0
    for a in range(q):
        for c in range(a + 1):
            each, x = own[cols[a], cols[c]], w[a] * w[c] * (1 if a == c else 2)
            for k in range(conditions):
                out[k] += x * each[k]
        each, x = own[cols[q], cols[a]], 2 * w[a]
        for k in range(conditions):
            out[k] -= x * each[k]


@_compiled
def _fit_cells(j, parents, p, data, w, moved):
    """:func:`fit_gene` from the statistics of all cells."""
    n, mean, total, scatter, between, own, cells, target_penalty, penalty, columns, _, targets = data
    conditions, q, hard = len(n), p * columns, len(own) > 0
    cols = np.empty(q + 1, dtype=np.int64)
    # The last of the `cols` is the gene itself; the others are the basis functions of its parents.
    for a in range(q):
        cols[a] = parents[a // columns] * columns + a % columns
    cols[q] = j * columns
    within, system = _block(scatter, cols, q + 1), np.empty((q + 1, q + 1))
    residual, excess = np.empty(conditions), np.zeros(conditions)
    # The first regression must not be biased by targets that are not known yet. A shift leaves the scatter within conditions
    # intact, so the pooled scatter serves as the start. A hard intervention changes it, so the start is the scatter of the controls,
    # provided that there are enough controls for a regression.
    trusted = hard and n[0] > 20 + 4 * q
    joins = 2 if hard else 1  # the step from which condition means enter the regression
    moved[:] = False
    b, s2, n_moved = 0.0, 1.0, 0
    for step in range(joins + _REFITS):
        for a in range(q + 1):
            for c in range(a + 1):
                s = within[a, c]
                if step == 0 and trusted:
                    s = own[cols[a], cols[c], 0]
                elif hard and n_moved:
                    each = own[cols[a], cols[c]]
                    # Conditions that set the gene say nothing about its parents.
                    for k in range(conditions):
                        s -= each[k] * moved[k]
                system[a, c] = s
        if step >= joins:
            _add_means(system, n, mean, total, between, cols, q, moved)
        s2 = system[q, q]
        for a in range(q):
            w[a] = system[q, a]
        _solve(system, w, q)
        for a in range(q):
            s2 -= w[a] * system[q, a]
        row = mean[cols[q]]
        for k in range(conditions):
            residual[k] = row[k]
        for a in range(q):
            x, row = w[a], mean[cols[a]]
            for k in range(conditions):
                residual[k] -= x * row[k]
        if hard:
            _excess(own, cols, w, q, excess)
            for k in range(conditions):
                s2 += own[cols[q], cols[q], k] * moved[k]
        s2 = s2 / (n[0] - q - 1) if step == 0 and trusted else s2 / cells
        # In the first step only the controls are known not to be targets, so they alone set the intercept.
        b, weight = residual[0], 0.0
        if step:
            b = 0.0
            for k in range(conditions):
                b += n[k] * residual[k] * (1 - moved[k])
                weight += n[k] * (1 - moved[k])
            b /= weight
        unit, n_moved, changed = 2 * max(s2, _FLOOR), 0, 0
        limit = unit * target_penalty
        # A condition is a target if its excess log-likelihood exceeds the penalty: n gap^2 / (2 s2) > target_penalty.
        for k in range(1, conditions):
            gap = residual[k] - b
            odds = unit * targets[j, k] if len(targets) else 0.0
            now = n[k] * gap * gap + excess[k] > limit - odds
            changed += now != moved[k]
            n_moved += now
            moved[k] = now
        if step >= joins and not changed:
            break

    # Final residual variance: the scatter within conditions about the regression (about the own mean for targets of hard
    # interventions), plus the residual means of the conditions that are not targets. It is computed once more, because the
    # targets may have changed in the last step.
    s2 = within[q, q]
    if not hard:
        for a in range(q):
            s = 0.5 * w[a] * within[a, a] - within[q, a]
            for c in range(a):
                s += w[c] * within[a, c]
            s2 += 2 * w[a] * s
    for k in range(conditions):
        gap = residual[k] - b
        s2 += (n[k] * gap * gap + excess[k]) * (1 - moved[k])
    s2 = max(s2 / cells, _FLOOR)
    score = 0.5 * cells * math.log(s2) + target_penalty * n_moved + 0.5 * penalty * math.log(cells) * q
    if len(targets):
        for k in range(1, conditions):
            if moved[k]:
                score -= min(targets[j, k], target_penalty)  # a certain target has no price
    return score, b, s2


# ---- the score of one gene, from the conditions' means ----------------------------------------------------------------


@_compiled
def _add_error_variances(j, parents, p, data, w, out):
    """:func:`error_variances` into ``out``. Every loop runs over conditions, so that the compiler uses vector registers."""
    own = data.error_sd[j]
    for k in range(len(out)):
        out[k] = own[k] * own[k]
    # Sampling errors of a gene and its parents are correlated, because they are measured in the same cells. So their
    # covariance is part of the variance of the difference. The posterior mean of a parent's change contains a share of the parent's
    # sampling error, the ratio of posterior and sampling variance.
    for a in range(p):
        left, sd, square = data.cause_sd[parents[a]], data.error_sd[parents[a]], w[a] * w[a]
        with_own = -2 * w[a] * data.correlation[j, parents[a]]
        for k in range(len(out)):
            out[k] += left[k] * left[k] * (with_own * own[k] / sd[k] + square)
        for c in range(a):
            right, both = data.cause_sd[parents[c]], 2 * w[a] * w[c] * data.correlation[parents[a], parents[c]]
            for k in range(len(out)):
                out[k] += both * left[k] * right[k]
    floor = data.floor**2
    for k in range(len(out)):
        out[k] = (out[k] if out[k] > 0.0 else 0.0) + floor
    # The misfit of each parent grows with the parent's change.
    for a in range(p):
        x, square = data.cause[parents[a]], (data.misfit * w[a]) ** 2
        for k in range(len(out)):
            out[k] += square * x[k] * x[k]


@_compiled
def error_variances(j, parents, data, w):
    """Error variance of every condition's change given its parents, if the gene is no target: sampling, misfit and floor."""
    out = np.empty(len(data.n))
    _add_error_variances(j, parents, len(parents), data, w, out)
    return out


@_compiled
def _exponentiate(x, scratch):
    """Replace every ``x`` between -700 and 700 by its exponential, to 14 digits, with vector registers: ``math.exp`` has none."""
    power = scratch.view(np.int64)
    for k in range(len(x)):
        whole = np.floor(x[k] * 1.4426950408889634 + 0.5)  # exp(x) = 2^whole exp(f)
        f = x[k] - whole * 0.6931471805599453
        x[k] = 1 + f * (
            1
            + f
            * (
                1 / 2
                + f
                * (
                    1 / 6
                    + f
                    * (
                        1 / 24
                        + f
                        * (
                            1 / 120
                            + f
                            * (
                                1 / 720
                                + f
                                * (
                                    1 / 5040
                                    + f
                                    * (
                                        1 / 40320
                                        + f
                                        * (1 / 362880 + f * (1 / 3628800 + f * (1 / 39916800 + f * (1 / 479001600))))
                                    )
                                )
                            )
                        )
                    )
                )
            )
        )
        power[k] = (np.int64(np.int32(whole)) + 1023) << 52  # the bits of 2^whole
    for k in range(len(x)):
        x[k] *= scratch[k]


@_compiled
def _sum_of_logs(x):
    """Sum of the logarithms, of products of eight numbers each. Numbers are between 1e-30 and 1e30."""
    s, whole = 0.0, len(x) // 8 * 8
    for k in range(0, whole, 8):
        s += math.log(x[k] * x[k + 1] * x[k + 2] * x[k + 3] * x[k + 4] * x[k + 5] * x[k + 6] * x[k + 7])
    for k in range(whole, len(x)):
        s += math.log(x[k])
    return s


@_compiled
def _unexplained(j, parents, p, data, w):
    """Share of the gene's latent variance within conditions that its parents leave unexplained."""
    s = data.latent[j, j]
    for a in range(p):
        s -= 2 * w[a] * data.latent[j, parents[a]]
        for c in range(p):
            s += w[a] * w[c] * data.latent[parents[a], parents[c]]
    return max(s / data.latent[j, j], 0.02)
    # The floor of 2 % keeps the logarithm finite where the parents explain all latent variance.


@_compiled
def _classify(j, data, r, v, share, weight, scratch):
    """E step: minus the log-likelihood of the changes of gene ``j``, from its residuals ``r`` and error variances ``v``.

    Writes the probability that a condition does not target the gene to ``share``, and the weight of a condition in the regression to
    ``weight``. The other arrays are overwritten, because a division takes longer than all else here.
    """
    change, sd, floor = data.change[j], data.error_sd[j], data.floor**2
    score, between = 0.5 * _sum_of_logs(v), 0.0 if data.hard else 1.0
    if data.hard:
        for k in range(len(r)):
            precision = 1 / (sd[k] * sd[k] + floor + data.slab)
            share[k], weight[k] = 0.5 * change[k] * change[k] * precision, precision * v[k]
    else:
        for k in range(len(r)):
            precision = 1 / (v[k] + data.slab)
            share[k], weight[k] = 0.5 * r[k] * r[k] * precision, precision * v[k]
    for k in range(len(r)):
        v[k] = 1 / v[k]
        r[k] *= 0.5 * r[k] * v[k]
        share[k] = r[k] - share[k] - data.target_penalty  # log odds of a target, but for the variances
    if len(data.targets):
        for k in range(len(r)):
            share[k] += 0.0 if data.targets[j, k] == math.inf else data.targets[j, k]
    for k in range(len(r)):
        score += r[k] - max(share[k] - _CERTAIN, 0.0)
        r[k], share[k] = share[k], min(max(share[k], -_IMPOSSIBLE), _CERTAIN)
    _exponentiate(share, scratch)
    for k in range(len(r)):
        share[k] = 1 + share[k] * math.sqrt(weight[k])
    if len(data.targets):
        for k in range(len(r)):
            if data.targets[j, k] == math.inf:  # a known target: the odds take the place of 1 + odds
                share[k] = math.exp(min(max(r[k], -_IMPOSSIBLE), _CERTAIN)) * math.sqrt(weight[k])
                score -= min(r[k] + _IMPOSSIBLE, 0.0)
    score -= _sum_of_logs(share)
    for k in range(len(r)):
        share[k] = 1 / share[k]
    if len(data.targets):
        for k in range(len(r)):
            share[k] = 0.0 if data.targets[j, k] == math.inf else share[k]
    for k in range(len(r)):
        weight[k] = (share[k] + between * (1 - share[k]) * weight[k]) * v[k]
    return score


@_compiled
def _fit_means(j, parents, p, data, w, moved):
    """:func:`fit_gene` from condition means, by iteratively reweighted least squares; returns the latent residual variance.

    Every condition is a mixture of two cases, target and no target. A round computes the probability of each case (E step) and
    solves a weighted regression for slopes and control means (M step). The score is minus the log-likelihood, plus the Laplace
    term of the coefficients.
    """
    conditions, lines = len(data.n), len(data.first) - 1
    q = p + lines
    # The q unknowns are the p slopes and one offset per cell line. The offset is the error of the control mean, which all
    # conditions of a line share; its prior variance is the sampling variance of the controls.
    change, v, r = data.change[j], np.empty(conditions), np.empty(conditions)
    share, weight, scratch = np.empty(conditions), np.empty(conditions), np.empty(conditions)
    system, left, theta, old = np.empty((q, q)), np.empty(q), np.zeros(q), np.zeros(q)
    within = 0.0
    # Covariances within conditions are further evidence on the slopes. Its weight is limited by the number of cells, by the
    # reliability of the measurement, and by the mismatch between correlations within conditions and slopes between them.
    if p:
        shared = 0.0
        for a in range(p):
            shared += data.reliability[parents[a]] / p
        error = 1 / (data.cells * max(data.reliability[j] * shared, 1e-12)) + data.mismatch**2
        within = 0.5 / error
    w[:p] = 0.0
    score = 0.0
    for step in range(_ROUNDS + 1):
        _add_error_variances(j, parents, p, data, w, v)
        for line in range(lines):
            for k in range(data.first[line], data.first[line + 1]):
                r[k] = change[k] - theta[p + line]
        for a in range(p):
            x = data.cause[parents[a]]
            for k in range(conditions):
                r[k] -= theta[a] * x[k]
        score = _classify(j, data, r, v, share, weight, scratch)
        system[:] = 0.0
        left[:] = 0.0
        for a in range(q):
            system[a, a] = 1.0 if a < p else 1 / max(data.control[j, a - p], 1e-12)
            score += 0.5 * theta[a] ** 2 * system[a, a] - 0.5 * math.log(system[a, a])
        # A condition that sets the gene says nothing about its parents: its weight is 0.
        for line in range(lines):
            s, t = 0.0, 0.0
            for k in range(data.first[line], data.first[line + 1]):
                s += weight[k]
                t += weight[k] * change[k]
            system[p + line, p + line] += s
            left[p + line] = t
        for a in range(p):
            x = data.cause[parents[a]]
            for line in range(lines):
                s, t = 0.0, 0.0
                for k in range(data.first[line], data.first[line + 1]):
                    scratch[k] = weight[k] * x[k]
                    s += scratch[k]
                    t += scratch[k] * change[k]
                system[p + line, a] = s
                left[a] += t
            for c in range(a + 1):
                y, s = data.cause[parents[c]], 0.0
                for k in range(conditions):
                    s += scratch[k] * y[k]
                system[a, c] += s
        explained = 1.0
        if p:
            explained = _unexplained(j, parents, p, data, w)
            score += within * math.log(explained)
            each = 2 * within / (explained * data.latent[j, j])
            for a in range(p):
                left[a] += each * data.latent[j, parents[a]]
                for c in range(a + 1):
                    system[a, c] += each * data.latent[parents[a], parents[c]]
        largest_step = 0.0
        for a in range(q):
            old[a] = theta[a]
            theta[a] = left[a]
        _solve(system, theta, q)
        for a in range(q):
            # `_solve` left the Cholesky factor of the curvature on the diagonal: this is half its log determinant.
            score += math.log(system[a, a])
            largest_step = max(largest_step, abs(theta[a] - old[a]))
        if step == _ROUNDS or largest_step < 1e-4:
            for a in range(q):
                # The score belongs to the coefficients before the last step, so these are returned.
                theta[a] = old[a]
            break
        for a in range(p):
            w[a] = theta[a]
    for k in range(conditions):
        moved[k] = share[k] < 0.5
    variance = data.latent[j, j] * (_unexplained(j, parents, p, data, w) if p else 1.0)
    return score + data.penalty * p, theta[p], variance


# ---- either ----------------------------------------------------------------------------------------------------------


def _fit(j, parents, p, data, w, moved):
    """The fit for the kind of the data. numba chooses it at compile time, so that a climb is compiled for either kind."""


@overload(_fit)
def _choose(j, parents, p, data, w, moved):
    if data.instance_class is MeanData:
        return lambda j, parents, p, data, w, moved: _fit_means(j, parents, p, data, w, moved)
    return lambda j, parents, p, data, w, moved: _fit_cells(j, parents, p, data, w, moved)


@_compiled
def fit_gene(j, parents, p, data, w, moved):
    """Score, intercept and noise variance of gene ``j``. Writes coefficients to ``w`` and targets to ``moved``."""
    score, intercept, variance = _fit(j, parents, p, data, w, moved)
    if len(data.edges):
        for a in range(p):
            score -= data.edges[j, parents[a]]
    return score, intercept, variance


def local_score(j: int, parents: np.ndarray, p: int, data: tuple) -> float:
    r"""Score of gene ``j`` given ``parents[:p]``, in nats; smaller is better.

    .. math:: \tfrac N2 \log s_j^2 + c\,|T_j| + \lambda \tfrac12 \log N \, q, \qquad q = B\,|S|

    Here :math:`N` is the number of cells, :math:`s_j^2` the residual variance, :math:`T_j` the set of conditions that target the
    gene, :math:`c` the target penalty, :math:`\lambda` the price of a basis function in BICs, :math:`B` the number of basis
    functions of a parent and :math:`S` the parent set.

    *Shift.* The coefficients start from the within-condition scatter, which no shift can bias. The targets are the conditions
    whose mean residual :math:`r_{kj}` differs too much from the intercept :math:`b_j`: :math:`n_k (r_{kj} - b_j)^2 / 2 s_j^2 > c`.
    The means of the other conditions then join the regression, which is fitted twice more.

    *Hard.* A condition that sets the gene leaves the regression altogether. Let :math:`R_k` be the sum of squares about the
    regression and :math:`O_k` the sum of squares about the condition's own mean. The targets are the conditions with
    :math:`(R_k - O_k) / 2 s_j^2 > c`; they contribute :math:`O_k` to :math:`N s_j^2`. The regression starts from the scatter of the
    controls, or of all conditions if controls are few. Then the scatter of the conditions that are not targets takes its place,
    and their means join it, twice.

    Condition 0 holds the controls and is never a target.

    Parameters
    ----------
    j, parents, p
        The gene, a buffer of parents, and the number of parents in the buffer that count.
    data
        The arrays that :func:`~scgim.structure.score.score_data` returns.
    """
    return fit_gene(j, parents, p, data, np.empty(p * data.columns), np.empty(len(data.n), dtype=np.bool_))[0]


# ---- the climb ------------------------------------------------------------------------------------------------------
# Edges live in slots. The slots start[j]:start[j + 1] hold the edges that may end in gene j, sorted by source. ``back`` is the
# slot of the reversed edge (-1: none), ``outward[leave[i]:leave[i + 1]]`` are the slots of edges out of i, and ``fixed`` marks
# required edges. ``on`` marks the edges of the current graph.


@_compiled
def score_genes(genes, slots, on, score, gain, data, memo):
    """Fill ``score[j]`` of some genes, and ``gain`` of their slots: the change of the score if an edge were toggled.

    Scores are stored in ``memo``, ``(keys, values, random code of every gene as target and as source)``, because a search returns
    to the same parent sets again and again.
    """
    start, source, fixed = slots[0], slots[1], slots[5]
    keys, values, code = memo
    conditions, columns = len(data.n), data.columns
    w, moved = np.empty(MAX_PARENTS * columns), np.empty(conditions, dtype=np.bool_)
    parents, toggled = np.empty(MAX_PARENTS, dtype=np.int64), np.empty(MAX_PARENTS, dtype=np.int64)
    for j in genes:
        # The key of a parent set is the exclusive or of the codes of its genes (Zobrist hashing), so a toggle changes it by a
        # single operation. Two different sets collide with a probability of 2^-64.
        p, key = 0, code[0, j]
        for e in range(start[j], start[j + 1]):
            if on[e]:
                parents[p] = source[e]
                key ^= code[1, source[e]]
                p += 1
        for e in range(start[j] - 1, start[j + 1]):  # the first value stands for the current parents
            toggles = e >= start[j]
            if toggles and (fixed[e] or (p >= MAX_PARENTS and not on[e])):
                gain[e] = np.inf
                continue
            # Parents are kept sorted, so that rounding does not depend on the path that led to the set.
            i = source[e] if toggles else -1
            mine, q, waits = key ^ code[1, i] if toggles else key, 0, toggles and not on[e]
            for a in range(p):
                if waits and parents[a] > i:
                    toggled[q] = i
                    q += 1
                    waits = False
                if parents[a] != i:
                    toggled[q] = parents[a]
                    q += 1
            if waits:
                toggled[q] = i
                q += 1
            at = mine & (len(keys) - 1)
            if keys[at] != mine:
                keys[at] = mine
                values[at] = fit_gene(j, toggled, q, data, w, moved)[0]
            if toggles:
                gain[e] = values[at] - score[j]
            else:
                score[j] = values[at]


@_compiled
def _has(reach, i, j):
    return (reach[i, j >> 6] >> (j & 63)) & 1


@_compiled
# Row i of `reach` is a bit set: bit j of it, in the word j >> 6, says whether a path leads from i to j.
def _connect(reach, i, j):
    """Update ``reach`` for the new edge ``i -> j``: all genes that reach ``i`` now also reach ``j`` and its descendants."""
    bit = np.int64(1) << (j & 63)
    for a in range(len(reach)):
        if a == i or _has(reach, a, i):
            for word in range(reach.shape[1]):
                reach[a, word] |= reach[j, word]
            reach[a, j >> 6] |= bit


@_compiled
def _reachable(slots, on, reach):
    """Set bit ``j`` of row ``i`` if a path leads from ``i`` to ``j``. Works from the sinks upwards, so each edge is used once."""
    start, source, _, leave, outward, _ = slots
    d = len(reach)
    waiting, queue, head, tail = np.zeros(d, dtype=np.int64), np.empty(d, dtype=np.int64), 0, 0
    for i in range(d):
        for f in range(leave[i], leave[i + 1]):
            waiting[i] += on[outward[f]]
        if not waiting[i]:
            queue[tail] = i
            tail += 1
    reach[:] = 0
    while head < tail:
        c = queue[head]
        head += 1
        for e in range(start[c], start[c + 1]):
            if on[e]:
                i = source[e]
                for word in range(reach.shape[1]):
                    reach[i, word] |= reach[c, word]
                reach[i, c >> 6] |= np.int64(1) << (c & 63)
                waiting[i] -= 1
                if not waiting[i]:
                    queue[tail] = i
                    tail += 1


@_compiled
def _other_way(slots, on, reach, i, j):
    """Whether a path other than the edge itself leads from ``i`` to ``j``. Such a path would close a cycle if ``i -> j`` turned."""
    start, source = slots[0], slots[1]
    for e in range(start[j], start[j + 1]):
        if on[e] and source[e] != i and _has(reach, i, source[e]):
            return True
    return False


@_compiled
def climb(slots, on, score, gain, stale, data, memo):
    """Take the best legal addition, deletion or reversal until no change improves the score. All arrays change in place.

    On entry ``stale`` marks the genes whose ``score`` and ``gain`` must be computed first. On return it also marks the genes whose
    parents changed.
    """
    start, source, back = slots[0], slots[1], slots[2]
    d, todo, edge, reverse = len(score), np.flatnonzero(stale), -1, False
    reach = np.empty((d, (d + 63) >> 6), dtype=np.int64)
    _reachable(slots, on, reach)
    while True:
        score_genes(todo, slots, on, score, gain, data, memo)
        best, edge, target, reverse = -TOLERANCE, -1, -1, False
        for j in range(d):
            for e in range(start[j], start[j + 1]):
                if gain[e] < best and (on[e] or not _has(reach, j, source[e])):
                    best, edge, target, reverse = gain[e], e, j, False
                # A reversal is a deletion at one gene and an addition at the other, so its gain is the sum of two gains.
                if on[e] and back[e] >= 0:
                    both = gain[e] + gain[back[e]]
                    if both < best and not _other_way(slots, on, reach, source[e], j):
                        best, edge, target, reverse = both, e, j, True
        if edge < 0:
            return
        on[edge] = not on[edge]
        todo = np.array([target, source[edge]])[: 1 + reverse]
        stale[todo] = True
        if reverse:
            on[back[edge]] = True
        if on[edge]:
            _connect(reach, source[edge], target)
        # An addition only extends reachability. A deletion or reversal may shrink it, so it is computed anew.
        else:
            _reachable(slots, on, reach)


@_compiled
def perturb(slots, on, stale, edges, turn):
    """Drop ``edges`` (slots that are on), and reinsert those in ``turn`` in reverse where legal."""
    start, source, back, fixed = slots[0], slots[1], slots[2], slots[5]
    d = len(stale)
    reach = np.empty((d, (d + 63) >> 6), dtype=np.int64)
    parents, target = np.zeros(d, dtype=np.int64), np.empty(len(on), dtype=np.int64)
    for j in range(d):
        for e in range(start[j], start[j + 1]):
            target[e] = j
            parents[j] += on[e]
    for e in edges:
        if not fixed[e]:
            on[e] = False
            stale[target[e]] = True
            parents[target[e]] -= 1
    _reachable(slots, on, reach)
    for a in range(len(edges)):
        # Reversed edges are inserted one by one, each checked against the graph with the ones before it.
        e = edges[a]
        i, j = source[e], target[e]
        if turn[a] and not fixed[e] and back[e] >= 0 and parents[i] < MAX_PARENTS and not _has(reach, i, j):
            on[back[e]] = True
            stale[i] = True
            parents[i] += 1
            _connect(reach, j, i)
