from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.stats import chi2

from scgim.data._mean_evidence import ConditionMeansModel
from scgim.data._placebos import N_PLACEBOS, Placebos
from scgim.statistics import SizeFactors, accumulate, log_fold_changes
from scgim.train._calibration import (
    LEVEL,
    MIN_TARGET_PENALTY,
    error_of,
    penalty_from_placebos,
    placebo_squares_of_cells,
    placebo_squares_of_counts,
)

GROUP = np.repeat([0, 1, 2], [120, 60, 9])
CONTEXTS = np.array([[30, 0, 0], [10, 10, 0], [0, 500, 0], [3, 2, 4], [1, 0, 0]])


def taken(placebos: Placebos) -> np.ndarray:
    """Cells of every placebo in every group, (placebos, groups)."""
    return placebos.by_group(np.ones((placebos.member.shape[1], 1)))[..., 0]


# ---- draws -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_placebos_are_drawn_like_contexts(seed):
    placebos = Placebos.draw(GROUP, CONTEXTS, seed)
    member, size = placebos.member, taken(placebos)
    assert sp.issparse(member)
    assert member.shape == (N_PLACEBOS, len(GROUP))
    assert (member.data == 1).all()  # no cell twice
    half = np.minimum(CONTEXTS, np.bincount(GROUP) // 2)
    assert {tuple(row) for row in size.tolist()} <= {tuple(map(float, row)) for row in half}
    assert len({tuple(row) for row in size.tolist()}) == len(half)


def test_every_cell_is_as_likely_as_any_other():
    chosen = Placebos.draw(GROUP, CONTEXTS[:1], 0, n=2000).member.sum(0).A1[:120]
    assert abs(chosen / 2000 - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / 2000)


def test_the_seed_decides():
    one, again, other = (Placebos.draw(GROUP, CONTEXTS, seed).member for seed in (0, 0, 1))
    assert (one != again).nnz == 0
    assert (one != other).nnz > 0


def test_with_a_key_the_order_of_cells_does_not_matter():
    key, order = np.random.default_rng(0).normal(size=len(GROUP)), np.random.default_rng(1).permutation(len(GROUP))
    one = Placebos.draw(GROUP, CONTEXTS, 0, key=key).member
    other = Placebos.draw(GROUP[order], CONTEXTS, 0, key=key[order]).member
    assert (one[:, order] != other).nnz == 0


def test_global_random_state_is_left_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    Placebos.draw(GROUP, CONTEXTS, 0)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_sums_by_group_are_those_of_the_members():
    placebos = Placebos.draw(GROUP, CONTEXTS, 0, n=20)
    x = np.random.default_rng(0).normal(size=(len(GROUP), 3))
    member = placebos.member.toarray()
    expected = np.stack([member @ (x * (g == GROUP)[:, None]) for g in range(3)], 1)
    np.testing.assert_allclose(placebos.by_group(x), expected, atol=1e-12)


@pytest.mark.parametrize("group", [np.zeros(1, dtype=int), np.array([0, 1, 2])], ids=["one control", "one a group"])
def test_no_controls_to_spare_no_placebos(group):
    placebos = Placebos.draw(group, np.ones((4, int(group.max()) + 1)), 0)
    assert placebos.member.shape == (0, len(group))
    found = penalty_from_placebos(
        placebo_squares_of_cells(placebos, np.ones((len(group), 3)), np.ones(3)), least=np.array([1.0, 7.0, 5.5])
    )
    np.testing.assert_array_equal(found.target_penalty, [5.0, 7.0, 5.5])
    assert found.placebos == 0
    assert found.about()["overdispersion_max"] == 1


# ---- charges ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [5, 50, 500])
def test_normal_placebos_get_the_charge_of_a_normal(d):
    found = penalty_from_placebos(np.random.default_rng(0).normal(size=(200, d)) ** 2)
    assert (found.target_penalty >= MIN_TARGET_PENALTY).all()
    np.testing.assert_allclose(found.target_penalty, max(0.5 * chi2.ppf(1 - LEVEL / d, 1), 5), rtol=0.35)
    assert found.overdispersion.max() < 1.4
    assert found.placebos == 200


@pytest.mark.parametrize("level", [0.02, 0.1])
@pytest.mark.parametrize(
    "draw",
    [
        pytest.param(lambda rng, shape: rng.normal(size=shape), id="normal"),
        pytest.param(lambda rng, shape: 2 * rng.normal(size=shape), id="overdispersed"),
        pytest.param(lambda rng, shape: np.linspace(1, 3, shape[1]) * rng.normal(size=shape), id="unequal genes"),
        pytest.param(lambda rng, shape: rng.standard_t(4, size=shape), id="heavy tails"),
        pytest.param(lambda rng, shape: rng.normal(size=(shape[0], 1)) + np.zeros(shape), id="all genes together"),
    ],
)
def test_few_new_placebos_have_a_target(draw, level):
    """Charges from one set of placebos, checked on others."""
    share = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        target_penalty = penalty_from_placebos(draw(rng, (200, 40)) ** 2, least=0.0, level=level).target_penalty
        share.append((0.5 * draw(rng, (2000, 40)) ** 2 > target_penalty).any(1).mean())
    assert np.mean(share) <= level + 0.01
    assert max(share) <= 2.5 * level


def test_overdispersed_genes_cost_more():
    squares = np.random.default_rng(0).normal(size=(200, 30)) ** 2
    squares[:, :3] *= 4
    found = penalty_from_placebos(squares)
    assert found.target_penalty[:3].min() > 2 * found.target_penalty[3:].max()
    assert found.overdispersion[:3].min() > 2.2
    assert found.overdispersion[3:].max() < 1.8


def test_few_placebos_are_drawn_towards_all_genes():
    squares = np.ones((5, 30))
    squares[:, 0] = 5
    few, many = penalty_from_placebos(squares), penalty_from_placebos(np.tile(squares, (100, 1)))
    assert 1 < few.overdispersion[0] < 2
    assert many.overdispersion[0] > 3.5


@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 10.0])
def test_no_charge_is_below_least(scale):
    squares = scale * np.random.default_rng(0).normal(size=(100, 8)) ** 2
    least = np.linspace(3, 40, 8)
    found = penalty_from_placebos(squares, least)
    assert (found.target_penalty >= np.maximum(least, MIN_TARGET_PENALTY)).all()
    assert (found.overdispersion >= 1).all()
    assert np.isfinite(found.target_penalty).all()
    np.testing.assert_allclose(found.target_penalty, np.maximum(found.chance, least))
    assert (found.chance >= MIN_TARGET_PENALTY).all()
    np.testing.assert_array_equal(
        found.chance, penalty_from_placebos(squares).chance
    )  # what chance brings about costs no more


def test_a_stricter_level_costs_more():
    squares = np.random.default_rng(0).normal(size=(200, 20)) ** 2
    assert (
        penalty_from_placebos(squares, 0.0, level=0.001).target_penalty
        > penalty_from_placebos(squares, 0.0, level=0.2).target_penalty
    ).all()


def test_order_of_genes_and_placebos():
    rng = np.random.default_rng(0)
    squares, genes = rng.normal(size=(100, 8)) ** 2 * rng.uniform(1, 5, 8), rng.permutation(8)
    plain = penalty_from_placebos(squares)
    np.testing.assert_allclose(penalty_from_placebos(squares[:, genes]).target_penalty, plain.target_penalty[genes])
    np.testing.assert_allclose(penalty_from_placebos(squares[::-1]).target_penalty, plain.target_penalty)


def test_one_huge_square_does_not_make_a_gene_overdispersed():
    squares = np.random.default_rng(0).normal(size=(200, 20)) ** 2
    before = penalty_from_placebos(squares)
    squares[0, 0] = 1e6
    np.testing.assert_allclose(penalty_from_placebos(squares).overdispersion, before.overdispersion, atol=0.06)
    np.testing.assert_allclose(penalty_from_placebos(squares).target_penalty, before.target_penalty, rtol=0.1)


def test_provenance_is_plain():
    about = penalty_from_placebos(np.random.default_rng(0).normal(size=(50, 4)) ** 2).about()
    assert {type(value) for value in about.values()} <= {str, int, float}
    assert about["target_penalty_min"] <= about["target_penalty_median"] <= about["target_penalty_max"]


# ---- what placebos show ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "group",
    [
        pytest.param(np.zeros(300, dtype=int), id="one group"),
        pytest.param(np.arange(300) % 3, id="three groups"),
        pytest.param(np.repeat([0, 1, 2], [250, 40, 10]), id="unequal groups"),
    ],
)
def test_independent_cells_have_excesses_of_1(group):
    of_conditions = np.array([[40.0, 4.0, 2.0], [10.0, 0.0, 0.0], [5.0, 15.0, 0.0]])[:, : group.max() + 1]
    rng, excess = np.random.default_rng(0), []
    for seed in range(6):
        residual = rng.normal(size=(300, 20)) * np.linspace(0.5, 3, 20) + 5 * rng.normal(size=(3, 20))[group]
        placebos = Placebos.draw(group, of_conditions, seed)
        excess.append(placebo_squares_of_cells(placebos, residual, np.linspace(0.5, 3, 20) ** 2))
    assert np.mean(excess) == pytest.approx(1, abs=0.05)
    np.testing.assert_allclose(np.mean(excess, axis=(0, 1)), 1, atol=0.35)


def test_excess_of_cells_is_the_squared_difference_of_two_means_in_one_group():
    rng = np.random.default_rng(0)
    x, variance = rng.normal(size=(50, 4)), np.array([1.0, 2.0, 0.5, 3.0])
    placebos = Placebos.draw(np.zeros(50, dtype=int), np.array([[12]]), 0, n=7)
    expected = []
    for row in placebos.member.toarray() > 0:
        gap = x[row].mean(0) - x[~row].mean(0)
        expected.append(gap**2 / (variance * (1 / 12 + 1 / 38)))
    np.testing.assert_allclose(placebo_squares_of_cells(placebos, x, variance), expected)


def test_a_variance_that_is_too_small_shows():
    """The variance that a mechanism claims is too small by four."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 10))
    placebos = Placebos.draw(np.zeros(400, dtype=int), np.array([[40]]), 0)
    assert placebo_squares_of_cells(placebos, x, np.full(10, 0.25)).mean() == pytest.approx(4, rel=0.15)


def evidence_of(
    counts: np.ndarray, size: np.ndarray, group: np.ndarray, rng: np.random.Generator
) -> ConditionMeansModel:
    """Of controls and of one condition for each group, all alike."""
    n, groups = len(counts), int(group.max()) + 1
    treated = rng.choice(n, n // 2, replace=False)
    x, sizes = np.vstack([counts, counts[treated]]), np.r_[size, size[treated]]
    code = np.r_[group, groups + group[treated]]
    wide = np.column_stack([x, sizes])
    totals = accumulate([(wide, code)], n_conditions=2 * groups, n_genes=wide.shape[1])
    of_group, label = np.tile(np.arange(groups), 2), np.repeat([0, 1], groups)
    found = SizeFactors(totals, of_group, label)
    residuals = accumulate([(found.residuals(wide, code), code)], n_conditions=2 * groups, n_genes=wide.shape[1])
    means = log_fold_changes(totals, residuals, found.rate, of_group, label, np.zeros(1, dtype=int))
    return ConditionMeansModel(means, np.ones(counts.shape[1]), found)


@pytest.mark.parametrize(
    ("rate", "dispersion", "groups", "low"),
    [
        pytest.param(0.5, 0.0, 1, 0.8, id="poisson"),
        pytest.param(0.5, 0.0, 3, 0.8, id="three groups"),
        pytest.param(0.1, 0.0, 1, 0.75, id="few counts"),
        pytest.param(3.0, 0.5, 1, 0.7, id="overdispersed"),
        pytest.param(50.0, 0.0, 1, 0.02, id="many counts"),
    ],
)
@pytest.mark.parametrize("edges", [False, True])
def test_counts_without_effect_have_excesses_of_1_or_less(rate, dispersion, groups, low, edges):
    """Less by the floor, which is there for what sampling leaves out."""
    rng, d, excess = np.random.default_rng(0), 12, []
    weight = np.triu(rng.uniform(-0.8, 0.8, (d, d)) * (rng.random((d, d)) < 0.2), 1) * edges
    for seed in range(4):
        group = np.arange(400) % groups
        size = 2000 * rng.lognormal(0, 0.3, 400)
        mean = rate * size[:, None] / 2000 * rng.uniform(0.5, 2, (groups, d))[group]
        if dispersion:
            mean = mean * rng.gamma(1 / dispersion, dispersion, mean.shape)
        counts = rng.poisson(mean).astype(float)
        evidence = evidence_of(counts, size, group, rng)
        placebos = Placebos.draw(group, np.full((1, groups), 60 // groups), seed)
        excess.append(placebo_squares_of_counts(placebos, np.column_stack([counts, size]), evidence, weight))
    assert np.isfinite(excess).all()
    assert low < np.mean(excess) < 1.1


def test_sparse_counts_are_the_same_as_dense_ones():
    rng, group = np.random.default_rng(0), np.arange(200) % 3
    counts, size = rng.poisson(1.0, (200, 6)).astype(float), np.full(200, 40.0)
    evidence = evidence_of(counts, size, group, rng)
    placebos, x = Placebos.draw(group, np.array([[20, 5, 9]]), 0), np.column_stack([counts, size])
    dense, sparse = (
        placebo_squares_of_counts(placebos, kind(x), evidence, np.zeros((6, 6))) for kind in (np.array, sp.csr_matrix)
    )
    np.testing.assert_allclose(sparse, dense)


def test_counts_of_placebos_that_differ_exceed():
    rng, group = np.random.default_rng(0), np.zeros(400, dtype=int)
    size = np.full(400, 2000.0)
    counts = rng.poisson(10.0, (400, 6)).astype(float)
    evidence = evidence_of(counts, size, group, rng)
    placebos = Placebos.draw(group, np.array([[50]]), 0)
    x = np.column_stack([counts, size])
    plain = placebo_squares_of_counts(placebos, x, evidence, np.zeros((6, 6)))
    member = sp.csr_matrix((np.ones(50), (np.zeros(50, dtype=int), np.arange(50))), shape=(1, 400))
    x[:50, 0] *= 3
    other = placebo_squares_of_counts(Placebos(member, group), x, evidence, np.zeros((6, 6)))
    assert other[0, 0] > 50 > plain.max()


@pytest.mark.parametrize("zero", ["a gene", "all but one cell"])
def test_counts_of_zero_are_finite(zero):
    rng, group = np.random.default_rng(0), np.arange(100) % 2
    counts = rng.poisson(2.0, (100, 5)).astype(float)
    counts[0, 0] = 1
    counts[1 if zero == "all but one cell" else 0 :, 0] = 0
    size = np.full(100, 50.0)
    evidence = evidence_of(rng.poisson(2.0, (100, 5)).astype(float), size, group, rng)
    placebos = Placebos.draw(group, np.array([[10, 3], [0, 1]]), 0)
    assert np.isfinite(
        placebo_squares_of_counts(placebos, np.column_stack([counts, size]), evidence, np.zeros((5, 5)))
    ).all()


def test_error_of_residuals_is_the_quadratic_form():
    rng, d = np.random.default_rng(0), 6
    a = rng.normal(size=(d, d))
    covariance = a @ a.T
    scale = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(scale, scale)
    weight, sd = np.triu(rng.normal(size=(d, d)), 1) * (rng.random((d, d)) < 0.5), rng.uniform(0.1, 1, (4, d))
    own = np.eye(d) - weight
    expected = [np.diag(own.T @ (s[:, None] * correlation * s) @ own) for s in sd]
    np.testing.assert_allclose(error_of(weight, correlation, sd), expected)
    np.testing.assert_allclose(error_of(np.zeros((d, d)), correlation, sd), sd**2)


# ---- replicates ------------------------------------------------------------------------------------------------------

# Group 0 has wells 0-5, group 1 wells 4-9 (two wells are in both), group 2 a single well.
WELL = np.concatenate([np.arange(120) // 20, 4 + np.arange(60) // 10, np.full(9, 10)])


def test_placebos_of_replicates_are_whole():
    wells = np.array([[1, 0, 0], [2, 2, 0], [9, 0, 1]])
    placebos = Placebos.of_replicates(GROUP, WELL, wells, 0)
    member = placebos.member.toarray().astype(bool)
    found = set()
    for row in member:
        taken = [np.unique(WELL[row & (GROUP == g)]) for g in range(3)]
        for g, own in enumerate(taken):
            assert (row[(GROUP == g)] == np.isin(WELL[GROUP == g], own)).all()
        found.add(tuple(map(len, taken)))
    assert found == {(1, 0, 0), (2, 2, 0), (3, 0, 0)}  # at most half of the wells of a group


def test_a_single_replicate_is_no_placebo():
    assert (
        Placebos.of_replicates(np.zeros(9, dtype=int), np.zeros(9, dtype=int), np.array([[1]]), 0).member.shape[0] == 0
    )


def test_shares_of_replicates_in_a_placebo_and_its_reference():
    placebos = Placebos.draw(GROUP, CONTEXTS[:3], 0, n=9)
    size = np.random.default_rng(0).uniform(1, 3, len(GROUP))
    expected = []
    for row in placebos.member.toarray().astype(bool):
        weight = np.zeros(WELL.max() + 1)
        whole = size[row].sum()
        for g in range(3):
            own, rest = row & (GROUP == g), ~row & (GROUP == g)
            if own.any():
                weight += np.bincount(WELL[own], size[own], minlength=len(weight)) / whole
                reference = np.bincount(WELL[rest], size[rest], minlength=len(weight)) / size[rest].sum()
                weight -= reference * size[own].sum() / whole
        expected.append((weight**2).sum())
    np.testing.assert_allclose(placebos.concentration(WELL, size)[:, 0], expected)


def test_squares_of_whole_replicates_are_one_on_average():
    rng, wells, omega = np.random.default_rng(0), np.repeat(np.arange(60), 25), 0.4
    group = np.zeros(len(wells), dtype=int)
    found = []
    for seed in range(5):
        placebos = Placebos.of_replicates(group, wells, np.array([[1], [4]]), seed)
        x = rng.normal(size=(len(wells), 40)) + rng.normal(0, omega, (60, 40))[wells]
        added = omega**2 * placebos.concentration(wells, np.ones(len(wells)))
        found.append(placebo_squares_of_cells(placebos, x, np.ones(40), added).mean())
        assert placebo_squares_of_cells(placebos, x, np.ones(40)).mean() > 2
    assert np.mean(found) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("freedom", [3.0, 12.0])
def test_few_degrees_of_freedom_raise_the_penalty_to_that_of_a_t_test(freedom):
    """Without an effect, a squared t statistic exceeds twice the penalty in a share of conditions that is at most the level."""
    rng, level = np.random.default_rng(0), 0.05
    none = penalty_from_placebos(np.zeros((0, 10)), 0.0, level, freedom=freedom)
    t = rng.normal(size=(20_000, 10)) / np.sqrt(rng.chisquare(freedom, (20_000, 10)) / freedom)
    assert (t**2 > 2 * none.chance).any(1).mean() == pytest.approx(level, rel=0.15)
    squares = rng.normal(size=(200, 10)) ** 2
    assert (penalty_from_placebos(squares, 0.0, level, freedom=freedom).chance > none.chance - 1e-9).all()
    plain = penalty_from_placebos(squares, 0.0, level)
    np.testing.assert_array_equal(penalty_from_placebos(squares, 0.0, level, freedom=np.inf).chance, plain.chance)
