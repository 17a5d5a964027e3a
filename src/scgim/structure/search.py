"""Hill climbing over DAGs and iterated local search, on any decomposable score of one gene's parents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numba as nb
import numpy as np

from .dag import levels
from .score import MAX_PARENTS, local_score, score_data

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scgim.statistics import Statistics

_TOLERANCE = 1e-6  # nats; keeps rounding from passing for an improvement


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
def climb(graph, score, gain, stale, data):
    """Take the best legal addition, deletion or reversal until none improves; everything is changed in place.

    ``stale`` names the genes whose ``score`` and ``gain`` columns have to be computed first.
    """
    d = graph.shape[0]
    for j in range(d):
        if stale[j]:
            _score_gene(graph, j, score, gain, data)
    reach, mark = np.zeros((d, d), dtype=nb.boolean), np.empty(d, dtype=nb.boolean)
    for i in range(d):
        _descendants(graph, i, -1, reach[i])
    while True:
        best, source, target, reverse = -_TOLERANCE, -1, -1, False
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
            for i in range(d):
                _descendants(graph, i, -1, reach[i])


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


@dataclass(frozen=True)
class SearchState:
    """The best graph so far: ``graph`` (genes, genes) bool with row = source, its score in nats, rounds done."""

    graph: np.ndarray
    score: float
    rounds: int


def search_dag(
    statistics: Statistics,
    *,
    charge: float = 6.0,
    penalty: float = 2.0,
    max_rounds: int = 200,
    patience: int = 20,
    seed: int = 0,
    start: np.ndarray | None = None,
) -> Iterator[SearchState]:
    """Search the DAG of smallest score: climb from the empty graph, then iterated local search, one round a step.

    A round is ten kicks, each followed by a climb and kept if the score falls. Nine loosen the edges around one gene,
    which is what reverses a wrong chain; one loosens a quarter of all edges. The search ends by stagnation.

    Parameters
    ----------
    statistics
        On the standardised scale; context 0 holds the controls.
    charge, penalty
        See :func:`~scgim.structure.local_score`.
    max_rounds, patience
        Most rounds, and rounds in a row without improvement that end the search.
    seed
        Of the kicks.
    start
        An acyclic graph to go on from, (genes, genes) bool; the empty one by default.

    Yields
    ------
    :class:`SearchState` after the first climb and after every round, the best so far. Stop when you like.

    Raises
    ------
    ValueError
        If ``start`` has a cycle.

    Examples
    --------
    >>> import numpy as np
    >>> from scgim.statistics import accumulate
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(2000, 3))
    >>> x[1000:, 0] += 2  # the second context shifts gene 0
    >>> x[:, 1] += x[:, 0]
    >>> s = accumulate([(x, np.repeat([0, 1], 1000))], n_contexts=2, n_genes=3)
    >>> *_, last = search_dag(s)
    >>> np.argwhere(last.graph).tolist()
    [[0, 1]]
    """
    rng, d = np.random.default_rng(seed), len(statistics.scatter)
    data = score_data(statistics, charge, penalty)
    graph = np.zeros((d, d), dtype=np.bool_) if start is None else np.array(start, dtype=np.bool_, order="C")
    levels(graph)  # a cycle would never be broken
    score, gain = np.zeros(d), np.zeros((d, d))
    climb(graph, score, gain, np.ones(d, dtype=np.bool_), data)
    yield SearchState(graph.copy(), score.sum(), 0)
    stagnant = 0
    for rounds in range(1, max_rounds + 1):
        before = score.sum()
        for kick in range(10):
            drop = _loosen(graph, rng) if kick else rng.random(graph.sum()) < 0.25
            other = graph.copy(), score.copy(), gain.copy()
            stale = np.zeros(d, dtype=np.bool_)
            perturb(other[0], stale, drop, rng.random(len(drop)) < 0.5)
            climb(*other, stale, data)
            if other[1].sum() < score.sum() - _TOLERANCE:
                graph, score, gain = other
        yield SearchState(graph.copy(), score.sum(), rounds)
        stagnant = 0 if score.sum() < before else stagnant + 1
        if stagnant >= patience or not graph.any():
            return


def _loosen(graph: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mark most edges at a random gene and among its neighbours, (edges,) bool in row-major order."""
    gene = rng.integers(len(graph))
    near = graph[gene] | graph[:, gene]
    near[gene] = True
    source, target = np.nonzero(graph)
    return (near[source] & near[target]) & (rng.random(len(source)) < 0.7)
