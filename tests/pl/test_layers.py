from __future__ import annotations

from itertools import combinations

import networkx as nx
import numpy as np
import pytest

from scgim.pl._layers import layers


def random_dag(n: int, n_edges: int, seed: int) -> nx.DiGraph:
    rng = np.random.default_rng(seed)
    names = [f"g{i}" for i in rng.permutation(n)]
    pairs = list(combinations(names, 2))
    graph = nx.DiGraph()
    graph.add_nodes_from(names)
    graph.add_edges_from(pairs[i] for i in rng.choice(len(pairs), n_edges, replace=False))
    return graph


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("n", "n_edges"), [(2, 1), (8, 10), (30, 50), (15, 100)])
def test_a_drawing(n: int, n_edges: int, seed: int):
    graph = random_dag(n, n_edges, seed)
    plan = layers(graph)
    assert set(plan.nodes) == set(graph)
    assert set(plan.edges) == set(graph.edges)
    # genes of a level do not overlap, nor do edges pass through them
    points = [*plan.nodes.values(), *(bend for way in plan.edges.values() for bend in way[1:-1])]
    for i, (x, y) in enumerate(points):
        for other_x, other_y in points[:i]:
            if x == other_x:
                assert abs(y - other_y) > 0.49
    for (x, y), (other_x, other_y) in combinations(plan.nodes.values(), 2):
        assert x != other_x or abs(y - other_y) > 0.99
    # every edge runs forwards, one level a step, from its source to its target
    for (source, target), way in plan.edges.items():
        assert way[0] == plan.nodes[source]
        assert way[-1] == plan.nodes[target]
        assert set(np.diff([x for x, _ in way])) == {1.0}


def test_a_source_stands_just_before_its_child():
    plan = layers(nx.DiGraph([("a", "b"), ("b", "c"), ("c", "d"), ("late", "d")]))
    assert plan.nodes["late"][0] == 2
    assert len(plan.edges["late", "d"]) == 2


def test_a_tree_has_no_crossings():
    plan = layers(nx.DiGraph([("a", "d"), ("b", "c"), ("r", "a"), ("r", "b"), ("a", "f"), ("b", "e")]))
    order = [name for name, (x, _) in sorted(plan.nodes.items(), key=lambda item: item[1]) if x == 2]
    assert {frozenset(order[:2]), frozenset(order[2:])} == {frozenset("df"), frozenset("ce")}


def test_a_chain_is_straight():
    plan = layers(nx.DiGraph([("a", "b"), ("b", "c")]))
    assert len({y for _, y in plan.nodes.values()}) == 1


def test_lone_nodes_stand_below_all_others():
    graph = nx.DiGraph([("a", "b"), ("b", "c")])
    graph.add_nodes_from(["x", "y", "z", "w"])
    plan = layers(graph)
    lowest = max(plan.nodes[name][1] for name in "abc")
    assert all(plan.nodes[name][1] > lowest for name in "xyzw")
    assert len({plan.nodes[name] for name in "xyzw"}) == 4


def test_the_order_of_nodes_and_edges_changes_nothing():
    graph = random_dag(12, 20, 0)
    turned = nx.DiGraph()
    turned.add_nodes_from(reversed(list(graph)))
    turned.add_edges_from(reversed(list(graph.edges)))
    assert layers(graph) == layers(turned)


def test_nothing_to_draw():
    assert layers(nx.DiGraph()) == ({}, {})


def test_a_cycle_is_named():
    with pytest.raises(ValueError, match=r"The graph has a cycle \(. -> ."):
        layers(nx.DiGraph([("a", "b"), ("b", "a")]))
