from __future__ import annotations

from typing import Any, NamedTuple

import networkx as nx
import numpy as np
from scipy.optimize import isotonic_regression


class Layers(NamedTuple):
    """A layered drawing: positions of nodes, and the points of every edge, as (level, height)."""

    nodes: dict[str, tuple[float, float]]
    edges: dict[tuple[str, str], list[tuple[float, float]]]


def layers(graph: nx.DiGraph, *, sweeps: int = 24) -> Layers:
    """Place the nodes of a DAG on levels so that edges run forwards, rarely cross and never pass through a node.

    The method is that of Sugiyama, Tagawa & Toda (1981). The level of a node is the length of the longest path to it. An edge over
    several levels gets a dummy node on each level between. Nodes are ordered within their level by the mean height of their neighbors.
    Finally, heights minimize the squared distance to this mean, given the order and a least spacing; this is isotonic regression. Nodes
    without edges fill rows of their own below all others.

    Raises
    ------
    ValueError
        If the graph has a cycle.
    """
    alone = list(nx.isolates(graph))
    graph = graph.subgraph(set(graph) - set(alone))
    level = _levels(graph)
    chains = {
        (u, v): [u, *((u, v, depth) for depth in range(level[u] + 1, level[v])), v] for u, v in sorted(graph.edges)
    }
    columns: dict[int, list[Any]] = {depth: [] for depth in sorted(set(level.values()))}
    neighbors: dict[Any, list[Any]] = {node: [] for node in sorted(graph)}
    for chain in chains.values():
        for a, b in zip(chain, chain[1:], strict=False):
            neighbors.setdefault(a, []).append(b)
            neighbors.setdefault(b, []).append(a)
    depth_of = level | {node: node[2] for chain in chains.values() for node in chain[1:-1]}
    for node in neighbors:
        columns[depth_of[node]].append(node)

    height = {node: i - (len(column) - 1) / 2 for column in columns.values() for i, node in enumerate(column)}
    for sweep in range(2 * sweeps):
        for depth in sorted(columns, reverse=bool(sweep % 2)):
            wanted = {n: float(np.mean([height[m] for m in neighbors[n]])) for n in columns[depth]}
            if sweep < sweeps:
                columns[depth].sort(key=lambda node: wanted[node])
            height.update(_spread(columns[depth], wanted))

    nodes = {node: (float(level[node]), height[node]) for node in sorted(graph)}
    width, below = max(columns, default=2) + 1, max(height.values(), default=-1.5) + 1.5
    nodes |= {node: (float(i % width), below + i // width) for i, node in enumerate(alone)}
    edges = {edge: [(float(depth_of[n]), height[n]) for n in chain] for edge, chain in chains.items()}
    return Layers(nodes, edges)


def _levels(graph: nx.DiGraph) -> dict[str, int]:
    if not nx.is_directed_acyclic_graph(graph):
        cycle = " -> ".join(str(u) for u, _ in nx.find_cycle(graph))
        raise ValueError(f"The graph has a cycle ({cycle}), so it has no levels to draw.")
    level = {node: i for i, generation in enumerate(nx.topological_generations(graph)) for node in generation}
    # A source moves right, to the level before its first child, which shortens its edges.
    for node in graph:
        if graph.in_degree(node) == 0 and graph.out_degree(node) > 0:
            level[node] = min(level[child] for child in graph.successors(node)) - 1
    return level


def _spread(column: list[Any], wanted: dict[Any, float]) -> dict[Any, float]:
    size = np.array([0.5 if isinstance(node, tuple) else 1.0 for node in column])
    offset = np.cumsum(size) - size / 2
    fitted = isotonic_regression(np.array([wanted[node] for node in column]) - offset).x + offset
    return dict(zip(column, fitted, strict=True))
