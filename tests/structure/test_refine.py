from __future__ import annotations

from typing import NamedTuple

import networkx as nx
import numpy as np
import pytest

from scgim.structure import refine_dag
from scgim.structure.networks import NetworkScore, _design, _tangent

SIZE = np.array([600, 300, 300, 300, 300])
EDGES = [(0, 2), (1, 2), (2, 3), (0, 4), (3, 4), (3, 5)]


class Cells(NamedTuple):
    x: np.ndarray
    graph: np.ndarray
    with_target: np.ndarray  # (conditions, genes)


def draw(seed: int, *, hard: bool = False) -> Cells:
    """Six genes, two of which are products of their parents; every condition but the first touches one of them."""
    rng = np.random.default_rng(seed)
    code = np.repeat(np.arange(len(SIZE)), SIZE)
    graph, with_target = np.zeros((6, 6), dtype=bool), np.zeros((len(SIZE), 6), dtype=bool)
    graph[tuple(np.transpose(EDGES))] = True
    with_target[[1, 2, 3, 4], [0, 2, 3, 4]] = True
    read = [
        lambda x: 0 * x[:, 0],
        lambda x: 0 * x[:, 0],
        lambda x: np.tanh((x[:, 0] + 0.5) * (x[:, 1] - 0.5)),
        lambda x: np.sin(1.5 * x[:, 2]),
        lambda x: np.tanh(x[:, 0] * x[:, 3]),
        lambda x: np.tanh(2 * x[:, 3]) + 0.5 * x[:, 3],
    ]
    x = np.zeros((len(code), 6))
    for j, f in enumerate(read):
        shift = with_target[code, j]
        x[:, j] = (f(x) * ~shift if hard else f(x)) + 1.5 * shift + (1 if j < 2 else 0.4) * rng.normal(size=len(code))
    x = (x - x[code == 0].mean(0)) / x[code == 0].std(0)
    return Cells(x.astype(np.float32), graph, with_target)


def refine(cells: Cells, start: np.ndarray, **options) -> np.ndarray:
    return refine_dag(start, cells.x, SIZE, np.zeros_like(cells.with_target), **options)


def complete(cells: Cells) -> np.ndarray:
    """All edges along the causal order: what a search by an additive score tends to."""
    return np.triu(np.ones(cells.graph.shape, dtype=bool), 1)


@pytest.mark.parametrize("intervention", ["shift", "hard"])
@pytest.mark.parametrize("seed", range(3))
def test_products_keep_both_parents_and_nothing_else(seed, intervention):
    cells = draw(seed, hard=intervention == "hard")
    found = refine(cells, complete(cells), intervention=intervention)
    np.testing.assert_array_equal(found, cells.graph)


@pytest.mark.parametrize("seed", range(3))
def test_additive_data_keep_their_edges(seed, screen):
    data = screen(seed, sizes=(900, 200, 200, 200, 200))
    size = np.bincount(data.code)
    found = refine_dag(data.graph, data.x, size, data.target)
    np.testing.assert_array_equal(found, data.graph)


@pytest.mark.parametrize("edge", EDGES)
def test_a_missing_edge_is_added(edge):
    cells = draw(3)
    start = cells.graph.copy()
    start[edge] = False
    np.testing.assert_array_equal(refine(cells, start), cells.graph)


@pytest.mark.parametrize("edge", [(2, 3), (3, 5)])
def test_a_reversed_edge_is_turned(edge):
    cells = draw(4)
    start = cells.graph.copy()
    start[edge], start[edge[::-1]] = False, True
    start[0, 4] = start[3, 4]  # stays acyclic
    assert nx.is_directed_acyclic_graph(nx.from_numpy_array(start, create_using=nx.DiGraph))
    np.testing.assert_array_equal(refine(cells, start), cells.graph)


def test_a_tie_stays():
    x = np.random.default_rng(0).normal(size=(2000, 2)).cumsum(1)
    for graph in ([[0, 1], [0, 0]], [[0, 0], [1, 0]]):
        start = np.array(graph, dtype=bool)
        np.testing.assert_array_equal(refine_dag(start, x, np.array([2000]), np.zeros((1, 2), dtype=bool)), start)


@pytest.mark.parametrize("seed", range(3))
def test_genes_in_another_order(seed):
    cells, order = draw(seed), np.random.default_rng(seed).permutation(6)
    other = Cells(cells.x[:, order], cells.graph, cells.with_target)
    start = complete(cells)[np.ix_(order, order)]
    np.testing.assert_array_equal(refine(other, start), refine(cells, complete(cells))[np.ix_(order, order)])


def test_the_same_twice():
    cells = draw(0)
    a, b = (NetworkScore(cells.x, SIZE).first(4, np.arange(4), cells.with_target[:, 4]) for _ in range(2))
    assert a.score == b.score
    np.testing.assert_array_equal(a.inner, b.inner)


@pytest.mark.parametrize("seed", range(4))
def test_priors_hold_and_no_cycle_is_closed(seed):
    rng, cells = np.random.default_rng(seed), draw(seed)
    rank = rng.permutation(6)
    start = (rng.random((6, 6)) < 0.4) & (rank[:, None] < rank)
    required = start & (rng.random((6, 6)) < 0.3)
    allowed = (rng.random((6, 6)) < 0.7) | start
    found = refine(cells, start, allowed=allowed, required=required)
    assert nx.is_directed_acyclic_graph(nx.from_numpy_array(found, create_using=nx.DiGraph))
    assert (found >= required).all()
    assert (found <= allowed).all()


@pytest.mark.parametrize("intervention", ["shift", "hard"])
def test_targets_are_found(intervention):
    cells = draw(5, hard=intervention == "hard")
    score = NetworkScore(cells.x, SIZE, intervention=intervention)
    for j in range(6):
        network = score.first(j, np.flatnonzero(cells.graph[:, j]), np.zeros(len(SIZE), dtype=bool))
        np.testing.assert_array_equal(network.moved, cells.with_target[:, j])


def test_nothing_but_the_mean_without_parents():
    x = draw(0).x
    score = NetworkScore(x, np.array([len(x)])).first(0, np.array([], dtype=int), np.zeros(1, dtype=bool))
    assert score.score == pytest.approx(0.5 * len(x) * np.log(x[:, 0].var()), rel=1e-4)


def test_a_linear_gene_costs_what_a_regression_leaves():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(2000, 3))
    x = np.c_[z, z @ [1.0, -0.5, 0.3] + rng.normal(size=2000)]
    score = NetworkScore(x, np.array([2000]))
    got = score.first(3, np.arange(3), np.zeros(1, dtype=bool)).score - 3 * score.price
    design = np.c_[np.ones(2000), z]
    left = x[:, 3] - design @ np.linalg.lstsq(design, x[:, 3], rcond=None)[0]
    assert 1000 * np.log(left.var()) - 40 < got < 1000 * np.log(left.var()) + 3


def test_the_tangent_is_the_derivative():
    rng = np.random.default_rng(0)
    z, inner, bias, readout = rng.normal(size=(2, 7)), rng.normal(size=(2, 3)), rng.normal(size=3), rng.normal(size=6)
    tangent, step = _tangent(_design(z, inner, bias), 2, readout), 1e-6

    def value(parameters):
        r, b, w = np.split(parameters, [6, 9])
        return r @ _design(z, w.reshape(2, 3), b)

    at = np.concatenate([readout, bias, inner.ravel()])
    numeric = [(value(at + step * e) - value(at - step * e)) / (2 * step) for e in np.eye(len(at))]
    np.testing.assert_allclose(tangent, numeric, atol=1e-8)
