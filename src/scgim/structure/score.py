"""The decomposable, target-robust score of a parent set."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numba as nb
import numpy as np

if TYPE_CHECKING:
    from scgim.statistics import Statistics

MAX_PARENTS = 32
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
def _fit(j, parents, p, data, w, moved):
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
    return _fit(j, parents, p, data, np.empty(p), np.empty(len(data[0]), dtype=nb.boolean))[0]


@dataclass(frozen=True)
class LocalFit:
    """Least squares on a graph: ``weight`` (genes, genes), ``intercept`` and ``variance`` (genes,), ``moved``."""

    weight: np.ndarray
    intercept: np.ndarray
    variance: np.ndarray
    moved: np.ndarray  # (contexts, genes) bool: which mechanisms a context touches


def score_data(statistics: Statistics, charge: float, penalty: float) -> tuple:
    """What :func:`local_score` takes as ``data``."""
    return statistics.n, np.ascontiguousarray(statistics.mean.T), statistics.scatter, float(charge), float(penalty)


def fit_graph(graph: np.ndarray, statistics: Statistics, *, charge: float = 6.0) -> LocalFit:
    """The regressions behind the score of a whole graph: the warm start of the gradient phases.

    Parameters
    ----------
    graph
        ``(genes, genes)`` bool, row = source.
    statistics
        On the standardised scale; context 0 holds the controls.
    charge
        Nats that a target costs.
    """
    d, data = len(graph), score_data(statistics, charge, 2.0)
    weight, intercept, variance = np.zeros((d, d)), np.empty(d), np.empty(d)
    moved = np.empty((d, len(statistics.n)), dtype=np.bool_)
    for j in range(d):
        parents = np.flatnonzero(graph[:, j])
        w = np.empty(len(parents))
        _, intercept[j], variance[j] = _fit(j, parents, len(parents), data, w, moved[j])
        weight[parents, j] = w
    return LocalFit(weight, intercept, variance, moved.T)
