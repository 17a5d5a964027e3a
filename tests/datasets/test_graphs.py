from __future__ import annotations

import networkx as nx
import numpy as np
import pytest

from scgim.datasets._graphs import descendants, random_dag, topological_order

KINDS = ["er", "sf"]


def draw(kind: str, n: int, degree: float, seed: int) -> np.ndarray:
    return random_dag(n, kind=kind, degree=degree, rng=np.random.default_rng(seed))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "degree"), [(2, 1), (5, 4), (20, 2), (50, 0.5), (30, 0)])
def test_acyclic(kind, n, degree):
    for seed in range(5):
        graph = nx.from_numpy_array(draw(kind, n, degree, seed), create_using=nx.DiGraph)
        assert nx.is_directed_acyclic_graph(graph)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("degree", [1, 2, 4])
def test_mean_degree(kind, degree):
    in_degree = np.mean([draw(kind, 60, degree, seed).sum() / 60 for seed in range(30)])
    assert in_degree == pytest.approx(degree, rel=0.1)


def test_degree_beyond_the_complete_dag_gives_the_complete_dag():
    assert draw("er", 6, 5, 0).sum() == 15


@pytest.mark.parametrize("kind", KINDS)
def test_no_edges_without_degree(kind):
    assert not draw(kind, 20, 0, 0).any()


def test_scale_free_has_hubs():
    largest = {k: np.mean([(g + g.T).sum(0).max() for g in (draw(k, 100, 2, s) for s in range(20))]) for k in KINDS}
    assert largest["sf"] > 1.5 * largest["er"]


@pytest.mark.parametrize("kind", KINDS)
def test_position_tells_neither_order_nor_degree(kind):
    graphs = [draw(kind, 20, 2, seed) for seed in range(200)]
    forward = np.mean([np.triu(g).sum() / g.sum() for g in graphs])
    assert forward == pytest.approx(0.5, abs=0.03)
    degree = np.mean([g + g.T for g in graphs], axis=0).sum(0)
    assert abs(degree / degree.mean() - 1).max() < 0.25
    out_share = np.mean([g.sum(1) for g in graphs], axis=0) / (degree / 1)
    assert abs(out_share - 0.5).max() < 0.1


def test_order_and_descendants_agree_with_networkx():
    for seed in range(10):
        graph = draw("er", 15, 2, seed)
        other = nx.from_numpy_array(graph, create_using=nx.DiGraph)
        rank = np.argsort(topological_order(graph))
        assert all(rank[i] < rank[j] for i, j in other.edges)
        reach = descendants(graph)
        assert all(set(np.flatnonzero(reach[i])) == nx.descendants(other, i) for i in range(15))
