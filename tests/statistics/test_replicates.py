from __future__ import annotations

import numpy as np
import pytest
from scipy.special import digamma, polygamma

from scgim.statistics import Replicates
from scgim.statistics._moderation import moderated_variance

# Parts: controls of batch 0, controls of batch 1, condition 0 in batch 0 and in batch 1, condition 1 in batch 1.
PART = np.array([0, 0, 0, 1, 1, 2, 2, 3, 3, 4])
REPLICATE = np.array([0, 1, 2, 1, 2, 3, 4, 3, 5, 6])  # controls 1 and 2 and replicate 3 are in both batches
CELLS = np.array([30.0, 10, 20, 5, 40, 12, 4, 8, 25, 9])
CONDITION = np.array([0, 0, 1])


def replicates(cells: np.ndarray = CELLS, order: np.ndarray | slice = slice(None)) -> Replicates:
    return Replicates.of(cells[order], PART[order], REPLICATE[order], np.array([0, 1]), np.array([0, 1, 1]))


def nested(n_parts: int, sizes: list[float]) -> Replicates:
    """The same wells in every part; the first half of the parts are controls of as many groups."""
    part, half = np.repeat(np.arange(n_parts), len(sizes)), n_parts // 2
    return Replicates.of(np.tile(sizes, n_parts), part, np.arange(len(part)), np.arange(half), np.arange(half))


# ---- empirical Bayes ---------------------------------------------------------------------------------------------------


def squeeze_var(variance: np.ndarray, freedom: float) -> tuple[np.ndarray, float]:
    """limma's ``squeezeVar`` with its ``fitFDist`` and ``trigammaInverse``, as in the sources in R."""
    e = np.log(variance) - digamma(freedom / 2) + np.log(freedom / 2)
    excess = e.var(ddof=1) - polygamma(1, freedom / 2)
    if excess <= 0:
        return np.full_like(variance, variance.mean()), np.inf
    y = 0.5 + 1 / excess
    for _ in range(50):
        tri = polygamma(1, y)
        y += tri * (1 - tri / excess) / polygamma(2, y)
    prior = 2 * y
    location = np.exp(e.mean() + digamma(prior / 2) - np.log(prior / 2))
    return (freedom * variance + prior * location) / (freedom + prior), prior


@pytest.mark.parametrize(("freedom", "prior"), [(3, 4.0), (8, 15.0), (40, 2.0), (6, np.inf)])
def test_variances_are_moderated_as_in_limma(freedom, prior):
    rng = np.random.default_rng(0)
    true = np.ones(300) if np.isinf(prior) else prior / rng.chisquare(prior, 300)
    variance = true * rng.chisquare(freedom, 300) / freedom
    moderated, found = moderated_variance(variance, freedom)
    expected, known = squeeze_var(variance, freedom)
    if np.isinf(known) or known > 1e4:
        assert np.isinf(found) or found > 50
    else:
        assert found == pytest.approx(known, rel=1e-5)
        np.testing.assert_allclose(moderated, expected, rtol=1e-6)
    assert ((moderated - true) ** 2).mean() < ((variance - true) ** 2).mean()


# ---- variance between replicates ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("omega", [0.0, 0.1, 0.5])
def test_variance_between_replicates_is_recovered(omega):
    rng, found = np.random.default_rng(1), nested(60, [5.0, 50.0, 20.0, 100.0])
    sampling = 1 / np.repeat(found.n[:, None], 40, 1)
    change = rng.normal(size=(60, 40))[found.part] + rng.normal(size=sampling.shape) * np.sqrt(sampling + omega**2)
    variance, freedom = found.variance(change, sampling)
    assert variance.mean() == pytest.approx(omega**2, rel=0.1, abs=5e-4)
    assert found.freedom == 180
    assert freedom > 180


def test_of_equal_replicates_the_error_is_their_mean_square():
    """The textbook's variance of a mean of replicates, whatever the variance of a cell is taken for."""
    rng, found = np.random.default_rng(2), nested(10, [20.0] * 3)
    change = rng.normal(size=(30, 25)) * np.linspace(0.5, 2, 25)
    for cell in (0.3, 1.0):
        variance, _ = found.variance(change, np.full((30, 25), cell / 20))
        error = cell / 60 + variance / 3
        center = change.reshape(10, 3, 25).mean(1, keepdims=True)
        square = ((change.reshape(10, 3, 25) - center) ** 2).sum((0, 1)) / 20
        moderated, _ = moderated_variance(square, 20)
        np.testing.assert_allclose(error, moderated / 3)


def test_order_of_units_does_not_matter():
    rng = np.random.default_rng(3)
    change, order = rng.normal(size=(10, 30)), rng.permutation(10)
    sampling = 1 / np.repeat(CELLS[:, None], 30, 1)
    one, other = replicates(), replicates(order=order)
    np.testing.assert_allclose(
        one.variance(change, sampling).variance, other.variance(change[order], sampling[order]).variance
    )
    np.testing.assert_allclose(one.concentration(CONDITION, 2), other.concentration(CONDITION, 2))


# ---- what it adds to errors ---------------------------------------------------------------------------------------------


def share(part: int) -> np.ndarray:
    """Shares of the replicates in a part, one by one."""
    out = np.zeros(7)
    for p, r, n in zip(PART, REPLICATE, CELLS, strict=True):
        if p == part:
            out[r] += n / CELLS[PART == part].sum()
    return out


def contrast(part: int) -> np.ndarray:
    """Weights of the replicates in the change of a treated part from the controls of its batch."""
    return share(part) - share({2: 0, 3: 1, 4: 1}[part])


def test_shares_of_replicates_that_span_batches_add_up():
    first = CELLS[PART == 2].sum() / CELLS[np.isin(PART, (2, 3))].sum()
    whole = [first * contrast(2) + (1 - first) * contrast(3), contrast(4)]
    found = replicates().concentration(CONDITION, 2)
    np.testing.assert_allclose(found.sum(0)[:, 0], [(each**2).sum() for each in whole])
    np.testing.assert_allclose(found[0, :, 0], [(np.clip(each, 0, None) ** 2).sum() for each in whole])


def test_replicates_of_their_own_in_every_batch_are_independent():
    found = nested(4, [10.0, 30.0])
    own, controls = found.concentration(np.array([0, 0]), 1)[:, 0, 0]
    assert own == pytest.approx(0.5 * (0.25**2 + 0.75**2))
    assert controls == pytest.approx(own)


def test_controls_of_a_line_share_their_replicates():
    n = CELLS[:5]
    mixed = (share(0) * n[:3].sum() + share(1) * n[3:].sum()) / n.sum()
    np.testing.assert_allclose(replicates().of_lines(np.array([0, 0]), 1), [[(mixed**2).sum()]])


def test_expected_differences_between_batches():
    """The trace of the quadratic form between batches with the covariance of their changes."""
    rows = np.array([contrast(2), contrast(3)])
    n, controls = (np.array([CELLS[PART == p].sum() for p in parts]) for parts in ((2, 3), (0, 1)))
    w = 1 / (1 / n + 1 / controls)
    form = np.diag(w) - np.outer(w, w) / w.sum()
    expected, total = replicates().between_parts(CONDITION, 2)
    assert expected == pytest.approx(np.trace(form @ rows @ rows.T))  # the other condition has one batch
    assert total == pytest.approx(w.sum() + 1 / (1 / CELLS[9] + 1 / CELLS[3:5].sum()))


def test_degrees_of_freedom_are_independent_differences():
    """Three controls over two batches have two, three replicates of a condition that share one have two, and a single one none."""
    assert replicates().freedom == 4
    assert nested(6, [1.0, 1.0, 1.0]).freedom == 12


def test_simulated_errors_have_the_variance_that_is_said():
    rng, omega = np.random.default_rng(4), 0.3
    effect = rng.normal(0, omega, (20_000, 7))
    mean = effect[:, REPLICATE] + rng.normal(size=(20_000, 10)) / np.sqrt(CELLS)
    part = np.stack([np.average(mean[:, PART == p], axis=1, weights=CELLS[PART == p]) for p in range(5)])
    change = part[4] - part[1]
    said = omega**2 * replicates().concentration(CONDITION, 2).sum(0)[1, 0] + 1 / 9 + 1 / 45
    assert change.var() == pytest.approx(said, rel=0.04)
