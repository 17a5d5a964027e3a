from __future__ import annotations

from dataclasses import replace

import networkx as nx
import numpy as np
import pytest

from scgim.statistics import ConditionMeans
from scgim.structure import fit_graph, local_score, orient_equivalent_edges, search_dag
from scgim.structure.candidates import N_MOVING, candidates, moving_together
from scgim.structure.kernels import fit_gene
from scgim.structure.score import FLOOR, MISFIT, MISMATCH, SLAB, score_data

OF_GENES = {"change": 1, "variance": 1, "control": 1, "reliability": 0, "correlation": 2, "latent": 2}


def covariance(rng: np.random.Generator, d: int) -> np.ndarray:
    a = rng.normal(size=(d, d + 2))
    return a @ a.T / (d + 2)


def draw_means(seed: int, *, d: int = 6, conditions: int = 12, lines: int = 2) -> ConditionMeans:
    """Random in everything that a score may look at."""
    rng = np.random.default_rng(seed)
    correlation, latent = covariance(rng, d), covariance(rng, d)
    sd = np.sqrt(np.diag(correlation))
    return ConditionMeans(
        n=rng.integers(5, 90, conditions).astype(float),
        change=rng.normal(size=(conditions, d)) * rng.choice([0.1, 1.0], (conditions, d)),
        variance=rng.uniform(0.001, 0.1, (conditions, d)),
        line=np.arange(conditions) % lines,
        control=rng.uniform(0.001, 0.02, (lines, d)),
        correlation=correlation / np.outer(sd, sd),
        latent=latent,
        reliability=rng.uniform(0.01, 1, d),
        n_cells=float(rng.integers(100, 5000)),
    )


def draw_screen(
    seed: int, *, d: int = 8, hard: bool = False, density: float = 0.3
) -> tuple[np.ndarray, ConditionMeans]:
    """A linear DAG, every gene shifted alone in three conditions, and what the means of 100 cells of each show."""
    rng = np.random.default_rng(seed)
    rank = rng.permutation(d)
    graph = (rng.random((d, d)) < density) & (rank[:, None] < rank)
    weight = graph * rng.uniform(0.5, 1.2, (d, d)) * rng.choice([-1, 1], (d, d))
    target = np.tile(np.eye(d), (3, 1))
    shift = target * rng.uniform(1.5, 3, (3 * d, 1)) * rng.choice([-1, 1], (3 * d, 1))
    change = np.zeros_like(shift)
    for j in np.argsort(rank):
        reads = 1 - target[:, j] if hard else 1
        change[:, j] = reads * (change @ weight[:, j]) + shift[:, j]
    variance = np.full(change.shape, 0.01)
    total = np.linalg.inv(np.eye(d) - weight)
    means = ConditionMeans(
        n=np.full(3 * d, 100.0),
        change=change + 0.1 * rng.normal(size=change.shape),
        variance=variance,
        line=np.zeros(3 * d, dtype=int),
        control=np.full((1, d), 1e-3),
        correlation=np.eye(d),
        latent=0.3 * total.T @ total,
        reliability=np.full(d, 0.3),
        n_cells=300.0 * d,
    )
    return graph, means


def fit(j: int, parents, data, fill: float = 0.0, moved: bool = False):
    """Score, coefficients, intercept, variance and targets; ``fill`` and ``moved`` are what buffers hold before."""
    w, found = np.full(len(parents), fill), np.full(len(data.n), moved)
    score, b, s2 = fit_gene(j, np.asarray(parents, dtype=np.int64), len(parents), data, w, found)
    return score, w, b, s2, found


# ---- against the formula ---------------------------------------------------------------------------------------------


def slow_error(j, parents, w, means: ConditionMeans) -> np.ndarray:
    r""":math:`(1, -w)' S_k (1, -w)` with the errors of the gene and of its denoised parents, misfit of the slopes, and floor, ``(conditions,)``."""
    own = [j, *parents]
    coefficient, (cause, left) = np.r_[1.0, -w], means.denoised
    correlation, out = means.correlation[np.ix_(own, own)], []
    for k, sampling in enumerate(np.sqrt(means.variance[:, own])):
        size = np.r_[sampling[0], np.sqrt(left[k, parents])]
        s = correlation * np.outer(size, size)
        s[0, 1:] = s[1:, 0] = correlation[0, 1:] * sampling[0] * left[k, parents] / sampling[1:]
        out.append(max(coefficient @ s @ coefficient, 0) + MISFIT**2 * np.sum((w * cause[k, parents]) ** 2) + FLOOR**2)
    return np.array(out)


def slow_fit(j, parents, means: ConditionMeans, target_penalty: float, penalty: float, hard: bool):
    """The score in dense algebra: a mixture of two normals per condition, and Laplace for slopes and controls' errors."""
    p, lines, d = len(parents), len(means.control), len(means.latent)
    y = means.change[:, j]
    x = np.column_stack([means.denoised[0][:, parents], np.eye(lines)[means.line]])
    before = np.diag(np.r_[np.ones(p), 1 / means.control[:, j]])
    own, between = means.latent[j, j], means.latent[np.ix_(parents, parents)]
    error = MISMATCH**2
    if p:
        error += 1 / (means.n_cells * means.reliability[j] * means.reliability[parents].mean())
    theta = np.zeros(p + lines)
    for step in range(9):
        w = theta[:p]
        v = slow_error(j, parents, w, means)
        r = y - x @ theta
        wide = means.variance[:, j] + FLOOR**2 + SLAB if hard else v + SLAB
        without = 0.5 * r**2 / v + 0.5 * np.log(v)
        with_target = 0.5 * (y if hard else r) ** 2 / wide + 0.5 * np.log(wide) + target_penalty
        score = -np.logaddexp(-without, -with_target).sum() + 0.5 * theta @ before @ theta
        share = 1 / (1 + np.exp(without - with_target))
        precision = share / v + (0 if hard else (1 - share) / wide)
        curvature, left = before + x.T @ (precision[:, None] * x), x.T @ (precision * y)
        unexplained = 1.0
        if p:
            s2 = own - 2 * w @ means.latent[parents, j] + w @ between @ w
            unexplained = max(s2 / own, 0.02)
            score += 0.5 / error * np.log(unexplained)
            curvature[:p, :p] += between / error / unexplained / own
            left[:p] += means.latent[parents, j] / error / unexplained / own
        score += 0.5 * (np.linalg.slogdet(curvature)[1] - np.linalg.slogdet(before)[1])
        new = np.linalg.solve(curvature, left)
        if step == 8 or np.abs(new - theta).max() < 1e-4:
            break
        theta = new
    score += p * penalty * 0.5 * np.log(d)
    return score, theta[:p], theta[p], own * unexplained, share < 0.5


def choose(seed: int, d: int) -> tuple[int, np.ndarray]:
    rng = np.random.default_rng(100 + seed)
    j, *parents = rng.permutation(d)[: 1 + seed % d]
    return j, np.array(parents, dtype=np.int64)


@pytest.mark.parametrize("hard", [False, True], ids=["shift", "hard"])
@pytest.mark.parametrize(("target_penalty", "penalty"), [(3.0, 1.0), (0.5, 0.0), (20.0, 4.0)])
@pytest.mark.parametrize("seed", range(12))
def test_agrees_with_the_formula(seed, target_penalty, penalty, hard):
    means = draw_means(seed, lines=1 + seed % 3)
    j, parents = choose(seed, 6)
    score, w, b, s2, moved = slow_fit(j, parents, means, target_penalty, penalty, hard)
    options = {"intervention": "hard" if hard else "shift", "target_penalty": target_penalty}
    data = score_data(means, penalty=penalty, **options)
    assert local_score(j, parents, len(parents), data) == pytest.approx(score, rel=1e-9, abs=1e-8)

    graph = np.zeros((6, 6), dtype=bool)
    graph[parents, j] = True
    found = fit_graph(graph, means, **options)
    np.testing.assert_allclose(found.weight[parents, j], w, atol=1e-9)
    np.testing.assert_allclose((found.intercept[j], found.variance[j]), (b, s2), atol=1e-9)
    np.testing.assert_array_equal(found.moved[:, j], moved)
    np.testing.assert_allclose(found.error[:, j], slow_error(j, parents, w, means), 1e-9)
    assert not found.weight[~graph].any()


def test_defaults_depend_on_the_number_of_genes():
    for d in (1, 2, 6, 30):
        data = score_data(draw_means(0, d=d))
        assert data.target_penalty == pytest.approx(np.log(max(d - 1, 2)))
        assert data.penalty == pytest.approx(0.5 * np.log(max(d, 2)))
        assert data.columns == 1


def test_an_unknown_intervention_is_refused():
    with pytest.raises(ValueError, match="'soft' is neither"):
        score_data(draw_means(0), intervention="soft")


# ---- what must not matter --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("intervention", ["shift", "hard"])
@pytest.mark.parametrize("seed", range(4))
def test_buffers_full_of_garbage_change_nothing(seed, intervention):
    data = score_data(draw_means(seed), intervention=intervention)
    j, parents = choose(seed + 2, 6)
    expected = fit(j, parents, data)
    for fill, moved in ((np.nan, True), (1e300, False), (-np.inf, True)):
        for found, each in zip(fit(j, parents, data, fill, moved), expected, strict=True):
            np.testing.assert_array_equal(found, each)


@pytest.mark.parametrize("intervention", ["shift", "hard"])
@pytest.mark.parametrize("seed", range(4))
def test_order_of_parents(seed, intervention):
    data = score_data(draw_means(seed), intervention=intervention)
    parents, order = np.array([0, 1, 3, 5]), np.random.default_rng(seed).permutation(4)
    plain, other = fit(2, parents, data), fit(2, parents[order], data)
    assert other[0] == pytest.approx(plain[0], abs=1e-9)
    np.testing.assert_allclose(other[1], plain[1][order], atol=1e-9)
    np.testing.assert_array_equal(other[4], plain[4])


@pytest.mark.parametrize("seed", range(4))
def test_order_of_genes_contexts_and_lines(seed):
    means, rng = draw_means(seed, lines=3), np.random.default_rng(seed)
    genes, conditions, lines = rng.permutation(6), rng.permutation(12), rng.permutation(3)
    moved = {}
    for name, axis in OF_GENES.items():
        value = getattr(means, name)
        moved[name] = value[np.ix_(genes, genes)] if axis == 2 else np.take(value, genes, axis)
    moved["control"] = moved["control"][lines]
    for name in ("n", "change", "variance"):
        moved[name] = (moved | {"n": means.n})[name][conditions]
    other = replace(means, line=np.argsort(lines)[means.line[conditions]], **moved)
    graph = np.triu(rng.random((6, 6)) < 0.5, 1)
    one, two = fit_graph(graph, means), fit_graph(graph[np.ix_(genes, genes)], other)
    np.testing.assert_allclose(two.weight, one.weight[np.ix_(genes, genes)], atol=1e-8)
    np.testing.assert_allclose(two.variance, one.variance[genes], atol=1e-8)
    np.testing.assert_allclose(two.error, one.error[np.ix_(conditions, genes)], atol=1e-8)
    np.testing.assert_array_equal(two.moved, one.moved[np.ix_(conditions, genes)])


def test_sign_of_a_gene():
    means, flip = draw_means(0), np.array([1, -1, 1, 1, -1, 1])
    square = np.outer(flip, flip)
    other = replace(
        means, change=means.change * flip, correlation=means.correlation * square, latent=means.latent * square
    )
    graph = np.triu(np.ones((6, 6), dtype=bool), 1)
    one, two = fit_graph(graph, means), fit_graph(graph, other)
    np.testing.assert_allclose(two.weight, one.weight * square, atol=1e-9)
    np.testing.assert_array_equal(two.moved, one.moved)


# ---- what it is for --------------------------------------------------------------------------------------------------


def test_a_target_bends_no_slope():
    """A condition that moves a gene and its parent together says little of the one's effect on the other."""
    _, means = draw_screen(0, d=2, density=0.0)
    change = means.change.copy()
    change[:, 0] = np.linspace(-2, 2, 6)
    change[:, 1] = 0.8 * change[:, 0]
    change[5, 1] += 3
    graph = np.array([[0, 1], [0, 0]], dtype=bool)
    found = fit_graph(graph, replace(means, change=change, n_cells=1.0))
    np.testing.assert_array_equal(np.flatnonzero(found.moved[:, 1]), [5])
    assert found.weight[0, 1] == pytest.approx(0.8, abs=0.1)


def test_a_context_that_sets_a_gene_says_nothing_of_its_parents():
    _, means = draw_screen(0, d=2, density=0.0)
    change = np.column_stack([np.linspace(-2, 2, 6), 0.8 * np.linspace(-2, 2, 6)])
    change[5, 1] = -5
    graph = np.array([[0, 1], [0, 0]], dtype=bool)
    means = replace(means, change=change, n_cells=1.0)
    found = fit_graph(graph, means, intervention="hard")
    far = change.copy()
    far[5, 1] = -50
    np.testing.assert_array_equal(found.moved[:, 1], np.arange(6) == 5)
    again = fit_graph(graph, replace(means, change=far), intervention="hard")
    assert again.weight[0, 1] == pytest.approx(found.weight[0, 1], abs=1e-3)


def test_errors_of_the_parent_count():
    """A parent whose changes are all error explains nothing for sure: the same residual is less of a surprise."""
    means = draw_means(3, lines=1)
    noisy = means.variance.copy()
    noisy[:, 0] = 5
    graph = np.zeros((6, 6), dtype=bool)
    graph[0, 1] = True
    plain, other = fit_graph(graph, means), fit_graph(graph, replace(means, variance=noisy))
    assert (other.error[:, 1] > plain.error[:, 1]).all()
    assert other.moved[:, 1].sum() <= plain.moved[:, 1].sum()


def test_errors_that_parent_and_child_share_cancel():
    _, means = draw_screen(0, d=2, density=0.0)
    shared = replace(means, variance=np.full((6, 2), 0.5), correlation=np.ones((2, 2)))
    shared = replace(shared, change=np.outer(np.linspace(-2, 2, 6), [1.0, 1.0]))
    alone = replace(shared, correlation=np.eye(2))
    graph = np.array([[0, 1], [0, 0]], dtype=bool)
    assert (fit_graph(graph, shared).error[:, 1] < fit_graph(graph, alone).error[:, 1]).all()


def test_without_parents_the_error_is_that_of_the_change():
    means = draw_means(0)
    found = fit_graph(np.zeros((6, 6), dtype=bool), means)
    np.testing.assert_allclose(found.error, means.variance + FLOOR**2)
    np.testing.assert_allclose(found.variance, np.diag(means.latent))


@pytest.mark.parametrize("intervention", ["shift", "hard"])
@pytest.mark.parametrize("seed", range(8))  # seeds 0 to 43 pass
def test_a_small_dag_is_recovered(seed, intervention):
    graph, means = draw_screen(seed, hard=intervention == "hard")
    *_, last = search_dag(means, intervention=intervention)
    found = last.graph
    turned = orient_equivalent_edges(found, means, intervention=intervention)
    for each in (found, turned):
        assert nx.is_directed_acyclic_graph(nx.from_numpy_array(each, create_using=nx.DiGraph))
    np.testing.assert_array_equal(turned | turned.T, found | found.T)
    assert (found & graph).sum() >= 0.85 * graph.sum()
    assert (found & ~graph).sum() <= 1
    moved = fit_graph(found, means, intervention=intervention).moved
    target = np.tile(np.eye(8, dtype=bool), (3, 1))
    assert moved[target].mean() > 0.9
    assert moved[~target].mean() < 0.03


@pytest.mark.parametrize("intervention", ["shift", "hard"])
def test_the_search_climbs_the_score(score, intervention):
    graph, means = draw_screen(0, hard=intervention == "hard")
    *_, last = search_dag(means, intervention=intervention)
    options = {"intervention": intervention}
    assert last.score == pytest.approx(score(last.graph, means, **options), abs=1e-6)
    assert last.score <= score(graph, means, **options) + 1e-6
    assert last.score < score(np.zeros((8, 8), dtype=bool), means, **options) - 10


def test_threads_and_priors(score):
    graph, means = draw_screen(1)
    (*_, one), (*_, two) = (search_dag(means, threads=threads, max_rounds=5) for threads in (1, 3))
    np.testing.assert_array_equal(one.graph, two.graph)
    edge = np.argwhere(graph)[0]
    required, allowed = np.zeros((8, 8), dtype=bool), np.ones((8, 8), dtype=bool)
    required[edge[1], edge[0]], allowed[:, 3] = True, False
    required[:, 3] = False
    *_, last = search_dag(means, required=required, allowed=allowed | required, max_rounds=3)
    assert last.graph[edge[1], edge[0]]
    assert not (last.graph[:, 3] & ~required[:, 3]).any()
    turned = orient_equivalent_edges(last.graph, means, required=required, allowed=allowed | required)
    assert turned[edge[1], edge[0]]


# ---- candidates ------------------------------------------------------------------------------------------------------


def test_candidates_of_many_genes_move_or_vary_together():
    rng, d = np.random.default_rng(0), 203
    means = draw_means(0, d=d, conditions=30, lines=2)
    change, latent = 0.1 * rng.normal(size=(30, d)), np.eye(d) + 0.1 * covariance(rng, d)
    change[:, 7] = change[:, 150] = 3 * rng.normal(size=30)
    latent[11, 90] = latent[90, 11] = -1.0
    means = replace(means, change=change, latent=latent)
    near = moving_together(means)
    np.testing.assert_array_equal(near, near.T)
    assert not near.diagonal().any()
    assert near[7, 150]
    assert near[11, 90]
    z = change / np.sqrt(means.variance + means.control[means.line])
    together = np.abs(z.T @ z)
    np.fill_diagonal(together, -1)
    for j in range(0, d, 40):
        assert near[j, np.argsort(-together[:, j])[: N_MOVING // 2]].all()
    assert (near.sum(0) >= N_MOVING // 2).all()
    no, allowed = np.zeros((d, d), dtype=bool), ~np.eye(d, dtype=bool)
    slots = candidates(means, 1, allowed, no, no)
    assert len(slots.source) == near.sum()


# ---- hostile input ---------------------------------------------------------------------------------------------------


HOSTILE = [
    pytest.param(lambda m: {"change": 1e3 * m.change}, id="huge changes"),
    pytest.param(lambda m: {"change": 1e8 * m.change[:, :1] + m.change}, id="huge changes of all genes together"),
    pytest.param(lambda m: {"change": 0 * m.change}, id="no changes"),
    pytest.param(lambda m: {"variance": 1e-12 + 0 * m.variance}, id="tiny variances"),
    pytest.param(lambda m: {"variance": 0 * m.variance}, id="no variances"),
    pytest.param(lambda m: {"variance": 1e9 * m.variance}, id="huge variances"),
    pytest.param(lambda m: {"control": 0 * m.control}, id="controls without error"),
    pytest.param(lambda m: {"control": 1e6 + m.control}, id="hardly any controls"),
    pytest.param(lambda m: {"latent": 0.05 * np.eye(6)}, id="nothing latent"),
    pytest.param(lambda m: {"latent": 0.05 * np.eye(6) + 1e4}, id="all of it in common"),
    pytest.param(lambda m: {"reliability": 0 * m.reliability}, id="not reliable"),
    pytest.param(lambda m: {"correlation": np.ones((6, 6))}, id="errors in common"),
    pytest.param(lambda m: {"n_cells": 1e9}, id="many cells"),
    pytest.param(lambda m: {"n_cells": 1.0}, id="one cell"),
    pytest.param(lambda m: {"change": np.tile(m.change[:, :1], 6)}, id="genes alike"),
]


@pytest.mark.parametrize("spoil", HOSTILE)
@pytest.mark.parametrize("intervention", ["shift", "hard"])
def test_hostile_input_has_finite_scores(spoil, intervention):
    means = draw_means(0)
    means = replace(means, **spoil(means))
    data = score_data(means, intervention=intervention)
    for p in range(6):
        score, w, b, s2, _ = fit(5, np.arange(p), data)
        assert np.isfinite([score, b, s2, *w]).all()
        assert s2 > 0
    fitted = fit_graph(np.triu(np.ones((6, 6), dtype=bool), 1), means, intervention=intervention)
    assert np.isfinite(fitted.error).all()
    assert (fitted.error > 0).all()
    *_, last = search_dag(means, intervention=intervention, max_rounds=2)
    assert np.isfinite(last.score)


@pytest.mark.parametrize("intervention", ["shift", "hard"])
@pytest.mark.parametrize(("d", "conditions"), [(1, 1), (6, 1), (1, 12), (2, 2), (40, 1)])
def test_few_contexts_or_genes(d, conditions, intervention):
    means = draw_means(0, d=d, conditions=conditions, lines=1)
    graph = np.zeros((d, d), dtype=bool)
    if d > 1:
        *_, last = search_dag(means, intervention=intervention, max_rounds=2)
        graph = last.graph
        assert np.isfinite(last.score)
    fitted = fit_graph(graph, means, intervention=intervention)
    assert np.isfinite(fitted.intercept).all()
    assert fitted.error.shape == fitted.moved.shape == (conditions, d)


def test_one_context_supports_no_edge():
    """Changes of the size of their errors, and nothing latent in common."""
    means = replace(draw_means(0, conditions=1, lines=1), latent=np.eye(6), change=np.full((1, 6), 0.05))
    *_, last = search_dag(means)
    assert not last.graph.any()


def test_as_many_parents_as_there_may_be():
    means = draw_means(1, d=40, conditions=20, lines=1)
    assert np.isfinite(local_score(39, np.arange(32), 32, score_data(means)))
