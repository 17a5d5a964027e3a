from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np
import pytest

from scgim.statistics import (
    ConditionMeans,
    SizeFactors,
    accumulate,
    between_batch_variance,
    log_fold_change,
    log_fold_changes,
    own_dispersion,
)
from scgim.statistics._counts import _less_shared_factors
from scgim.statistics._moderation import prior_freedom

FIELDS = ("n", "change", "variance", "line", "control", "correlation", "latent", "reliability", "dispersion")
OF_GENES = {"change": 1, "variance": 1, "control": 1, "dispersion": 0, "reliability": 0, "correlation": 2, "latent": 2}


class Screen(NamedTuple):
    """Counts and sizes of cells, the fine condition of each, and of every fine condition its group and condition."""

    x: np.ndarray
    size: np.ndarray
    code: np.ndarray
    group: np.ndarray
    label: np.ndarray
    line: np.ndarray

    @property
    def wide(self) -> np.ndarray:
        return np.column_stack([self.x, self.size])

    def _sums(self, x: np.ndarray):
        return accumulate([(x, self.code)], n_conditions=len(self.group), n_genes=x.shape[1])

    def sizes(self) -> SizeFactors:
        return SizeFactors(self._sums(self.wide), self.group, self.label)

    def means(self) -> ConditionMeans:
        sizes = self.sizes()
        residuals = self._sums(sizes.residuals(self.wide, self.code))
        return log_fold_changes(self._sums(self.wide), residuals, sizes.rate, self.group, self.label, self.line)

    def take_cells(self, rows: np.ndarray) -> Self:
        return self._replace(x=self.x[rows], size=self.size[rows], code=self.code[rows])


def draw(
    seed: int = 0,
    *,
    conditions: int = 12,
    cells: int = 60,
    controls: int = 300,
    rate: np.ndarray | float = 2.0,
    d: int = 8,
    lines: int = 1,
    batches: int = 1,
    effect: np.ndarray | None = None,
    covariance: np.ndarray | None = None,
    tau: float = 0.0,
    apart: float = 0.3,
) -> Screen:
    """Conditions spread over all batches of their line; ``effect`` and batches act on log rates, sizes are in thousands."""
    rng = np.random.default_rng(seed)
    line = np.arange(conditions) % lines
    own = np.arange(lines * batches)
    group = np.r_[own, (line[:, None] * batches + np.arange(batches)).ravel()]
    label = np.r_[np.zeros(len(own), dtype=int), np.repeat(1 + np.arange(conditions), batches)]
    code = rng.permutation(np.repeat(np.arange(len(group)), np.where(label > 0, cells // batches, controls)))
    log_rate = (tau * rng.normal(size=(len(group), d)) - tau**2 / 2) * (label > 0)[:, None]
    log_rate += apart * rng.normal(size=(len(own), d))[group]  # controls of groups differ
    if effect is not None:
        log_rate += np.vstack([np.zeros(d), effect])[label]
    log_rate = log_rate[code]
    if covariance is not None:
        log_rate = log_rate + rng.multivariate_normal(np.zeros(d), covariance, len(code)) - np.diag(covariance) / 2
    size = rng.lognormal(-0.06, 0.35, len(code))
    x = rng.poisson(size[:, None] * rate * np.exp(log_rate)).astype(float)
    return Screen(x, 2000 * size, code, group, label, line)


def standardized(means: ConditionMeans) -> np.ndarray:
    return means.change / np.sqrt(means.variance + means.control[means.line])


def assert_same(one: ConditionMeans, other: ConditionMeans, rtol: float = 1e-9) -> None:
    for name in FIELDS:
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol, 1e-10, err_msg=name)
    assert one.n_cells == other.n_cells


# ---- against definitions ---------------------------------------------------------------------------------------------


def slow_between(rows: list[tuple[int, float, float]], freedom_of_prior: float = 10.0) -> tuple[float, float, int]:
    """Of one gene's (condition, change, variance): excess of Q, the factor of tau^2 in it, and the degrees of freedom."""
    q = leverage = 0.0
    freedom = 0
    for k in {k for k, _, _ in rows}:
        own = [(m, 1 / v) for i, m, v in rows if i == k]
        total = sum(w for _, w in own)
        center = sum(w * m for m, w in own) / total
        q += sum(w * (m - center) ** 2 for m, w in own) - (len(own) - 1)
        leverage += total - sum(w * w for _, w in own) / total
        freedom += len(own) - 1
    return q, leverage, freedom


def slow_means(screen: Screen, size: np.ndarray) -> dict[str, np.ndarray]:
    """Changes, variances and what they rest on, cell by cell and gene by gene."""
    x, code, group, label = screen.x, screen.code, screen.group, screen.label
    d, k, cells = x.shape[1], len(screen.line), range(len(x))
    treated = [label[code[i]] > 0 for i in cells]
    out = {name: np.zeros((k, d)) for name in ("change", "sampling")} | {"dispersion": np.zeros(d)}
    out["control"] = np.zeros((int(screen.line.max()) + 1, d))
    pieces = []
    for j in range(d):
        overall = sum(x[i, j] for i in cells if not treated[i]) / sum(size[i] for i in cells if not treated[i])
        seen, rate = np.zeros(group.max() + 1), np.zeros(group.max() + 1)
        for g in range(group.max() + 1):
            own = [i for i in cells if not treated[i] and group[code[i]] == g]
            seen[g] = sum(x[i, j] for i in own)
            rate[g] = (seen[g] + 1) / (sum(size[i] for i in own) + 1 / overall)
        square = freedom = 0.0
        for f in range(len(group)):
            own = [i for i in cells if code[i] == f]
            mine = sum(x[i, j] for i in own) / sum(size[i] for i in own)
            square += sum((x[i, j] - size[i] * mine) ** 2 for i in own)
            freedom += sum(x[i, j] for i in own) * (1 - 1 / len(own))  # one is spent on the rate
        phi = out["dispersion"][j] = max(square / freedom, 1.0)
        for c in range(k):
            own = [i for i in cells if label[code[i]] == c + 1]
            observed, expected = sum(x[i, j] for i in own), sum(size[i] * rate[group[code[i]]] for i in own)
            rho = observed / expected
            out["change"][c, j] = 1.5 * np.log((rho + 0.5) / 1.5)
            # the delta method: the derivative of the change by rho, times the sd of rho
            out["sampling"][c, j] = (1.5 / (rho + 0.5)) ** 2 * phi * max(rho, 0.3) / expected
        rows = []
        for f in np.flatnonzero(label):
            own = [i for i in cells if code[i] == f]
            alone = sum(size[i] for i in own) * rate[group[f]] + 0.5
            ratio = np.log((sum(x[i, j] for i in own) + 0.5) / alone)
            rows.append((label[f] - 1, ratio, phi * (1 / alone + 1 / (seen[group[f]] + 0.5))))
        pieces.append(slow_between(rows))
        of_line = {group[f]: screen.line[label[f] - 1] for f in np.flatnonzero(label)}
        for line in range(len(out["control"])):
            out["control"][line, j] = phi / max(sum(seen[g] for g, own in of_line.items() if own == line), 1)
    excess, leverage, freedom = (np.array(each, float) for each in zip(*pieces, strict=True))
    between = np.zeros(d)
    if freedom[0]:
        pooled, share = max(excess.sum() / leverage.sum(), 0), freedom[0] / (freedom[0] + 10)
        between = np.maximum(share * excess / leverage + (1 - share) * pooled, 0)
    batches = np.array([(label == c + 1).sum() for c in range(k)])[:, None]
    return out | {"variance": out.pop("sampling") + between / batches}


@pytest.mark.parametrize("batches", [1, 3])
@pytest.mark.parametrize("lines", [1, 2])
def test_agrees_with_the_definition_cell_by_cell(lines, batches):
    effect = np.random.default_rng(0).normal(size=(4, 3)) * 0.2
    screen = draw(1, conditions=4, cells=30, controls=50, d=3, lines=lines, batches=batches, effect=effect, tau=0.3)
    means = screen.means()
    size = screen.size
    strong = screen.sizes().strong
    if strong.any():
        size = np.maximum(size - screen.x[:, strong].sum(1), 0.02 * size)
    for name, expected in slow_means(screen, size).items():
        np.testing.assert_allclose(getattr(means, name), expected, 1e-9, 1e-12, err_msg=name)
    np.testing.assert_array_equal(means.n, [(screen.label[screen.code] == c + 1).sum() for c in range(4)])
    assert means.n_cells == len(screen.x)


@pytest.mark.parametrize("dispersion", [1.0, 2.5])
def test_the_change_is_a_log_ratio_where_small_and_its_variance_its_slope(dispersion):
    ratio, expected = np.array([[0.98, 1.02, 3.0, 0.5]]), np.full((1, 4), 400.0)
    change, variance = log_fold_change(ratio * expected, expected, np.full(4, dispersion))
    np.testing.assert_allclose(change[0, :2], np.log(ratio[0, :2]), rtol=0.01)
    step = 1e-6
    slope = (log_fold_change((ratio + step) * expected, expected, np.ones(4))[0] - change) / step
    np.testing.assert_allclose(variance, dispersion * slope**2 * ratio / expected, rtol=1e-4)


def test_a_gene_without_counts_does_not_have_a_variance_of_zero():
    change, variance = log_fold_change(np.zeros((1, 2)), np.array([[3.0, 300.0]]), np.ones(2))
    assert (change < -1).all()
    assert (variance > 0).all()
    assert variance[0, 0] > 50 * variance[0, 1]


# ---- errors are what they are said to be -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="poisson"),
        pytest.param({"rate": 0.4}, id="few counts"),
        pytest.param({"controls": 60}, id="few controls"),
        pytest.param({"covariance": 0.3 * np.eye(8)}, id="rates vary between cells"),
        pytest.param({"lines": 2, "batches": 2}, id="lines and batches"),
        pytest.param({"batches": 3, "tau": 0.3}, id="batches differ"),
    ],
)
def test_without_an_effect_changes_have_the_stated_variance(options):
    z = np.concatenate([standardized(draw(seed, conditions=24, **options).means()) for seed in range(8)])
    assert z.std() == pytest.approx(1, abs=0.1)
    assert abs(z.mean()) < 0.2


@pytest.mark.parametrize("fold", [0.25, 0.5, 2.0, 4.0])
def test_a_known_effect_is_found_within_its_error(fold):
    effect = np.zeros((12, 8))
    effect[:, 3] = np.log(fold)
    truth = 1.5 * np.log((fold + 0.5) / 1.5)
    pieces = []
    for seed in range(6):
        means = draw(seed, effect=effect, rate=1.0).means()
        pieces.append((means.change[:, 3] - truth) / np.sqrt(means.variance + means.control[means.line])[:, 3])
    z = np.concatenate(pieces)
    assert abs(z.mean()) < 0.5  # controls are shared, so conditions err together
    assert 0.7 < z.std() < 1.35


# ---- what must not matter --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def screen() -> Screen:
    effect = np.zeros((6, 8))
    effect[1, 2], effect[4, 0] = 1.5, -1.0
    return draw(
        3, conditions=6, lines=2, batches=2, cells=40, controls=80, effect=effect, covariance=0.2 * np.eye(8) + 0.1
    )


def test_order_of_cells(screen):
    rows = np.random.default_rng(0).permutation(len(screen.x))
    assert_same(screen.take_cells(rows).means(), screen.means())


def test_order_of_fine_contexts(screen):
    order = np.random.default_rng(0).permutation(len(screen.group))
    other = screen._replace(code=np.argsort(order)[screen.code], group=screen.group[order], label=screen.label[order])
    assert_same(other.means(), screen.means())


def test_order_of_contexts(screen):
    order = np.random.default_rng(1).permutation(len(screen.line))
    new = np.r_[0, 1 + np.argsort(order)]
    other, plain = screen._replace(label=new[screen.label], line=screen.line[order]).means(), screen.means()
    for name in ("n", "change", "variance", "line"):
        np.testing.assert_allclose(getattr(other, name), getattr(plain, name)[order], 1e-9, err_msg=name)
    for name in set(FIELDS) - {"n", "change", "variance", "line"}:
        np.testing.assert_allclose(getattr(other, name), getattr(plain, name), 1e-9, 1e-10, err_msg=name)


def test_order_of_genes(screen):
    order = np.random.default_rng(2).permutation(screen.x.shape[1])
    other, plain = screen._replace(x=screen.x[:, order]).means(), screen.means()
    for name, axis in OF_GENES.items():
        expected = getattr(plain, name)
        expected = expected[np.ix_(order, order)] if axis == 2 else np.take(expected, order, axis)
        np.testing.assert_allclose(getattr(other, name), expected, 1e-8, 1e-10, err_msg=name)


@pytest.mark.parametrize("factor", [1e-4, 0.5, 30.0, 1e6])
def test_units_of_sizes(factor):
    """Where no gene is left out of them, sizes matter up to a constant."""
    screen = draw(4, covariance=0.2 * np.eye(8))
    assert not screen.sizes().strong.any()
    assert_same(screen._replace(size=factor * screen.size).means(), screen.means())


def test_half_the_counts_in_cells_of_half_the_size_are_no_effect():
    screen = draw(5, conditions=4, rate=20.0)
    second = screen.label[screen.code] == 2
    half = np.random.default_rng(0).binomial(screen.x.astype(int), 0.5)
    x, size = np.where(second[:, None], half, screen.x), np.where(second, 0.5 * screen.size, screen.size)
    halved, plain = screen._replace(x=x, size=size).means(), screen.means()
    np.testing.assert_allclose(halved.change[[0, 2, 3]], plain.change[[0, 2, 3]], atol=1e-10)
    assert (np.abs(halved.change[1] - plain.change[1]) < 4 * np.sqrt(halved.variance[1])).all()
    np.testing.assert_allclose(halved.variance[1], 2 * plain.variance[1], rtol=0.15)


# ---- sizes -----------------------------------------------------------------------------------------------------------


def composed(seed: int = 0, **options) -> Screen:
    """Sizes are row sums, and gene 0, a tenth of them, is moved up threefold by condition 0."""
    effect = np.zeros((6, 12))
    effect[0, 0] = np.log(3)
    rate = np.r_[12.0, np.full(11, 9.0)]
    screen = draw(seed, conditions=6, d=12, rate=rate, effect=effect, cells=200, controls=600, **options)
    return screen._replace(size=screen.x.sum(1) + 1)


def test_a_gene_that_rules_the_total_is_left_out_of_it():
    """Moved up eightfold, gene 0 more than doubles the total, and all others seem to fall."""
    effect = np.zeros((6, 12))
    effect[0, 0] = np.log(8)
    screen = draw(0, conditions=6, d=12, rate=np.r_[30.0, np.full(11, 9.0)], effect=effect, cells=200, controls=600)
    screen = screen._replace(size=screen.x.sum(1) + 1)
    np.testing.assert_array_equal(np.flatnonzero(screen.sizes().strong), [0])
    assert np.abs(standardized(screen.means())[:, 1:]).max() < 4


def test_a_strong_effect_on_an_abundant_gene_does_not_move_the_others():
    screen = composed()
    sizes = screen.sizes()
    np.testing.assert_array_equal(np.flatnonzero(sizes.strong), [0])
    z = standardized(screen.means())
    assert np.abs(z[:, 1:]).max() < 4
    assert z[0, 0] > 20
    totals = accumulate([(screen.wide, screen.code)], n_conditions=len(screen.group), n_genes=13)
    plain = totals.mean[:, :-1] / totals.mean[:, -1:]  # rates by sizes as given
    assert np.log(plain[1, 1:] / plain[0, 1:]).max() < -0.1


def test_sizes_of_cells_are_totals_less_strong_genes():
    screen = composed()
    sizes = screen.sizes()
    np.testing.assert_allclose(sizes.of(screen.wide), screen.size - screen.x[:, 0])
    left = sizes.residuals(screen.wide, screen.code)
    np.testing.assert_allclose(left[:, -1], sizes.of(screen.wide))
    sums = np.array([left[screen.code == k, :-1].sum(0) for k in range(len(screen.group))])
    np.testing.assert_allclose(sums, 0, atol=1e-8)
    np.testing.assert_allclose(left[:, :-1] + left[:, -1:] * sizes.rate[screen.code], screen.x, atol=1e-10)


def test_sizes_that_are_no_totals_are_taken_as_they_are():
    screen = composed()
    factors = screen.size / screen.size.mean()
    sizes = screen._replace(size=factors).sizes()
    np.testing.assert_array_equal(sizes.of(np.column_stack([screen.x, factors])), factors)


def test_where_nearly_all_genes_move_the_totals_stay():
    effect = np.zeros((3, 8))
    effect[0] = np.log(4) * np.array([1, -1] * 4)
    screen = draw(0, conditions=3, cells=300, controls=600, effect=effect, rate=5.0)
    screen = screen._replace(size=screen.x.sum(1) + 100)
    np.testing.assert_array_equal(screen.sizes().of(screen.wide), screen.size)


def test_a_cell_of_nothing_but_a_strong_gene_keeps_a_size():
    screen = composed()
    assert (screen.sizes().of(np.r_[500.0, np.zeros(11), 500.0][None]) > 0).all()


# ---- between batches -------------------------------------------------------------------------------------------------


def batched(seed: int, tau: float, *, conditions: int = 40, batches: int = 4, d: int = 10):
    """Changes, sampling variances, condition and cells of every row, and how many conditions."""
    rng = np.random.default_rng(seed)
    condition = np.repeat(np.arange(conditions), batches)
    variance = rng.uniform(0.01, 0.05, (len(condition), d))
    change = rng.normal(size=(conditions, d))[condition] + rng.normal(size=variance.shape) * np.sqrt(variance + tau**2)
    return change, variance, condition, np.full(len(condition), 30.0), conditions


@pytest.mark.parametrize("tau", [0.1, 0.3, 1.0])
def test_variance_between_batches_is_recovered(tau):
    between, batches = between_batch_variance(*batched(0, tau, conditions=100))
    assert between.mean() == pytest.approx(tau**2, rel=0.15)
    np.testing.assert_allclose(between, tau**2, rtol=0.6)
    np.testing.assert_array_equal(batches, np.full((100, 1), 4.0))


def test_without_it_there_is_none_up_to_chance():
    between = np.concatenate([between_batch_variance(*batched(seed, 0.0))[0] for seed in range(5)])
    assert (between >= 0).all()
    assert between.mean() < 0.1 * 0.03
    assert between.max() < 0.3 * 0.03


def test_agrees_with_the_definition_of_der_simonian_and_laird():
    change, variance, condition, n, k = batched(1, 0.2, conditions=5, d=3)
    keep = np.array([0, 1, 2, 3, 4, 5, 8, 9, 10, 12, 16, 17])  # 4, 2, 3, 1 and 2 batches
    rows = [list(zip(condition[keep], change[keep, j], variance[keep, j], strict=True)) for j in range(3)]
    excess, leverage, freedom = (np.array(each) for each in zip(*map(slow_between, rows), strict=True))
    share = freedom[0] / (freedom[0] + 10)
    expected = share * excess / leverage + (1 - share) * max(excess.sum() / leverage.sum(), 0)
    between, batches = between_batch_variance(change[keep], variance[keep], condition[keep], n[keep], k)
    np.testing.assert_allclose(between, np.maximum(expected, 0), 1e-10)
    np.testing.assert_allclose(batches[:, 0], [4, 2, 3, 1, 2])


@pytest.mark.parametrize("offset", [-5.0, 100.0])
def test_what_a_context_does_is_not_between_batches(offset):
    change, variance, condition, n, k = batched(2, 0.3)
    moved = change + offset * np.arange(k)[condition][:, None]
    there, here = (between_batch_variance(x, variance, condition, n, k)[0] for x in (moved, change))
    np.testing.assert_allclose(there, here, rtol=1e-6)


def test_one_batch_says_nothing_of_others():
    change, variance, _, n, _ = batched(3, 1.0)
    between, batches = between_batch_variance(change, variance, np.arange(len(change)), n, len(change))
    assert not between.any()
    assert (batches == 1).all()


def test_a_mean_over_unequal_batches_has_their_variance():
    """Batches of 10:1 cells are worth 1.2 equal ones: the mean over cells varies as much as that of so many."""
    rng, tau, n = np.random.default_rng(0), 0.5, np.tile([1000.0, 100.0], 400)
    condition = np.repeat(np.arange(400), 2)
    change = rng.normal(0, tau, (800, 5))
    between, batches = between_batch_variance(change, np.full((800, 5), 1e-6), condition, n, 400)
    mean = np.array([np.average(change[condition == k], axis=0, weights=n[:2]) for k in range(400)])
    assert (mean**2).mean() == pytest.approx((between / batches).mean(), rel=0.15)


# ---- what is latent --------------------------------------------------------------------------------------------------


def covariance_of(correlation: float, d: int = 8) -> np.ndarray:
    """Log rates: three genes together, one against them, the others alone."""
    sign = np.array([1, 1, 1, -1, 0, 0, 0, 0])[:d]
    matrix = correlation * np.outer(sign, sign) * 0.3
    np.fill_diagonal(matrix, 0.3)
    return matrix


def test_factors_that_many_genes_share_are_reduced_more_than_slopes_between_two_genes():
    rng, d = np.random.default_rng(0), 80
    own = 0.05 * np.eye(d)
    own[0, 1] = own[1, 0] = 0.04
    loading = 0.25 * rng.choice([-1, 1], d)
    loading[:2] = 0
    confounded = own + np.outer(loading, loading)
    found = _less_shared_factors(confounded, np.diag(confounded))
    assert np.linalg.eigvalsh(found).min() > 0
    assert (np.diag(found) <= np.diag(confounded) * (1 + 1e-9)).all()
    shared = np.outer(loading, loading) - np.diag(loading**2)
    assert (found * shared).sum() < 0.3 * (shared**2).sum()
    assert 0.6 < found[0, 1] / found[0, 0] < 0.8
    np.testing.assert_allclose(_less_shared_factors(own[:9, :9], np.diag(own)[:9]), own[:9, :9], atol=1e-12)


def test_small_variances_stay_small():
    """A floor on eigenvalues of the covariance would add to them and attenuate the slopes of such genes."""
    small = np.diag([0.3, 0.3, 0.004, 0.004])
    small[2, 3] = small[3, 2] = 0.003
    np.testing.assert_allclose(_less_shared_factors(small, np.diag(small)), small, atol=1e-12)


@pytest.mark.parametrize("rate", [0.5, 3.0])
@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_the_covariance_of_log_rates_is_recovered(correlation, rate):
    truth = covariance_of(correlation)
    screen = draw(0, conditions=4, cells=500, controls=3000, rate=rate, covariance=truth)
    means = screen.means()
    np.testing.assert_allclose(means.latent, truth, atol=0.15 if rate == 0.5 else 0.04)
    strong = np.abs(truth) > 0.1
    np.testing.assert_array_equal(np.sign(means.latent[strong]), np.sign(truth[strong]))
    sd = np.sqrt(np.diag(means.latent))
    assert np.linalg.eigvalsh(means.latent / np.outer(sd, sd)).min() > 0.04


def test_reliability_is_the_latent_share_of_the_variance():
    low, high = (draw(1, rate=rate, covariance=0.3 * np.eye(8), controls=2000, apart=0).means() for rate in (0.3, 30.0))
    for means, rate in ((low, 0.3), (high, 30.0)):
        assert ((means.reliability >= 0) & (means.reliability <= 1)).all()
        # a size varies by its own variance around 1, and rates by exp(.3) - 1 about theirs
        square = rate * np.exp(0.35**2)
        np.testing.assert_allclose(means.reliability, 0.3 * square / (1 + (np.exp(0.3) - 1) * square), atol=0.1)
        assert means.dispersion.mean() == pytest.approx(1 + (np.exp(0.3) - 1) * square, rel=0.1)
    assert (high.reliability > low.reliability).all()


def test_counts_that_only_measuring_makes_vary_have_no_latent_correlation():
    means = draw(2, conditions=6, cells=200, controls=2000).means()
    assert np.abs(means.latent - np.diag(np.diag(means.latent))).max() < 0.02
    assert means.reliability.max() < 0.2
    assert means.dispersion.max() < 1.1
    np.testing.assert_allclose(np.diag(means.correlation), 1)


# ---- awkward data ----------------------------------------------------------------------------------------------------


def assert_sound(means: ConditionMeans) -> None:
    for name in FIELDS:
        assert np.isfinite(getattr(means, name)).all(), name
    assert (means.variance > 0).all()
    assert (means.control > 0).all()
    assert np.linalg.eigvalsh(means.latent).min() > 0
    assert ((means.reliability >= 0) & (means.reliability <= 1)).all()


SPOILT = [
    pytest.param(lambda s: (s.label[s.code] == 2, 0), id="in a condition"),
    pytest.param(lambda s: (s.label[s.code] == 0, 0), id="in controls"),
    pytest.param(lambda s: (s.group[s.code] == 1, 0), id="in a batch"),
    pytest.param(lambda s: ((s.group[s.code] == 1) & (s.label[s.code] == 0), 0), id="in controls of a batch"),
    pytest.param(lambda s: (s.label[s.code] == 2, slice(None)), id="of any gene in a condition"),
    pytest.param(lambda s: (np.arange(len(s.x)) > 0, 0), id="but in one cell"),
]


@pytest.mark.parametrize("where", SPOILT)
@pytest.mark.parametrize("rate", [0.3, 50.0])
def test_a_gene_without_counts(where, rate):
    screen = draw(0, conditions=4, batches=2, rate=rate)
    rows, genes = where(screen)
    x = screen.x.copy()
    x[rows, genes] = 0
    x[0, 0] = 1
    for size in (screen.size, x.sum(1) + 1):
        assert_sound(screen._replace(x=x, size=size).means())


@pytest.mark.parametrize("cells", [1, 2, 3])
def test_contexts_of_few_cells(cells):
    means = draw(0, cells=cells, conditions=20).means()
    assert_sound(means)
    assert (means.n == cells).all()
    # a condition of one cell is known as badly as its counts are few
    assert means.variance.min() > 0.3 / (4 * cells * 10)


@pytest.mark.parametrize("controls", [1, 2])
def test_few_controls_are_a_large_error(controls):
    means = draw(0, controls=controls).means()
    assert_sound(means)
    assert (means.control > 10 * draw(0, controls=300).means().control).all()


def test_one_context_of_one_gene():
    assert_sound(draw(0, conditions=1, d=1).means())


def test_huge_counts():
    screen = draw(0, rate=1e6, covariance=0.1 * np.eye(8))
    means = screen._replace(size=screen.x.sum(1)).means()
    assert_sound(means)
    assert means.reliability.min() > 0.9


# ---- how much genes share --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("freedom", [4, 20])
def test_genes_alike_share_their_variance_and_others_do_not(freedom):
    """Scaled inverse chi-square variances of known degrees of freedom are found again (limma's model)."""
    rng = np.random.default_rng(0)
    chance = rng.chisquare(freedom, 4000) / freedom
    assert prior_freedom(chance, freedom) > 50
    found = []
    for d0 in (3, 10, 30):
        variance = d0 / rng.chisquare(d0, 4000)
        found.append(prior_freedom(variance * rng.chisquare(freedom, 4000) / freedom, freedom))
    np.testing.assert_allclose(found, (3, 10, 30), rtol=0.5)
    assert prior_freedom(1e6 * chance, freedom) == pytest.approx(prior_freedom(chance, freedom))


def test_a_burst_in_one_cell_is_as_large_as_its_error():
    rng, n = np.random.default_rng(0), 60
    x = rng.poisson(0.2, (50, n, 3)).astype(float)
    x[0, 0, 1] += 40
    counts, rate = x.sum(1), x.mean(1, keepdims=True)
    dispersion = np.ones(3)
    own = own_dispersion(dispersion, ((x - rate) ** 2).sum(1), counts, np.full((50, 1), n))
    z, naive = (
        change / np.sqrt(variance)
        for change, variance in (log_fold_change(counts, np.full((50, 3), 0.2 * n), each) for each in (own, dispersion))
    )
    assert abs(z[0, 1]) < 2.5
    assert abs(naive[0, 1]) > 8
    quiet = np.ones((50, 3), dtype=bool)
    quiet[0, 1] = False
    assert (own[quiet] == 1).all()  # what chance makes of Poisson counts is no burst
