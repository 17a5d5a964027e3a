"""What runs compiled: the score of one gene's parents, and the climb over DAGs.

All of it is one file on purpose: numba caches by file and inlines what it calls, so a kernel that called into another
file would go on running that file's old code after a change.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np

MAX_PARENTS = 32
TOLERANCE = 1e-6  # nats; keeps rounding from passing for an improvement
_REFITS = 2


@nb.njit(cache=True, error_model="numpy")
def _solve(a: np.ndarray, b: np.ndarray, p: int) -> None:
    """Solve ``a[:p, :p] w = b[:p]`` in place (``b`` becomes ``w``) by Cholesky; ``a`` is overwritten."""
    for i in range(p):
        tiny = 1e-10 * a[i, i]
        for k in range(i):
            a[i, i] -= a[i, k] * a[i, k]
        # a parent that the ones before it determine says nothing new: an infinite pivot makes its coefficient 0
        a[i, i] = math.sqrt(a[i, i]) if a[i, i] > tiny else math.inf
        for r in range(i + 1, p):
            for k in range(i):
                a[r, i] -= a[r, k] * a[i, k]
            a[r, i] /= a[i, i]
    for i in range(p):
        for k in range(i):
            b[i] -= a[i, k] * b[k]
        b[i] /= a[i, i]
    for i in range(p - 1, -1, -1):
        for k in range(i + 1, p):
            b[i] -= a[k, i] * b[k]
        b[i] /= a[i, i]


@nb.njit(cache=True, error_model="numpy")
def fit_gene(j, parents, p, data, w, moved):
    """Score, intercept and noise variance of gene ``j``; coefficients into ``w``, targets into ``moved``."""
    n, mean, scatter, charge, penalty = data
    contexts = n.shape[0]
    total = 0.0
    for k in range(contexts):
        total += n[k]
    within = np.empty((p + 1, p + 1))
    for a in range(p):
        for c in range(a + 1):
            within[a, c] = scatter[parents[a], parents[c]]
        within[p, a] = scatter[j, parents[a]]
    within[p, p] = scatter[j, j]

    system, centre, residual = np.empty((p, p)), np.empty(p + 1), np.empty(contexts)
    moved[:] = False
    rss, between, weight, b, s2, n_moved = 0.0, 0.0, 0.0, 0.0, 1.0, 0
    for step in range(_REFITS + 1):
        if step == 0:
            for a in range(p):
                for c in range(a + 1):
                    system[a, c] = within[a, c]
                w[a] = within[p, a]
        else:
            weight = 0.0
            for k in range(contexts):
                if not moved[k]:
                    weight += n[k]
            for a in range(p + 1):
                row = mean[parents[a]] if a < p else mean[j]
                s = 0.0
                for k in range(contexts):
                    if not moved[k]:
                        s += n[k] * row[k]
                centre[a] = s / weight
            for a in range(p + 1):
                row = mean[parents[a]] if a < p else mean[j]
                for c in range(min(a + 1, p)):
                    column = mean[parents[c]]
                    s = within[a, c]
                    for k in range(contexts):
                        if not moved[k]:
                            s += n[k] * (row[k] - centre[a]) * (column[k] - centre[c])
                    if a < p:
                        system[a, c] = s
                    else:
                        w[c] = s
        _solve(system, w, p)

        for k in range(contexts):
            residual[k] = mean[j, k]
        for a in range(p):
            row = mean[parents[a]]
            for k in range(contexts):
                residual[k] -= w[a] * row[k]
        rss = within[p, p]
        for a in range(p):
            rss += w[a] * (w[a] * within[a, a] - 2 * within[p, a])
            for c in range(a):
                rss += 2 * w[a] * w[c] * within[a, c]
        rss = max(rss, 1e-12 * total)

        # the intercept of the contexts that are not targets; at first only the controls are known to be none
        if step == 0:
            b, s2 = residual[0], rss / total
        else:
            s = 0.0
            for k in range(contexts):
                if not moved[k]:
                    s += n[k] * residual[k]
            b, between = s / weight, 0.0
            for k in range(contexts):
                if not moved[k]:
                    between += n[k] * (residual[k] - b) ** 2
            s2 = (rss + between) / total
        between, n_moved = 0.0, 0
        for k in range(contexts):
            gap = n[k] * (residual[k] - b) ** 2
            moved[k] = k > 0 and gap > 2 * s2 * charge
            if moved[k]:
                n_moved += 1
            else:
                between += gap
    s2 = (rss + between) / total
    return 0.5 * total * math.log(s2) + charge * n_moved + 0.5 * penalty * math.log(total) * p, b, s2


@nb.njit(cache=True, error_model="numpy")
def local_score(j: int, parents: np.ndarray, p: int, data: tuple) -> float:
    r"""Score of gene ``j`` given ``parents[:p]``, in nats; smaller is better.

    .. math:: \tfrac N2 \log s_j^2 + c\,|T_j| + \lambda \tfrac12 \log N \, |S|

    The coefficients start from the within-context scatter, which no shift can bias; contexts whose mean residual is
    too large for chance, :math:`n_k (r_{kj} - b_j)^2 / 2 s_j^2 > c`, are the targets :math:`T_j`. The means of the
    other contexts then join the regression, twice. Context 0 holds the controls and is never a target.

    Parameters
    ----------
    j, parents, p
        The gene, a buffer of its parents, and how many of them count.
    data
        ``(n, mean, scatter, charge, penalty)``: the :class:`~scgim.statistics.Statistics` on the standardised scale as
        ``(contexts,)``, ``(genes, contexts)`` (transposed: a gene's means lie together) and ``(genes, genes)``; the
        nats that a target costs, :math:`c`; and :math:`\lambda`, of which 1 is BIC.
    """
    return fit_gene(j, parents, p, data, np.empty(p), np.empty(len(data[0]), dtype=nb.boolean))[0]


@nb.njit(cache=True, error_model="numpy")
def _parents(graph: np.ndarray, j: int, buffer: np.ndarray) -> int:
    p = 0
    for i in range(graph.shape[0]):
        if graph[i, j]:
            buffer[p] = i
            p += 1
    return p


@nb.njit(cache=True, error_model="numpy")
def _score_gene(graph, j, score, gain, data):
    """Fill ``score[j]`` and ``gain[:, j]``: what the score would change if the edge ``i -> j`` were toggled."""
    d = graph.shape[0]
    buffer, other = np.empty(d, dtype=np.int64), np.empty(d, dtype=np.int64)
    p = _parents(graph, j, buffer)
    score[j] = local_score(j, buffer, p, data)
    for i in range(d):
        gain[i, j] = np.inf
        if i == j or (not graph[i, j] and p >= MAX_PARENTS):
            continue
        q = 0
        for a in range(p):
            if buffer[a] != i:
                other[q] = buffer[a]
                q += 1
        if not graph[i, j]:
            other[q] = i
            q += 1
        gain[i, j] = local_score(j, other, q, data) - score[j]


@nb.njit(cache=True, error_model="numpy")
def _descendants(graph, i, skip, out):
    """Mark what can be reached from ``i`` when the edge ``i -> skip`` is not used (-1: all are)."""
    d = graph.shape[0]
    out[:] = False
    stack, top = np.empty(d, dtype=np.int64), 1
    stack[0] = i
    while top:
        top -= 1
        a = stack[top]
        for c in range(d):
            if graph[a, c] and not out[c] and not (a == i and c == skip):
                out[c] = True
                stack[top] = c
                top += 1


@nb.njit(cache=True, error_model="numpy")
def _reachable(graph, reach):
    """Fill ``reach[i, j]``: does a directed path lead from ``i`` to ``j``? From the sinks up, so every edge is used once."""
    d = graph.shape[0]
    waiting, queue, head, tail = np.zeros(d, dtype=np.int64), np.empty(d, dtype=np.int64), 0, 0
    for i in range(d):
        for c in range(d):
            waiting[i] += graph[i, c]
        if not waiting[i]:
            queue[tail] = i
            tail += 1
    reach[:] = False
    while head < tail:
        c = queue[head]
        head += 1
        for i in range(d):
            if graph[i, c]:
                reach[i, c] = True
                for a in range(d):
                    reach[i, a] |= reach[c, a]
                waiting[i] -= 1
                if not waiting[i]:
                    queue[tail] = i
                    tail += 1


@nb.njit(cache=True, error_model="numpy")
def climb(graph, score, gain, stale, data):
    """Take the best legal addition, deletion or reversal until none improves; everything is changed in place.

    ``stale`` names the genes whose ``score`` and ``gain`` columns have to be computed first.
    """
    d = graph.shape[0]
    for j in range(d):
        if stale[j]:
            _score_gene(graph, j, score, gain, data)
    reach, mark = np.empty((d, d), dtype=nb.boolean), np.empty(d, dtype=nb.boolean)
    _reachable(graph, reach)
    while True:
        best, source, target, reverse = -TOLERANCE, -1, -1, False
        for i in range(d):
            for j in range(d):
                if i == j:
                    continue
                if gain[i, j] < best and (graph[i, j] or not reach[j, i]):
                    best, source, target, reverse = gain[i, j], i, j, False
                if graph[i, j] and gain[i, j] + gain[j, i] < best:
                    _descendants(graph, i, j, mark)
                    if not mark[j]:
                        best, source, target, reverse = gain[i, j] + gain[j, i], i, j, True
        if source < 0:
            return
        adds = not graph[source, target]
        graph[source, target] = adds
        if reverse:
            graph[target, source] = True
            _score_gene(graph, source, score, gain, data)
        _score_gene(graph, target, score, gain, data)
        if adds:  # ancestors of the source now reach the target and what it reaches
            for a in range(d):
                if a == source or reach[a, source]:
                    reach[a, target] = True
                    for c in range(d):
                        if reach[target, c]:
                            reach[a, c] = True
        else:
            _reachable(graph, reach)


@nb.njit(cache=True, error_model="numpy")
def perturb(graph, stale, drop, turn):
    """Drop the edges marked in ``drop`` (edge by edge, row-major) and reinsert those in ``turn`` reversed where legal."""
    d, e = graph.shape[0], 0
    mark = np.empty(d, dtype=nb.boolean)
    sources, targets = np.nonzero(graph)
    for e in range(len(sources)):
        if drop[e]:
            graph[sources[e], targets[e]] = False
            stale[targets[e]] = True
    for e in range(len(sources)):
        if drop[e] and turn[e]:
            i, j = sources[e], targets[e]
            _descendants(graph, i, -1, mark)
            if not mark[j] and graph[:, i].sum() < MAX_PARENTS:
                graph[j, i] = True
                stale[i] = True
