"""Directions of Markov-equivalent edges, which the data do not determine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .kernels import MAX_PARENTS, TOLERANCE, local_score
from .score import score_data

if TYPE_CHECKING:
    from collections.abc import Iterable

    from scgim.statistics import ConditionMeans, SufficientStatistics

    from .score import Intervention

SWEEPS = 10


def orient_equivalent_edges(
    graph: np.ndarray,
    statistics: SufficientStatistics | ConditionMeans,
    *,
    columns: int = 1,
    intervention: Intervention = "shift",
    target_penalty: float | None = None,
    penalty: float | None = None,
    allowed: np.ndarray | None = None,
    required: np.ndarray | None = None,
    edge_log_odds: np.ndarray | None = None,
) -> np.ndarray:
    r"""Orient edges whose direction hardly changes the score by a prior over topological orders.

    Some genes are no target of any drug. Two Markov-equivalent graphs of such genes have the same score. If every order of the
    genes is equally likely, the prior probability of a graph is proportional to the number of orders that it allows. For a forest of
    :math:`d` genes this number is :math:`d! / \prod_v s_v`, where :math:`s_v` counts gene :math:`v` and its descendants. Therefore

    .. math:: \sum_v \log s_v

    is added to the score, and the sum is minimized by one reversal after another. Of two genes, the gene with more descendants
    comes first.

    Parameters
    ----------
    graph
        ``(genes, genes)`` bool, row = source, acyclic; not changed.
    statistics, columns, intervention, target_penalty, penalty, allowed, required, edge_log_odds
        The arguments of :func:`~scgim.structure.search_dag`, which found the graph.

    Returns
    -------
    A graph with the same edges, some of them reversed, acyclic. Its score is larger by a few nats at most.

    Examples
    --------
    >>> import numpy as np
    >>> from scgim.statistics import accumulate
    >>> x = np.random.default_rng(0).normal(size=(2000, 3)).cumsum(1)[:, [1, 0, 2]]  # a chain 1 -> 0 -> 2
    >>> s = accumulate([(x, np.zeros(2000, dtype=int))], n_conditions=1, n_genes=3)
    >>> chain = np.array([[0, 0, 1], [1, 0, 0], [0, 0, 0]], dtype=bool)
    >>> np.argwhere(
    ...     orient_equivalent_edges(chain, s)
    ... ).tolist()  # the ends of the chain are interchangeable, and more orders start in the middle
    [[0, 1], [0, 2]]
    """
    data = score_data(
        statistics,
        columns=columns,
        intervention=intervention,
        target_penalty=target_penalty,
        penalty=penalty,
        edge_log_odds=edge_log_odds,
    )
    graph, d = np.array(graph, dtype=bool), len(graph)
    score = np.array([_score(graph[:, j], j, data) for j in range(d)])
    children, parents = ([set(np.flatnonzero(row).tolist()) for row in each] for each in (graph, graph.T))
    size = np.array([len(_reached(children, [v])) for v in range(d)])
    # The prior can return at most log d nats, so costlier reversals are skipped before any descendant is counted.
    most = np.log(max(d, 2))
    for _ in range(SWEEPS):
        turned = False
        for i, j in np.argwhere(graph).tolist():
            if (allowed is not None and not allowed[j, i]) or (required is not None and required[i, j]):
                continue
            turn = np.array([i, j]), np.array([j, i])
            graph[turn] = ~graph[turn]
            new = [_score(graph[:, k], k, data) for k in (i, j)]
            change = sum(new) - score[[i, j]].sum()
            _turn(children, parents, i, j)
            # A second path from i to j would close a cycle with the reversed edge.
            if change < most and j not in _reached(children, children[i]):
                above = list(_reached(parents, [i, j]))  # only these genes can lose or gain descendants
                after = np.array([len(_reached(children, [v])) for v in above])
                if change + np.log(after / size[above]).sum() < -TOLERANCE:
                    turned, size[above], score[[i, j]] = True, after, new
                    continue
            _turn(children, parents, j, i)
            graph[turn] = ~graph[turn]
        if not turned:
            break
    return graph


def turn_edges(
    graph: np.ndarray,
    statistics: SufficientStatistics | ConditionMeans,
    *,
    seed: int = 0,
    columns: int = 1,
    intervention: Intervention = "shift",
    target_penalty: float | None = None,
    penalty: float | None = None,
    allowed: np.ndarray | None = None,
    required: np.ndarray | None = None,
    edge_log_odds: np.ndarray | None = None,
) -> np.ndarray:
    r"""Draw the direction of every edge once, in random order, given all other edges (one sweep of Gibbs sampling).

    An edge whose reversal changes the score by :math:`\Delta` nats and closes no cycle is reversed with probability
    :math:`1 / (1 + e^\Delta)`: one half if the data do not determine the direction.

    Parameters
    ----------
    graph
        ``(genes, genes)`` bool, row = source, acyclic; not changed.
    seed
        Seed of the order and of the draws.
    statistics, columns, intervention, target_penalty, penalty, allowed, required, edge_log_odds
        The arguments of :func:`~scgim.structure.search_dag`.

    Examples
    --------
    >>> import numpy as np
    >>> from scgim.statistics import accumulate
    >>> x = np.random.default_rng(0).normal(size=(2000, 2)).cumsum(1)
    >>> s = accumulate([(x, np.zeros(2000, dtype=int))], n_conditions=1, n_genes=2)
    >>> edge = np.array([[0, 1], [0, 0]], dtype=bool)
    >>> bool(0.3 < np.mean([turn_edges(edge, s, seed=i)[0, 1] for i in range(100)]) < 0.7)
    True
    """
    data = score_data(
        statistics,
        columns=columns,
        intervention=intervention,
        target_penalty=target_penalty,
        penalty=penalty,
        edge_log_odds=edge_log_odds,
    )
    graph, rng = np.array(graph, dtype=bool), np.random.default_rng([seed, 0x7E11])
    children, parents = ([set(np.flatnonzero(row).tolist()) for row in each] for each in (graph, graph.T))
    score = np.array([_score(graph[:, j], j, data) for j in range(len(graph))])
    edges = np.argwhere(graph)
    for i, j in edges[rng.permutation(len(edges))].tolist():
        # The draw comes before all tests, so that the random stream does not depend on which reversals are legal.
        draw = rng.random()
        if (allowed is not None and not allowed[j, i]) or (required is not None and required[i, j]):
            continue
        if len(parents[i]) >= MAX_PARENTS:
            continue
        turn = np.array([i, j]), np.array([j, i])
        graph[turn] = ~graph[turn]
        new = [_score(graph[:, k], k, data) for k in (i, j)]
        change = sum(new) - score[[i, j]].sum()
        _turn(children, parents, i, j)
        # The exponent is capped, because exp overflows beyond 709.
        if draw < 1 / (1 + np.exp(min(change, 700.0))) and j not in _reached(children, children[i]):
            score[[i, j]] = new
            continue
        _turn(children, parents, j, i)
        graph[turn] = ~graph[turn]
    return graph


def _score(column: np.ndarray, j: int, data: tuple) -> float:
    parents = np.flatnonzero(column)
    return local_score(j, parents, len(parents), data)


def _turn(children: list[set[int]], parents: list[set[int]], i: int, j: int) -> None:
    """Reverse the edge ``i -> j`` in both adjacency lists."""
    children[i].discard(j)
    parents[j].discard(i)
    children[j].add(i)
    parents[i].add(j)


def _reached(follow: list[set[int]], start: Iterable[int]) -> set[int]:
    """Genes that can be reached from ``start``, with ``start`` itself."""
    seen, front = set(start), list(start)
    while front:
        new = follow[front.pop()] - seen
        seen |= new
        front.extend(new)
    return seen
