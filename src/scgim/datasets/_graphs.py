"""Random directed acyclic graphs. A graph is a boolean matrix, row = source, column = target."""

from __future__ import annotations

from typing import Literal

import networkx as nx
import numpy as np

Graph = Literal["er", "sf"]


def random_dag(n_genes: int, *, kind: Graph, degree: float, rng: np.random.Generator) -> np.ndarray:
    """A random DAG with about ``degree * n_genes`` edges, in a uniformly random order of the genes.

    ``"er"`` (Erdos-Renyi): every pair of genes is joined with the same probability, ``2 * degree / (n_genes - 1)``, at most 1.
    ``"sf"`` (scale-free): the undirected graph of Barabasi and Albert, with ``round(degree)`` edges for every new gene. Edges point along
    a random order of the genes. This order is independent of the order of attachment, so hubs are causes as often as effects.

    Returns
    -------
    ndarray of shape (n_genes, n_genes), bool
    """
    joined = _JOIN[kind](n_genes, degree, rng)
    name, rank = rng.permutation(n_genes), rng.permutation(n_genes)
    return (joined | joined.T)[np.ix_(name, name)] & (rank[:, None] < rank[None, :])


def _erdos_renyi(n_genes: int, degree: float, rng: np.random.Generator) -> np.ndarray:
    return np.triu(rng.random((n_genes, n_genes)) < 2 * degree / (n_genes - 1), k=1)


def _barabasi_albert(n_genes: int, degree: float, rng: np.random.Generator) -> np.ndarray:
    if degree == 0:
        return np.zeros((n_genes, n_genes), dtype=bool)
    attached = min(max(1, round(degree)), n_genes - 1)
    graph = nx.barabasi_albert_graph(n_genes, attached, seed=int(rng.integers(2**31)))
    return nx.to_numpy_array(graph, nodelist=range(n_genes)) > 0


_JOIN = {"er": _erdos_renyi, "sf": _barabasi_albert}


def topological_order(graph: np.ndarray) -> list[int]:
    """The genes in topological order."""
    return list(nx.topological_sort(nx.from_numpy_array(graph, create_using=nx.DiGraph)))


def descendants(graph: np.ndarray) -> np.ndarray:
    """Entry ``(i, j)`` is true if a directed path leads from ``i`` to ``j != i``; (n_genes, n_genes) bool."""
    reach = graph.copy()
    for i in reversed(topological_order(graph)):
        reach[i] |= reach[graph[i]].any(axis=0)
    return reach
