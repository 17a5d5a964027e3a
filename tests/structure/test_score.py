from __future__ import annotations

import numpy as np
import pytest

from scgim.statistics import accumulate
from scgim.structure import fit_graph, local_score
from scgim.structure.score import score_data


def slow_fit(j, parents, x, code, charge, penalty):
    """The score from the cells: a regression with one intercept for the contexts that are not targets, one for each that is."""
    n, size = np.bincount(code), len(x)
    mean = np.array([x[code == k].mean(0) for k in range(len(n))])
    within = x - mean[code]
    w = np.linalg.lstsq(within[:, parents], within[:, j], rcond=None)[0] if len(parents) else np.zeros(0)
    b = (mean[:, j] - mean[:, parents] @ w)[0]
    s2 = np.mean((within[:, j] - within[:, parents] @ w) ** 2)
    for _ in range(3):
        residual = mean[:, j] - mean[:, parents] @ w - b
        moved = n * residual**2 > 2 * s2 * charge
        moved[0] = False
        last = w, b
        own = moved[code][:, None] * np.eye(len(n))[code][:, moved]
        design = np.column_stack([x[:, parents], np.where(moved[code], 0, 1), own])
        beta = np.linalg.lstsq(design, x[:, j], rcond=None)[0]
        w, b, s2 = beta[: len(parents)], beta[len(parents)], np.mean((x[:, j] - design @ beta) ** 2)
    w, b = last
    residual = mean[:, j] - mean[:, parents] @ w - b
    cells = within[:, j] - within[:, parents] @ w
    s2 = (np.sum(cells**2) + np.sum((n * residual**2)[~moved])) / size
    return size / 2 * np.log(s2) + charge * moved.sum() + penalty / 2 * np.log(size) * len(parents), w, b, s2, moved


def choose(seed: int, d: int) -> tuple[int, np.ndarray]:
    rng = np.random.default_rng(100 + seed)
    j, *parents = rng.permutation(d)[: 1 + seed % d]
    return j, np.array(parents, dtype=np.int64)


@pytest.mark.parametrize(("charge", "penalty"), [(6.0, 2.0), (1.0, 1.0), (40.0, 0.0)])
@pytest.mark.parametrize("seed", range(12))
def test_agrees_with_regressions_on_cells(screen, seed, charge, penalty):
    x, code, _ = screen(seed)
    j, parents = choose(seed, x.shape[1])
    s = screen(seed).statistics
    expected, w, b, s2, moved = slow_fit(j, parents, x, code, charge, penalty)
    found = local_score(j, parents, len(parents), score_data(s, charge, penalty))
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-6)

    graph = np.zeros((6, 6), dtype=bool)
    graph[parents, j] = True
    fit = fit_graph(graph, s, charge=charge)
    np.testing.assert_allclose(fit.weight[np.sort(parents), j], w[np.argsort(parents)], atol=1e-8)
    np.testing.assert_allclose((fit.intercept[j], fit.variance[j]), (b, s2), atol=1e-8)
    np.testing.assert_array_equal(fit.moved[:, j], moved)
    assert not fit.weight[~graph].any()


def test_the_table_covers_contexts_that_are_targets_and_contexts_that_are_not(screen):
    moved = [fit_graph(s.graph, s.statistics).moved for s in map(screen, range(12))]
    assert 0.1 < np.mean(moved) < 0.6
    assert not np.any([m[0] for m in moved])


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_parents_does_not_matter(screen, seed):
    data, rng = score_data(screen(seed).statistics, 6.0, 2.0), np.random.default_rng(seed)
    parents = np.array([0, 2, 3, 5])
    scores = [local_score(1, rng.permutation(parents), 4, data) for _ in range(6)]
    assert np.ptp(scores) < 1e-7


def test_only_the_counted_parents_are_used(screen):
    data = score_data(screen(0).statistics, 6.0, 2.0)
    assert local_score(1, np.array([4, 2, 0]), 1, data) == local_score(1, np.array([4, -9, 99]), 1, data)


def test_the_statistics_are_left_alone(screen):
    s = screen(0).statistics
    before = s.mean.copy(), s.scatter.copy(), s.n.copy()
    local_score(0, np.array([1, 2]), 2, score_data(s, 6.0, 2.0))
    fit_graph(screen(0).graph, s)
    for a, b in zip((s.mean, s.scatter, s.n), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("factor", [1e-3, 7.0, 1e4])
def test_the_unit_of_the_gene_adds_a_constant_and_that_of_a_parent_nothing(screen, factor):
    s = screen(0).statistics
    scale = np.ones(6)
    scale[1] = 1 / factor
    scaled, plain = (score_data(t, 6.0, 2.0) for t in (s.standardise(np.zeros(6), scale), s))
    for parents in ([], [3], [0, 2, 4, 5]):
        p = np.array(parents, dtype=np.int64)
        constant = local_score(1, p, len(p), scaled) - local_score(1, p, len(p), plain)
        assert constant == pytest.approx(s.n_cells * np.log(factor), abs=1e-5)
    p = np.array([1, 2])
    assert local_score(0, p, 2, scaled) == pytest.approx(local_score(0, p, 2, plain), abs=1e-6)


def test_one_cell_counts_as_one_cell(screen):
    """Doubling every cell doubles the fit, the evidence and nothing else."""
    x, code, _ = screen(1)
    once = score_data(accumulate([(x, code)], n_contexts=8, n_genes=6), 6.0, 0.0)
    twice = score_data(accumulate([(x, code)] * 2, n_contexts=8, n_genes=6), 12.0, 0.0)
    p = np.array([0, 4])
    assert local_score(1, p, 2, twice) == pytest.approx(2 * local_score(1, p, 2, once), abs=1e-6)


@pytest.mark.parametrize("n", [50, 1000, 100_000])
@pytest.mark.parametrize(
    ("twin", "bound"),
    [
        pytest.param(lambda a, b, rng: a, 5, id="the-same-gene"),
        pytest.param(lambda a, b, rng: -3 * a, 5, id="a-multiple"),
        pytest.param(lambda a, b, rng: a + b, 5, id="a-sum"),
        pytest.param(lambda a, b, rng: a + 1e-9 * rng.normal(size=len(a)), 5, id="almost"),
        pytest.param(lambda a, b, rng: a.astype(np.float32).astype(float), 5, id="rounded-to-float32"),
    ],
)
def test_collinear_parents_neither_blow_up_nor_gain(n, twin, bound):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, n))
    x = np.column_stack([a, b, twin(a, b, rng), a - b + rng.normal(size=n)])
    code = np.arange(n) % 2
    x = (x - x[code == 0].mean(0)) / x[code == 0].std(0)
    s = accumulate([(x, code)], n_contexts=2, n_genes=4)
    data = score_data(s, 6.0, 2.0)
    without, both = (local_score(3, np.array(p), len(p), data) for p in ([0, 1], [0, 1, 2]))
    assert both - without == pytest.approx(np.log(s.n_cells), abs=1e-3)
    graph = np.zeros((4, 4), dtype=bool)
    graph[:3, 3] = True
    fit = fit_graph(graph, s)
    assert np.abs(fit.weight).max() < bound
    assert all(np.isfinite(v).all() for v in (fit.weight, fit.intercept, fit.variance))


def test_a_gene_that_its_parents_determine_has_a_finite_score():
    x = np.random.default_rng(0).normal(size=(100, 3))
    x[:, 2] = x[:, 0] - x[:, 1]
    s = accumulate([(x, np.repeat([0, 1], 50))], n_contexts=2, n_genes=3)
    assert np.isfinite(local_score(2, np.array([0, 1]), 2, score_data(s, 6.0, 2.0)))
    assert (fit_graph(np.array([[0, 0, 1], [0, 0, 1], [0, 0, 0]], dtype=bool), s).variance > 0).all()


def test_one_context_of_one_cell_more_is_no_trouble(screen):
    x, code, graph = screen(2)
    x, code = np.vstack([x, x[-1:] + 50]), np.r_[code, 8]
    fit = fit_graph(graph, accumulate([(x, code)], n_contexts=9, n_genes=6))
    assert fit.moved[8].any()
    assert np.isfinite(fit.variance).all()


@pytest.mark.parametrize("seed", range(4))
def test_a_true_parent_lowers_the_score_and_an_unrelated_gene_raises_it(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2000, 3))
    x[:, 2] += 0.5 * x[:, 0]
    data = score_data(accumulate([(x, np.arange(2000) % 4)], n_contexts=4, n_genes=3), 6.0, 2.0)
    none, cause, unrelated = (local_score(2, np.array(p, dtype=np.int64), len(p), data) for p in ([], [0], [0, 1]))
    assert cause < none - 100
    assert cause < unrelated < cause + np.log(2000) + 1e-9


def test_controls_are_no_target_even_where_they_stand_apart():
    """Twenty contexts, each too small to stand out, together pull the intercept far from that of the controls."""
    rng = np.random.default_rng(0)
    code = np.repeat(np.arange(21), [20, *[10] * 20])
    x = rng.normal(size=(220, 1))
    for k in range(21):
        x[code == k] += (-1.0 if k else 0.0) - x[code == k].mean()
    fit = fit_graph(np.zeros((1, 1), dtype=bool), accumulate([(x, code)], n_contexts=21, n_genes=1))
    assert fit.intercept[0] < -0.5
    assert not fit.moved.any()


def test_shifts_bias_no_coefficient(screen):
    """A context that moves a gene and its parent together says nothing of the one's effect on the other."""
    rng = np.random.default_rng(0)
    code = np.repeat(np.arange(6), [500, 60, 90, 200, 150, 40])
    x = rng.normal(size=(len(code), 2))
    x[:, 1] += 0.7 * x[:, 0]
    x += np.array([0, 3, 5, -4, 2, 6])[code][:, None] * np.array([1.0, -2.0])
    fit = fit_graph(np.array([[0, 1], [0, 0]], dtype=bool), accumulate([(x, code)], n_contexts=6, n_genes=2))
    assert fit.weight[0, 1] == pytest.approx(0.7, abs=0.1)
    assert fit.moved[1:].all()
    np.testing.assert_allclose(fit.variance, 1, atol=0.15)
