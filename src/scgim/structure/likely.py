"""Likely edges that the data do not support."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .kernels import local_score
from .score import edge_price, score_data

if TYPE_CHECKING:
    from scgim.statistics import ConditionMeans, SufficientStatistics

    from .score import Intervention

LEAST_PRICE = 0.25  # least gain of a likely edge in the likelihood, as a share of the price of an edge


def drop_unsupported_edges(
    graph: np.ndarray,
    statistics: SufficientStatistics | ConditionMeans,
    *,
    edge_log_odds: np.ndarray | None,
    required: np.ndarray | None = None,
    allowed: np.ndarray | None = None,
    columns: int = 1,
    intervention: Intervention = "shift",
    target_penalty: float | None = None,
    penalty: float | None = None,
) -> np.ndarray:
    """Drop likely edges that gain less than a quarter of the price of an edge in the likelihood alone.

    Log odds beyond the price of an edge would keep an edge without any effect. They are meant to decide directions and weak edges. So the
    edges of a gene with positive log odds are dropped one by one, the least supported edge first.

    Parameters
    ----------
    graph
        ``(genes, genes)`` bool, row = source; not changed.
    statistics, edge_log_odds, required, allowed, columns, intervention, target_penalty, penalty
        The arguments of :func:`~scgim.structure.search_dag`, which found the graph. Required edges are kept.

    Examples
    --------
    >>> import numpy as np
    >>> from scgim.statistics import accumulate
    >>> x = np.random.default_rng(0).normal(size=(2000, 3))
    >>> x[:, 1] += x[:, 0]
    >>> s = accumulate([(x, np.zeros(2000, dtype=int))], n_conditions=1, n_genes=3)
    >>> graph = np.array([[0, 1, 1], [0, 0, 0], [0, 0, 0]], dtype=bool)
    >>> np.argwhere(drop_unsupported_edges(graph, s, edge_log_odds=50.0 * graph)).tolist()
    [[0, 1]]
    """
    if edge_log_odds is None:
        return graph
    likely = (edge_log_odds > 0) & (True if required is None else ~required)
    score = {"columns": columns, "intervention": intervention, "target_penalty": target_penalty}
    data, graph = score_data(statistics, penalty=penalty, **score), graph.copy()
    refund = (1 - LEAST_PRICE) * edge_price(statistics, columns=columns, penalty=penalty)
    for j in np.flatnonzero((graph & likely).any(0)):
        while (tested := np.flatnonzero(graph[:, j] & likely[:, j])).size:
            parents = np.flatnonzero(graph[:, j])
            present = local_score(j, parents, len(parents), data) - refund
            without = [local_score(j, np.setdiff1d(parents, i), len(parents) - 1, data) for i in tested]
            if min(without) >= present:
                break
            graph[tested[int(np.argmin(without))], j] = False
    return graph
