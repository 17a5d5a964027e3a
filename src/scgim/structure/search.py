"""Hill climbing over DAGs and iterated local search, on any decomposable score of one gene's parents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .dag import levels
from .kernels import TOLERANCE, climb, perturb
from .score import score_data

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scgim.statistics import Statistics


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
    max_rounds: int = 100,
    patience: int = 20,
    seed: int = 0,
    start: np.ndarray | None = None,
) -> Iterator[SearchState]:
    """Search the DAG of smallest score: climb from the empty graph, then iterated local search, one round a step.

    A round is up to ten kicks, each followed by a climb and kept if the score falls. The first loosens a quarter of the
    edges into twenty genes, the others the edges around one gene, which is what reverses a wrong chain. The search ends
    by stagnation.

    Parameters
    ----------
    statistics
        On the standardised scale; context 0 holds the controls.
    charge, penalty
        See :func:`~scgim.structure.local_score`.
    max_rounds, patience
        Most rounds, and rounds in a row that each gain less than a nat, which end the search.
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
    stagnant, kicks = 0, min(10, max(2, 1000 // d))  # a round of a large graph stays a matter of a second
    for rounds in range(1, max_rounds + 1):
        before = score.sum()
        for kick in range(kicks):
            drop = _loosen_around(graph, rng) if kick else _loosen_into(graph, rng)
            other = graph.copy(), score.copy(), gain.copy()
            stale = np.zeros(d, dtype=np.bool_)
            perturb(other[0], stale, drop, rng.random(len(drop)) < 0.5)
            climb(*other, stale, data)
            if other[1].sum() < score.sum() - TOLERANCE:
                graph, score, gain = other
        yield SearchState(graph.copy(), score.sum(), rounds)
        stagnant = 0 if score.sum() < before - 1 else stagnant + 1
        if stagnant >= patience or not graph.any():
            return


def _loosen_around(graph: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mark most edges at a random gene and among its neighbours, (edges,) bool in row-major order."""
    gene = rng.integers(len(graph))
    near = graph[gene] | graph[:, gene]
    near[gene] = True
    source, target = np.nonzero(graph)
    return (near[source] & near[target]) & (rng.random(len(source)) < 0.7)


def _loosen_into(graph: np.ndarray, rng: np.random.Generator, n_genes: int = 20) -> np.ndarray:
    """Mark a quarter of the edges into some random genes, (edges,) bool in row-major order.

    A kick into all genes of a large graph would cost as much as the first climb, and hardly ever be kept.
    """
    chosen = np.zeros(len(graph), dtype=bool)
    chosen[rng.permutation(len(graph))[:n_genes]] = True
    _, target = np.nonzero(graph)
    return chosen[target] & (rng.random(len(target)) < 0.25)
