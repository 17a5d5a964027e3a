"""Order and reachability of a DAG, given as a boolean matrix with row = source."""

from __future__ import annotations

import networkx as nx
import numpy as np


def levels(graph: np.ndarray) -> list[np.ndarray]:
    """Topological generations: genes by the length of the longest path that ends in them; parents lie in earlier generations.

    Raises
    ------
    ValueError
        If the graph has a cycle.

    Examples
    --------
    >>> import numpy as np
    >>> chain = np.array([[0, 1, 1], [0, 0, 1], [0, 0, 0]], dtype=bool)
    >>> [level.tolist() for level in levels(chain)]
    [[0], [1], [2]]
    """
    graph = nx.from_numpy_array(np.asarray(graph, dtype=bool), create_using=nx.DiGraph)
    if not nx.is_directed_acyclic_graph(graph):
        raise ValueError(f"The graph has a cycle: {nx.find_cycle(graph)}.")
    return [np.sort(np.array(level, dtype=np.int64)) for level in nx.topological_generations(graph)]


def order(graph: np.ndarray) -> np.ndarray:
    """A topological order of the genes, ``(genes,)`` int."""
    return np.concatenate(levels(graph))


def ancestors(graph: np.ndarray) -> np.ndarray:
    """``out[i, j]`` is true if a directed path leads from ``i`` to ``j``; ``(genes, genes)`` bool, false on the diagonal."""
    graph = np.asarray(graph, dtype=bool)
    reach = np.zeros(graph.shape, dtype=bool)
    for j in order(graph):
        parents = graph[:, j]
        reach[:, j] = parents | reach[:, parents].any(1)
    return reach
