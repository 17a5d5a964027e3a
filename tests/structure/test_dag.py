from __future__ import annotations

import networkx as nx
import numpy as np
import pytest

from scgim.structure import ancestors, levels, order


def random_dag(seed: int, d: int = 12, density: float = 0.25) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rank = rng.permutation(d)
    return (rng.random((d, d)) < density) & (rank[:, None] < rank)


def as_networkx(graph: np.ndarray) -> nx.DiGraph:
    return nx.from_numpy_array(graph.astype(int), create_using=nx.DiGraph)


GRAPHS = [pytest.param(random_dag(seed), id=f"random-{seed}") for seed in range(6)] + [
    pytest.param(np.zeros((5, 5), dtype=bool), id="empty"),
    pytest.param(np.zeros((1, 1), dtype=bool), id="one-gene"),
    pytest.param(np.triu(np.ones((7, 7), dtype=bool), 1), id="complete_log_likelihood"),
    pytest.param(np.eye(6, k=-1, dtype=bool), id="chain-backwards"),
]


@pytest.mark.parametrize("graph", GRAPHS)
def test_levels_are_longest_paths(graph):
    depth = dict.fromkeys(range(len(graph)), 0)
    for j in nx.topological_sort(as_networkx(graph)):
        depth[j] = max((depth[i] + 1 for i in np.flatnonzero(graph[:, j])), default=0)
    found = {int(j): depth for depth, level in enumerate(levels(graph)) for j in level}
    assert found == depth
    assert all((np.diff(level) > 0).all() for level in levels(graph))


@pytest.mark.parametrize("graph", GRAPHS)
def test_order_puts_causes_first(graph):
    rank = np.argsort(order(graph))
    assert sorted(order(graph)) == list(range(len(graph)))
    assert all(rank[i] < rank[j] for i, j in np.argwhere(graph))


@pytest.mark.parametrize("graph", GRAPHS)
def test_ancestors_agree_with_networkx(graph):
    before, other = graph.copy(), as_networkx(graph)
    reach = ancestors(graph)
    assert reach.dtype == bool
    assert [set(np.flatnonzero(column)) for column in reach.T] == [nx.ancestors(other, j) for j in other]
    np.testing.assert_array_equal(graph, before)


@pytest.mark.parametrize("dtype", [int, float, np.float32, np.int8])
def test_weights_count_as_edges_whatever_their_size(dtype):
    """A coefficient of .3 is an edge, and whole numbers are no row numbers."""
    graph = random_dag(3)
    weight = (graph * (0.3 if np.dtype(dtype).kind == "f" else 2)).astype(dtype)
    np.testing.assert_array_equal(order(weight), order(graph))
    np.testing.assert_array_equal(ancestors(weight), ancestors(graph))


@pytest.mark.parametrize("ask", [levels, order, ancestors])
@pytest.mark.parametrize(
    "edges",
    [
        pytest.param([(0, 0)], id="self"),
        pytest.param([(0, 1), (1, 0)], id="pair"),
        pytest.param([(0, 1), (1, 2), (2, 3), (3, 1)], id="behind-a-chain"),
    ],
)
def test_a_cycle_is_named(ask, edges):
    graph = np.zeros((5, 5), dtype=bool)
    graph[tuple(zip(*edges, strict=True))] = True
    i, j = edges[-1]
    with pytest.raises(ValueError, match=rf"cycle: \[.*\({i}, {j}.*\]"):
        ask(graph)
