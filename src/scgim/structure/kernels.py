"""What runs compiled: the score of one gene's parents, and the climb over DAGs.

All of it is one file on purpose: numba caches by file and inlines what it calls, so a kernel that called into another
file would go on running that file's old code after a change.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba as nb
import numpy as np
from numba.extending import overload

MAX_PARENTS = 32
TOLERANCE = 1e-6  # nats; keeps rounding from passing for an improvement
_REFITS = 2
_ROUNDS = 8  # reweightings of the means; they end when coefficients stand
_FLOOR = 1e-12  # of a noise variance, in control variances
# sums may be reordered, so that they run in vector registers; infinities and order of comparisons stay exact
_compiled = nb.njit(cache=True, error_model="numpy", nogil=True, fastmath={"reassoc", "contract", "nsz"})


class CellData(NamedTuple):
    """What the likelihood of all cells needs; means are ``(columns, conditions)``, less those of the controls."""

    n: np.ndarray  # (conditions,)
    mean: np.ndarray
    total: np.ndarray  # (columns,) weighted sum of the means
    scatter: np.ndarray  # (columns, columns) pooled within conditions
    between: np.ndarray  # (columns, columns) weighted second moment of the means
    own: np.ndarray  # (columns, columns, conditions) every condition's own scatter; empty for shifts
    cells: float
    target_penalty: float
    penalty: float
    columns: int

    @property
    def genes(self) -> int:
        """How many there are."""
        return len(self.mean) // self.columns


class MeanData(NamedTuple):
    """What the likelihood of the conditions' means needs, ``(genes, conditions)`` each unless said otherwise."""

    n: np.ndarray  # (conditions,)
    change: np.ndarray  # from the controls
    variance: np.ndarray  # of its sampling error
    line: np.ndarray  # (conditions,) int: whose controls it was compared with
    control: np.ndarray  # (genes, lines) sampling variance of the controls' mean, which all conditions of a line share
    correlation: np.ndarray  # (genes, genes) of sampling errors
    latent: np.ndarray  # (genes, genes) covariance between cells of a condition, free of measurement noise
    reliability: np.ndarray  # (genes,) its share of the variance
    cells: float
    target_penalty: float  # nats that a target costs
    penalty: float  # nats that a parent costs
    columns: int  # 1: a parent is one column
    slab: float  # prior variance of a target's shift
    misfit: float  # relative error of what a parent's change does to its child
    floor: float  # what sampling error leaves out, as a standard deviation
    mismatch: float  # error of correlations within conditions as evidence of slopes between them
    hard: bool

    @property
    def genes(self) -> int:
        """How many there are."""
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
        # a column that the ones before it determine says nothing new: an infinite pivot makes its coefficient 0
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
    """The lower triangle of the rows and columns ``cols[:m]``."""
    out = np.empty((m, m))
    for a in range(m):
        row = matrix[cols[a]]
        for c in range(a + 1):
            out[a, c] = row[cols[c]]
    return out


@_compiled
def _add_means(system, n, mean, total, between, cols, q, moved):
    """Add the scatter between the means of the conditions that are not ``moved``: all of it, less those that are."""
    conditions, t, weight = len(n), 0, 0.0
    for k in range(conditions):
        t += moved[k]
        weight += n[k] * (1 - moved[k])
    gone, center = np.empty((q + 1, t)), np.empty(q + 1)
    for a in range(q + 1):
        row, s, u = mean[cols[a]], total[cols[a]], 0
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
    """What every condition's sum of squares about its own mean gains by the regression, less than nothing if it helps."""
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
    """As :func:`fit_gene`."""
    n, mean, total, scatter, between, own, cells, target_penalty, penalty, columns = data
    conditions, q, hard = len(n), p * columns, len(own) > 0
    cols = np.empty(q + 1, dtype=np.int64)
    for a in range(q):
        cols[a] = parents[a // columns] * columns + a % columns
    cols[q] = j * columns
    within, system = _block(scatter, cols, q + 1), np.empty((q + 1, q + 1))
    residual, excess = np.empty(conditions), np.zeros(conditions)
    trusted = hard and n[0] > 20 + 4 * q  # enough controls for a regression of their own
    joins = 2 if hard else 1  # the step at which the means join
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
        # at first only the controls are known not to be targets
        b, weight = residual[0], 0.0
        if step:
            b = 0.0
            for k in range(conditions):
                b += n[k] * residual[k] * (1 - moved[k])
                weight += n[k] * (1 - moved[k])
            b /= weight
        limit, n_moved, changed = 2 * max(s2, _FLOOR) * target_penalty, 0, 0
        for k in range(1, conditions):
            gap = residual[k] - b
            now = n[k] * gap * gap + excess[k] > limit
            changed += now != moved[k]
            n_moved += now
            moved[k] = now
        if step >= joins and not changed:
            break

    # within the conditions: about the regression, or about its own mean where a condition sets the gene
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
    return score, b, s2


# ---- the score of one gene, from the conditions' means ----------------------------------------------------------------


@_compiled
def _error(j, parents, p, data, w, k):
    """Variance of what a condition's change leaves over parents that it does not touch: sampling, misfit and floor."""
    own = math.sqrt(data.variance[j, k])
    s, misfit = data.variance[j, k], data.floor**2
    for a in range(p):
        i = parents[a]
        of_a = w[a] * math.sqrt(data.variance[i, k])
        s -= 2 * of_a * own * data.correlation[j, i]
        misfit += (data.misfit * w[a] * data.change[i, k]) ** 2
        for c in range(p):
            h = parents[c]
            s += of_a * w[c] * math.sqrt(data.variance[h, k]) * data.correlation[i, h]
    return max(s, 0.0) + misfit


@_compiled
def error_variances(j, parents, data, w):
    """Of every condition, ``(conditions,)``; see :func:`local_score`."""
    out = np.empty(len(data.n))
    for k in range(len(out)):
        out[k] = _error(j, parents, len(parents), data, w, k)
    return out


@_compiled
def _unexplained(j, parents, p, data, w):
    """Latent variance within conditions that the parents leave, as a share of the gene's."""
    s = data.latent[j, j]
    for a in range(p):
        s -= 2 * w[a] * data.latent[j, parents[a]]
        for c in range(p):
            s += w[a] * w[c] * data.latent[parents[a], parents[c]]
    return max(s / data.latent[j, j], 0.02)


@_compiled
def _fit_means(j, parents, p, data, w, moved):
    """As :func:`fit_gene`; the variance is that of the latent residual within conditions."""
    conditions, lines = len(data.n), data.control.shape[1]
    q = p + lines
    change, v = data.change[j], np.empty(conditions)
    system, left, theta, old = np.empty((q, q)), np.empty(q), np.zeros(q), np.zeros(q)
    x = np.zeros((conditions, q))
    for k in range(conditions):
        for a in range(p):
            x[k, a] = data.change[parents[a], k]
        x[k, p + data.line[k]] = 1.0
    within = 0.0
    if p:
        shared = 0.0
        for a in range(p):
            shared += data.reliability[parents[a]] / p
        error = 1 / (data.cells * max(data.reliability[j] * shared, 1e-12)) + data.mismatch**2
        within = 0.5 / error
    w[:p] = 0.0
    score = 0.0
    for step in range(_ROUNDS + 1):
        score = 0.0
        system[:] = 0.0
        left[:] = 0.0
        for a in range(q):
            system[a, a] = 1.0 if a < p else 1 / max(data.control[j, a - p], 1e-12)
            score += 0.5 * theta[a] ** 2 * system[a, a] - 0.5 * math.log(system[a, a])
        for k in range(conditions):
            v[k] = _error(j, parents, p, data, w, k)
            r = change[k]
            for a in range(q):
                r -= theta[a] * x[k, a]
            # a condition that sets the gene says nothing of its parents
            gone = change[k] if data.hard else r
            prior = data.variance[j, k] + data.floor**2 + data.slab if data.hard else v[k] + data.slab
            untouched = 0.5 * r * r / v[k] + 0.5 * math.log(v[k])
            touched = 0.5 * gone * gone / prior + 0.5 * math.log(prior) + data.target_penalty
            low = min(untouched, touched)
            share = math.exp(low - untouched)
            total = share + math.exp(low - touched)
            score += low - math.log(total)
            share /= total
            moved[k] = share < 0.5
            weight = share / v[k] + (0.0 if data.hard else (1 - share) / prior)
            for a in range(q):
                each = weight * x[k, a]
                left[a] += each * change[k]
                for c in range(a + 1):
                    system[a, c] += each * x[k, c]
        share = 1.0
        if p:
            share = _unexplained(j, parents, p, data, w)
            score += within * math.log(share)
            each = 2 * within / (share * data.latent[j, j])
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
            # the Cholesky factor of the curvature is what `_solve` leaves
            score += math.log(system[a, a])
            largest_step = max(largest_step, abs(theta[a] - old[a]))
        if step == _ROUNDS or largest_step < 1e-4:
            for a in range(q):
                theta[a] = old[a]
            break
        for a in range(p):
            w[a] = theta[a]
    variance = data.latent[j, j] * (_unexplained(j, parents, p, data, w) if p else 1.0)
    return score + data.penalty * p, theta[p], variance


# ---- either ----------------------------------------------------------------------------------------------------------


def _fit(j, parents, p, data, w, moved):
    """Of the data's kind; known when it is compiled, so that a climb knows nothing of it."""


@overload(_fit)
def _choose(j, parents, p, data, w, moved):
    if data.instance_class is MeanData:
        return lambda j, parents, p, data, w, moved: _fit_means(j, parents, p, data, w, moved)
    return lambda j, parents, p, data, w, moved: _fit_cells(j, parents, p, data, w, moved)


@_compiled
def fit_gene(j, parents, p, data, w, moved):
    """Score, intercept and noise variance of gene ``j``; coefficients into ``w``, targets into ``moved``."""
    return _fit(j, parents, p, data, w, moved)


def local_score(j: int, parents: np.ndarray, p: int, data: tuple) -> float:
    r"""Score of gene ``j`` given ``parents[:p]``, in nats; smaller is better.

    .. math:: \tfrac N2 \log s_j^2 + c\,|T_j| + \lambda \tfrac12 \log N \, q, \qquad q = B\,|S|

    *Shift.* The coefficients start from the within-condition scatter, which no shift can bias; conditions whose mean
    residual is too large for chance, :math:`n_k (r_{kj} - b_j)^2 / 2 s_j^2 > c`, are the targets :math:`T_j`. The means
    of the other conditions then join the regression, twice.

    *Hard.* A condition that sets the gene leaves the regression altogether. With :math:`R_k` the sum of squares about the
    regression and :math:`O_k` that about the condition's own mean, the targets are those with
    :math:`(R_k - O_k) / 2 s_j^2 > c`, and :math:`O_k` is what they add to :math:`N s_j^2`. The regression starts from
    the controls' own scatter, or from that of all conditions where controls are few; the scatter of the conditions that are
    not targets takes its place, and their means join it, twice.

    Condition 0 holds the controls and is never a target.

    Parameters
    ----------
    j, parents, p
        The gene, a buffer of its parents, and how many of them count.
    data
        What :func:`~scgim.structure.score.score_data` returns.
    """
    return fit_gene(j, parents, p, data, np.empty(p * data.columns), np.empty(len(data.n), dtype=np.bool_))[0]


# ---- the climb ------------------------------------------------------------------------------------------------------
# Edges live in slots: those that may end in gene j are start[j]:start[j + 1], by source. ``back`` is the slot of the
# reversed edge (-1: none), ``outward[leave[i]:leave[i + 1]]`` the slots of edges out of i, ``fixed`` those that must stay.


@_compiled
def score_genes(genes, slots, on, score, gain, data, memo):
    """Fill ``score[j]`` and the gene's part of ``gain``: what the score would change if an edge were toggled.

    Scores are remembered in ``memo``, ``(keys, values, random code of every gene as target and as source)``: a search
    comes back to the same parents again and again.
    """
    start, source, fixed = slots[0], slots[1], slots[5]
    keys, values, code = memo
    conditions, columns = len(data.n), data.columns
    w, moved = np.empty(MAX_PARENTS * columns), np.empty(conditions, dtype=np.bool_)
    parents, toggled = np.empty(MAX_PARENTS, dtype=np.int64), np.empty(MAX_PARENTS, dtype=np.int64)
    for j in genes:
        p, key = 0, code[0, j]
        for e in range(start[j], start[j + 1]):
            if on[e]:
                parents[p] = source[e]
                key ^= code[1, source[e]]
                p += 1
        for e in range(start[j] - 1, start[j + 1]):  # first the gene as it is
            toggles = e >= start[j]
            if toggles and (fixed[e] or (p >= MAX_PARENTS and not on[e])):
                gain[e] = np.inf
                continue
            # sorted, so that a score does not depend on the way that led to it
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
def _connect(reach, i, j):
    """The edge ``i -> j`` is new: all that reach ``i`` now reach ``j`` and what it reaches."""
    bit = np.int64(1) << (j & 63)
    for a in range(len(reach)):
        if a == i or _has(reach, a, i):
            for word in range(reach.shape[1]):
                reach[a, word] |= reach[j, word]
            reach[a, j >> 6] |= bit


@_compiled
def _reachable(slots, on, reach):
    """Bit ``j`` of row ``i``: does a path lead from ``i`` to ``j``? From the sinks up, so every edge is used once."""
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
    """Does a path lead from ``i`` to ``j`` that does not use the edge between them?"""
    start, source = slots[0], slots[1]
    for e in range(start[j], start[j + 1]):
        if on[e] and source[e] != i and _has(reach, i, source[e]):
            return True
    return False


@_compiled
def climb(slots, on, score, gain, stale, data, memo):
    """Take the best legal addition, deletion or reversal until none improves; everything is changed in place.

    ``stale`` names the genes whose ``score`` and ``gain`` have to be computed first, and in the end those that changed.
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
        else:
            _reachable(slots, on, reach)


@_compiled
def perturb(slots, on, stale, edges, turn):
    """Drop ``edges``, slots that are on, and reinsert those in ``turn`` reversed where legal."""
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
        e = edges[a]
        i, j = source[e], target[e]
        if turn[a] and not fixed[e] and back[e] >= 0 and parents[i] < MAX_PARENTS and not _has(reach, i, j):
            on[back[e]] = True
            stale[i] = True
            parents[i] += 1
            _connect(reach, j, i)
