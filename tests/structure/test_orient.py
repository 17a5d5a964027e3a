from __future__ import annotations

import networkx as nx
import numpy as np
import pytest

from scgim.statistics import accumulate
from scgim.structure import levels, orient_equivalent_edges, search_dag
from scgim.structure.score import score_data


def acyclic(graph):
    return nx.is_directed_acyclic_graph(nx.from_numpy_array(graph, create_using=nx.DiGraph))


def orders(graph):
    """How many causal orders a graph allows."""
    return sum(1 for _ in nx.all_topological_sorts(nx.from_numpy_array(graph, create_using=nx.DiGraph)))


def tree(seed: int, d: int = 6):
    """Controls alone, from a random tree with one root: every other root explains them as well."""
    rng = np.random.default_rng(seed)
    graph, x = np.zeros((d, d), dtype=bool), rng.normal(size=(3000, d))
    for j in range(1, d):
        graph[rng.integers(j), j] = True
    for j in range(1, d):
        x[:, j] += x[:, graph[:, j]].sum(1)
    order = rng.permutation(d)
    s = accumulate([(x[:, order], np.zeros(len(x), dtype=int))], n_conditions=1, n_genes=d)
    return graph[np.ix_(order, order)], s


@pytest.mark.parametrize("seed", range(6))
def test_of_equal_graphs_one_of_the_most_orders_is_taken(seed):
    graph, s = tree(seed)
    skeleton = nx.from_numpy_array(graph | graph.T)
    rooted = [nx.to_numpy_array(nx.bfs_tree(skeleton, root), nodelist=range(len(graph))) > 0 for root in skeleton]
    oriented = orient_equivalent_edges(graph, s)
    assert (oriented | oriented.T == graph | graph.T).all()
    assert any((oriented == each).all() for each in rooted)
    assert orders(oriented) == max(map(orders, rooted))


@pytest.mark.parametrize("seed", range(4))
def test_edges_and_score_stay(screen, score, seed):
    s = screen(seed).statistics
    *_, last = search_dag(s)
    before = last.graph.copy()
    oriented = orient_equivalent_edges(last.graph, s)
    assert (last.graph == before).all()
    assert acyclic(oriented)
    assert (oriented | oriented.T == before | before.T).all()
    assert score(oriented, s) - score(before, s) < len(before) * np.log(len(before))
    assert (orient_equivalent_edges(oriented, s) == oriented).all()


def test_what_the_data_tell_stays():
    """A drug shifts the middle of a chain: where it acts from is known."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 3))
    x[2000:, 0] += 2
    x[:, 1] += x[:, 0]
    x[:, 2] += x[:, 1]
    s = accumulate([(x, np.repeat([0, 1], 2000))], n_conditions=2, n_genes=3)
    chain = np.array([[0, 1, 0], [0, 0, 1], [0, 0, 0]], dtype=bool)
    assert (orient_equivalent_edges(chain, s) == chain).all()


def test_priors_are_obeyed():
    for seed in range(6):
        graph, s = tree(seed)
        free = orient_equivalent_edges(graph, s)
        turned = np.argwhere(free & ~graph)
        allowed = ~np.eye(len(graph), dtype=bool)
        allowed[tuple(turned.T)] = False
        assert not (orient_equivalent_edges(graph, s, allowed=allowed) & ~allowed).any()
        assert (orient_equivalent_edges(graph, s, required=graph) == graph).all()


@pytest.mark.parametrize("intervention", ["shift", "hard"])
def test_any_score(screen, intervention):
    made = screen(0)
    s = accumulate([(made.x, made.code)], n_conditions=made.code.max() + 1, n_genes=made.x.shape[1], own=True)
    *_, last = search_dag(s, intervention=intervention)
    levels(orient_equivalent_edges(last.graph, s, intervention=intervention))
    assert np.isfinite(score_data(s, intervention=intervention).scatter).all()


def test_no_edges():
    s = accumulate(
        [(np.random.default_rng(0).normal(size=(50, 3)), np.zeros(50, dtype=int))], n_conditions=1, n_genes=3
    )
    assert not orient_equivalent_edges(np.zeros((3, 3), dtype=bool), s).any()
