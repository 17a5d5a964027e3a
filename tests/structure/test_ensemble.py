from __future__ import annotations

import numpy as np
import pytest

from scgim.statistics import ConditionMeans, accumulate
from scgim.structure import Calls, GraphEnsemble, decisive_edges, resample


def edge(i: int, j: int, d: int = 3) -> np.ndarray:
    graph = np.zeros((d, d), dtype=bool)
    graph[i, j] = True
    return graph


def test_an_ensemble_gives_its_graphs_back_and_counts_edges() -> None:
    graphs = [edge(0, 1), edge(1, 0), edge(0, 1) | edge(1, 2), np.zeros((3, 3), dtype=bool)]
    ensemble = GraphEnsemble.of(graphs)
    for graph, again in zip(graphs, ensemble.graphs(), strict=True):
        np.testing.assert_array_equal(again, graph)
    np.testing.assert_allclose(ensemble.share().toarray(), np.mean(graphs, axis=0))


def test_the_probability_of_a_direction_is_that_among_graphs_with_the_edge() -> None:
    ensemble = GraphEnsemble.of([edge(0, 1)] * 6 + [edge(1, 0)] * 6 + [edge(1, 2)] * 8)
    likely = ensemble.direction_probability(np.array([0, 1, 1, 2, 0]), np.array([1, 0, 2, 1, 2]))
    np.testing.assert_allclose(likely, [0.5, 0.5, 8.5 / 9, 0.5 / 9, 0.5])


@pytest.fixture(scope="module")
def statistics():
    rng = np.random.default_rng(0)
    code = np.repeat(np.arange(7), [200, *[30] * 6])
    return accumulate([(rng.normal(size=(len(code), 4)) + code[:, None], code)], n_conditions=7, n_genes=4, own=True)


def test_blocks_of_conditions_stay_together_and_the_controls_stay(statistics) -> None:
    block = np.array([0, 0, 1, 1, 2, 2])
    rng = np.random.default_rng(1)
    seen = set()
    for _ in range(20):
        drawn = resample(statistics, block, np.zeros(6, dtype=int), rng)
        np.testing.assert_array_equal(drawn.mean[0], statistics.mean[0])
        which = [int(np.flatnonzero((statistics.mean[1:] == row).all(1))[0]) for row in drawn.mean[1:]]
        assert sorted(which) == sorted(2 * b + i for b in np.array(which)[::2] // 2 for i in (0, 1))
        np.testing.assert_allclose(drawn.scatter, drawn.own.sum(0))
        seen |= {len(set(which))}
    assert len(seen) > 1  # conditions are left out, others come twice


def test_no_stratum_loses_its_conditions(statistics) -> None:
    block, stratum = np.arange(6), np.array([0, 1, 1, 1, 2, 2])
    for seed in range(10):
        drawn = resample(statistics, block, stratum, np.random.default_rng(seed))
        which = [int(np.flatnonzero((statistics.mean[1:] == row).all(1))[0]) for row in drawn.mean[1:]]
        np.testing.assert_array_equal(np.bincount(stratum[which]), [1, 3, 2])


def test_a_pooled_scatter_keeps_its_covariance(statistics) -> None:
    from dataclasses import replace

    pooled = replace(statistics, own=None)
    drawn = resample(pooled, np.arange(6), np.zeros(6, dtype=int), np.random.default_rng(0))
    before = pooled.scatter / (pooled.n_cells - len(pooled.n))
    np.testing.assert_allclose(drawn.scatter / (drawn.n_cells - len(drawn.n)), before)


def test_means_are_drawn_row_by_row(statistics) -> None:
    means = ConditionMeans.of(statistics, np.zeros(6, dtype=int))
    drawn = resample(means, np.arange(6), np.zeros(6, dtype=int), np.random.default_rng(0))
    assert drawn.change.shape == means.change.shape
    for change, variance in zip(drawn.change, drawn.variance, strict=True):
        row = np.flatnonzero((means.change == change).all(1))[0]
        np.testing.assert_array_equal(variance, means.variance[row])
    np.testing.assert_array_equal(drawn.latent, means.latent)


def calls(rng: np.random.Generator, k: int, weight: np.ndarray) -> Calls:
    """Means and residuals that agree with a graph, with probabilities of the evidence."""
    residual = np.where(rng.random((k, len(weight))) < 0.3, rng.normal(scale=3, size=(k, len(weight))), 0.01)
    mean = residual @ np.linalg.inv(np.eye(len(weight)) - weight)
    error = np.full_like(mean, 0.1)
    return Calls(mean, residual, 5 * error, rng.uniform(0.1, 0.9, mean.shape))


def test_a_chain_hangs_on_the_edges_at_each_gene_and_an_unrelated_gene_on_none() -> None:
    weight = np.zeros((4, 4))
    weight[0, 1], weight[1, 2] = 1.0, 1.0
    mean = np.array([[-4.0, -4.0, -4.0, -2.0]])
    residual = np.array([[-4.0, 0.0, 0.0, -2.0]])
    chosen, source, target = decisive_edges(
        weight, np.ones(4), Calls(mean, residual, np.full((1, 4), 0.1), np.array([[1.0, 0.01, 0.01, 1.0]]))
    )
    pairs = [(int(source[e]), int(target[e])) if e >= 0 else None for e in chosen[0]]
    assert pairs == [(0, 1), (0, 1), (1, 2), None]


def test_decisive_edges_follow_the_genes_and_do_not_depend_on_blocks(monkeypatch) -> None:
    from scgim.structure import decisive

    rng = np.random.default_rng(2)
    weight = np.triu(rng.normal(size=(8, 8)) * (rng.random((8, 8)) < 0.4), 1)
    c, variance = calls(rng, 30, weight), rng.uniform(0.5, 2, 8)
    chosen, source, target = decisive_edges(weight, variance, c)
    name = lambda e, s, t, p: np.where(e >= 0, p[s[e]] * 8 + p[t[e]], -1)
    order = rng.permutation(8)
    moved = decisive_edges(weight[np.ix_(order, order)], variance[order], Calls(*(a[:, order] for a in c)))
    np.testing.assert_array_equal(name(*moved, order), name(chosen, source, target, np.arange(8))[:, order])
    monkeypatch.setattr(decisive, "_BLOCK", 10)
    np.testing.assert_array_equal(decisive_edges(weight, variance, c)[0], chosen)
    assert (chosen >= 0).any()
    assert (chosen < 0).any()


def test_without_edges_nothing_hangs_on_any() -> None:
    c = calls(np.random.default_rng(0), 3, np.zeros((2, 2)))
    assert (decisive_edges(np.zeros((2, 2)), np.ones(2), c)[0] == -1).all()
