from __future__ import annotations

import numpy as np
import pytest

from scgim.statistics import accumulate, expand
from scgim.structure import fit_graph, local_score
from scgim.structure.score import score_data


def slow_shift(design, y, code, target_penalty):
    """From the cells: a regression with one intercept for the conditions that are not targets, one for each that is."""
    n, size = np.bincount(code), len(y)
    average = np.array([np.eye(len(n))[code][:, k] / n[k] for k in range(len(n))])
    inner, outer = design - (average @ design)[code], y - (average @ y)[code]
    w = np.linalg.lstsq(inner, outer, rcond=None)[0]
    b, s2 = (average @ (y - design @ w))[0], np.mean((outer - inner @ w) ** 2)
    for _ in range(3):
        moved = n * (average @ (y - design @ w) - b) ** 2 > 2 * s2 * target_penalty
        moved[0] = False
        last = w, b
        free = moved[code][:, None] * np.eye(len(n))[code][:, moved]
        full = np.column_stack([design, np.where(moved[code], 0, 1), free])
        beta = np.linalg.lstsq(full, y, rcond=None)[0]
        w, b, s2 = beta[: design.shape[1]], beta[design.shape[1]], np.mean((y - full @ beta) ** 2)
    w, b = last
    gap = average @ (y - design @ w) - b
    return w, b, (np.sum((outer - inner @ w) ** 2) + np.sum((n * gap**2)[~moved])) / size, moved


def slow_hard(design, y, code, target_penalty):
    """From the cells: a regression on the conditions that do not set the gene, their own mean for those that do."""
    n, q = np.bincount(code), design.shape[1]
    moved, few = np.zeros(len(n), dtype=bool), n[0] <= 20 + 4 * q

    def centered(v):
        return v - np.array([v[code == k].mean(0) for k in range(len(n))])[code]

    def squares(v):
        return np.bincount(code, v**2)

    alone = squares(centered(y))
    for step in range(4):
        use = (code == 0) if step == 0 and not few else ~moved[code]
        if step < 2:
            w = np.linalg.lstsq(centered(design)[use], centered(y)[use], rcond=None)[0]
            left = centered(y - design @ w)
            b = np.mean((y - design @ w)[~moved[code] if step else code == 0])
        else:
            *w, b = np.linalg.lstsq(np.column_stack([design, np.ones(len(y))])[use], y[use], rcond=None)[0]
            left = y - design @ w - b
        s2 = np.sum(left[use] ** 2)
        s2 = s2 / (n[0] - q - 1) if step == 0 and not few else (s2 + alone[moved].sum()) / len(y)
        rss = squares(y - design @ w - b)
        moved = (rss - alone) / (2 * s2) > target_penalty
        moved[0] = False
    return np.array(w), b, np.where(moved, alone, rss).sum() / len(y), moved


def slow_fit(j, parents, x, code, target_penalty, penalty, columns=1, intervention="shift"):
    """The score and the fit, from the cells and by least squares on them."""
    wide = x if columns == 1 else expand(x)
    design = wide.reshape(len(x), -1, columns)[:, parents].reshape(len(x), -1)
    fit = slow_shift if intervention == "shift" else slow_hard
    w, b, s2, moved = fit(design, x[:, j], code, target_penalty)
    penalty = penalty / 2 * np.log(len(x)) * design.shape[1]
    return len(x) / 2 * np.log(s2) + target_penalty * moved.sum() + penalty, w, b, s2, moved


def choose(seed: int, d: int) -> tuple[int, np.ndarray]:
    rng = np.random.default_rng(100 + seed)
    j, *parents = rng.permutation(d)[: 1 + seed % d]
    return j, np.array(parents, dtype=np.int64)


@pytest.mark.parametrize("columns", [1, 4])
@pytest.mark.parametrize("intervention", ["shift", "hard"])
@pytest.mark.parametrize(("target_penalty", "penalty"), [(6.0, 2.0), (1.0, 1.0), (40.0, 0.0)])
@pytest.mark.parametrize("seed", range(12))
def test_agrees_with_regressions_on_cells(screen, seed, target_penalty, penalty, intervention, columns):
    # without controls enough for a regression of their own, the hard score starts from all conditions
    sizes = (300 if seed % 3 else 24, 20, 45, 80, 31, 60, 25, 90)
    drawn = screen(seed, sizes=sizes, hard=intervention == "hard")
    s = drawn.statistics_of(columns=columns, own=intervention == "hard")
    j, parents = choose(seed, 6)
    kind = {"columns": columns, "intervention": intervention, "target_penalty": target_penalty}
    expected, w, b, s2, moved = slow_fit(j, parents, drawn.x, drawn.code, penalty=penalty, **kind)
    found = local_score(j, parents, len(parents), score_data(s, penalty=penalty, **kind))
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-5)

    graph = np.zeros((6, 6), dtype=bool)
    graph[parents, j] = True
    fit = fit_graph(graph, s, **kind)
    weight = fit.weight.reshape(6, columns, 6)
    np.testing.assert_allclose(weight[parents, :, j].ravel(), w, atol=1e-6)
    np.testing.assert_allclose((fit.intercept[j], fit.variance[j]), (b, s2), atol=1e-6)
    np.testing.assert_array_equal(fit.moved[:, j], moved)
    assert not weight.any(1)[~graph].any()


@pytest.mark.parametrize("columns", [1, 4])
def test_hard_targets_are_found(screen, columns):
    drawn = screen(0, hard=True, sizes=(400,) + (60,) * 12)
    fit = fit_graph(drawn.graph, drawn.statistics_of(columns=columns, own=True), intervention="hard", columns=columns)
    found, wrong = fit.moved[drawn.target].mean(), fit.moved[~drawn.target].mean()
    assert found > 0.9
    assert wrong < 0.05


def test_hard_needs_every_contexts_scatter(screen):
    with pytest.raises(ValueError, match="own=True"):
        score_data(screen(0).statistics, intervention="hard")
    with pytest.raises(ValueError, match="'soft' is neither"):
        score_data(screen(0).statistics, intervention="soft")


def test_the_ridge_counts_only_where_cells_are_fewer_than_columns(screen):
    s = screen(0).statistics
    np.testing.assert_array_equal(score_data(s)[3], s.scatter)
    x = np.random.default_rng(0).normal(size=(30, 40))
    few = accumulate([(x, np.arange(30) % 10)], n_conditions=10, n_genes=40)
    np.testing.assert_allclose(score_data(few)[3] - few.scatter, 1e-3 * 30 * (1 - 20 / 40) * np.eye(40), atol=1e-12)


@pytest.mark.parametrize("intervention", ["shift", "hard"])
def test_one_cell_a_context_has_a_finite_score(intervention):
    x = np.random.default_rng(0).normal(size=(30, 40))
    s = accumulate([(x, np.arange(30))], n_conditions=30, n_genes=40, own=True)
    fit = fit_graph(np.eye(40, k=1, dtype=bool), s, intervention=intervention)
    assert all(np.isfinite(v).all() for v in (fit.weight, fit.intercept, fit.variance))
    data = score_data(s, intervention=intervention)
    assert np.isfinite(local_score(0, np.arange(1, 33), 32, data))


def test_the_table_covers_contexts_that_are_targets_and_contexts_that_are_not(screen):
    moved = [fit_graph(s.graph, s.statistics).moved for s in map(screen, range(12))]
    assert 0.1 < np.mean(moved) < 0.6
    assert not np.any([m[0] for m in moved])


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_parents_does_not_matter(screen, seed):
    data, rng = score_data(screen(seed).statistics, target_penalty=6.0, penalty=2.0), np.random.default_rng(seed)
    parents = np.array([0, 2, 3, 5])
    scores = [local_score(1, rng.permutation(parents), 4, data) for _ in range(6)]
    assert np.ptp(scores) < 1e-7


def test_only_the_counted_parents_are_used(screen):
    data = score_data(screen(0).statistics, target_penalty=6.0, penalty=2.0)
    assert local_score(1, np.array([4, 2, 0]), 1, data) == local_score(1, np.array([4, -9, 99]), 1, data)


def test_the_statistics_are_left_alone(screen):
    s = screen(0).statistics
    before = s.mean.copy(), s.scatter.copy(), s.n.copy()
    local_score(0, np.array([1, 2]), 2, score_data(s, target_penalty=6.0, penalty=2.0))
    fit_graph(screen(0).graph, s)
    for a, b in zip((s.mean, s.scatter, s.n), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("factor", [1e-3, 7.0, 1e4])
def test_the_unit_of_the_gene_adds_a_constant_and_that_of_a_parent_nothing(screen, factor):
    s = screen(0).statistics
    scale = np.ones(6)
    scale[1] = 1 / factor
    scaled, plain = (score_data(t, target_penalty=6.0, penalty=2.0) for t in (s.standardize(np.zeros(6), scale), s))
    for parents in ([], [3], [0, 2, 4, 5]):
        p = np.array(parents, dtype=np.int64)
        constant = local_score(1, p, len(p), scaled) - local_score(1, p, len(p), plain)
        assert constant == pytest.approx(s.n_cells * np.log(factor), abs=1e-5)
    p = np.array([1, 2])
    assert local_score(0, p, 2, scaled) == pytest.approx(local_score(0, p, 2, plain), abs=1e-6)


def test_one_cell_counts_as_one_cell(screen):
    """Doubling every cell doubles the fit, the evidence and nothing else."""
    x, code, *_ = screen(1)
    once = score_data(accumulate([(x, code)], n_conditions=8, n_genes=6), target_penalty=6.0, penalty=0.0)
    twice = score_data(accumulate([(x, code)] * 2, n_conditions=8, n_genes=6), target_penalty=12.0, penalty=0.0)
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
    s = accumulate([(x, code)], n_conditions=2, n_genes=4)
    data = score_data(s, target_penalty=6.0, penalty=2.0)
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
    s = accumulate([(x, np.repeat([0, 1], 50))], n_conditions=2, n_genes=3)
    assert np.isfinite(local_score(2, np.array([0, 1]), 2, score_data(s, target_penalty=6.0, penalty=2.0)))
    assert (fit_graph(np.array([[0, 0, 1], [0, 0, 1], [0, 0, 0]], dtype=bool), s).variance > 0).all()


def test_one_context_of_one_cell_more_is_no_trouble(screen):
    x, code, graph, *_ = screen(2)
    x, code = np.vstack([x, x[-1:] + 50]), np.r_[code, 8]
    fit = fit_graph(graph, accumulate([(x, code)], n_conditions=9, n_genes=6))
    assert fit.moved[8].any()
    assert np.isfinite(fit.variance).all()


@pytest.mark.parametrize("seed", range(4))
def test_a_true_parent_lowers_the_score_and_an_unrelated_gene_raises_it(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2000, 3))
    x[:, 2] += 0.5 * x[:, 0]
    data = score_data(
        accumulate([(x, np.arange(2000) % 4)], n_conditions=4, n_genes=3), target_penalty=6.0, penalty=2.0
    )
    none, cause, unrelated = (local_score(2, np.array(p, dtype=np.int64), len(p), data) for p in ([], [0], [0, 1]))
    assert cause < none - 100
    assert cause < unrelated < cause + np.log(2000) + 1e-9


def test_controls_are_no_target_even_where_they_stand_apart():
    """Twenty conditions, each too small to stand out, together pull the intercept far from that of the controls."""
    rng = np.random.default_rng(0)
    code = np.repeat(np.arange(21), [20, *[10] * 20])
    x = rng.normal(size=(220, 1))
    for k in range(21):
        x[code == k] += (-1.0 if k else 0.0) - x[code == k].mean()
    fit = fit_graph(np.zeros((1, 1), dtype=bool), accumulate([(x, code)], n_conditions=21, n_genes=1))
    assert fit.intercept[0] < -0.5
    assert not fit.moved.any()


def test_shifts_bias_no_coefficient(screen):
    """A condition that moves a gene and its parent together says nothing of the one's effect on the other."""
    rng = np.random.default_rng(0)
    code = np.repeat(np.arange(6), [500, 60, 90, 200, 150, 40])
    x = rng.normal(size=(len(code), 2))
    x[:, 1] += 0.7 * x[:, 0]
    x += np.array([0, 3, 5, -4, 2, 6])[code][:, None] * np.array([1.0, -2.0])
    fit = fit_graph(np.array([[0, 1], [0, 0]], dtype=bool), accumulate([(x, code)], n_conditions=6, n_genes=2))
    assert fit.weight[0, 1] == pytest.approx(0.7, abs=0.1)
    assert fit.moved[1:].all()
    np.testing.assert_allclose(fit.variance, 1, atol=0.15)
