from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

from scgim.datasets._graphs import descendants, random_dag
from scgim.datasets._mechanisms import Linear, Network
from scgim.datasets._model import StructuralModel, exact_noise


def draw(seed: int, *, n: int = 12, degree: float = 2, mechanism: str = "linear", kind: str = "er") -> StructuralModel:
    rng = np.random.default_rng(seed)
    return StructuralModel.draw(random_dag(n, kind=kind, degree=degree, rng=rng), mechanism=mechanism, rng=rng)


def noise(n: int = 12, cells: int = 20_000) -> np.ndarray:
    return exact_noise(n, cells, np.random.default_rng(99))


def r2_linear(y: np.ndarray, x: np.ndarray) -> float:
    design = np.c_[np.ones(len(y)), x.T]
    residual = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    return 1 - residual.var() / y.var()


@pytest.mark.parametrize("mechanism", ["linear", "network"])
@pytest.mark.parametrize("kind", ["er", "sf"])
def test_every_gene_has_mean_0_and_sd_1(mechanism, kind):
    for seed in range(5):
        model = draw(seed, mechanism=mechanism, kind=kind, degree=3)
        x = model.sample(noise(), np.zeros((12, 1)), intervention="shift")
        tolerance = 1e-9 if mechanism == "linear" else 0.08
        np.testing.assert_allclose(x.mean(1), 0, atol=tolerance)
        np.testing.assert_allclose(x.std(1), 1, atol=tolerance)


def test_linear_covariance_is_that_of_the_closed_form():
    model = draw(1)
    inverse = np.linalg.inv(np.eye(12) - model.weights())
    implied = inverse.T @ np.diag(model.sigma**2) @ inverse
    x = model.sample(noise(), np.zeros((12, 1)), intervention="shift")
    np.testing.assert_allclose(np.cov(x, bias=True), implied, atol=1e-9)
    np.testing.assert_allclose(np.diag(implied), 1, atol=1e-9)


@pytest.mark.parametrize("n", [1, 20, 300])
def test_noise_is_normal_with_exact_moments(n):
    eps = exact_noise(n, 2000, np.random.default_rng(0))
    np.testing.assert_allclose(eps.mean(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(eps @ eps.T / 2000, np.eye(n), atol=1e-12)
    assert kstest(eps[0], "norm").pvalue > 0.01


@pytest.mark.parametrize("mechanism", ["linear", "network"])
def test_functions_use_exactly_the_edges(mechanism):
    model = draw(2, mechanism=mechanism)
    np.testing.assert_array_equal(model.support(), model.graph)
    for j, function in enumerate(model.functions):
        parents = noise()[model.graph[:, j]]
        for p in range(len(parents)):
            moved = parents.copy()
            moved[p] += 1
            assert not np.allclose(function(moved), function(parents))


@pytest.mark.parametrize("intervention", ["shift", "hard"])
@pytest.mark.parametrize("mechanism", ["linear", "network"])
def test_only_targets_and_descendants_move(mechanism, intervention):
    model, eps = draw(3, mechanism=mechanism), noise()
    control = model.sample(eps, np.zeros((12, 1)), intervention=intervention)
    reach = descendants(model.graph)
    for j in range(12):
        shift = np.zeros((12, 1))
        shift[j] = 3
        moved = (model.sample(eps, shift, intervention=intervention) != control).any(axis=1)
        assert moved[j]
        assert not moved[~reach[j] & (np.arange(12) != j)].any()


def test_hard_cuts_the_parents_and_shift_does_not():
    model, eps = draw(4, mechanism="network"), noise()
    for j in np.flatnonzero(model.graph.any(axis=0)):
        shift = np.zeros((12, 1))
        shift[j] = 2
        hard, soft = (model.sample(eps, shift, intervention=kind) for kind in ("hard", "shift"))
        np.testing.assert_allclose(hard[j], 2 + model.sigma[j] * eps[j])
        np.testing.assert_allclose(soft[j] - 2, model.sample(eps, 0 * shift, intervention="shift")[j])


def test_cells_do_not_touch_each_other():
    model, eps = draw(5, mechanism="network"), noise(cells=100)
    shift = np.where(np.arange(12)[:, None] == 3, np.linspace(-3, 3, 100), 0)
    together = model.sample(eps, shift, intervention="hard")
    for i in (0, 17, 99):
        alone = model.sample(eps[:, [i]], shift[:, [i]], intervention="hard")
        np.testing.assert_allclose(together[:, [i]], alone, rtol=1e-10)


def test_linear_coefficients_are_bounded_away_from_0():
    coefficients = Linear.draw(np.empty((2000, 0)), np.random.default_rng(0)).coefficients
    assert abs(coefficients).min() >= 0.5
    assert 0.45 < (coefficients > 0).mean() < 0.55


@pytest.mark.parametrize("n_parents", [1, 2, 4])
def test_networks_are_clearly_not_linear(n_parents):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n_parents, 2000))
    r2 = [r2_linear(Network.draw(x, rng)(x), x) for _ in range(100)]
    assert np.median(r2) < 0.85
    assert np.mean(np.array(r2) > 0.95) < 0.05


@pytest.mark.parametrize("kind", ["er", "sf"])
def test_linear_r2_does_not_give_the_order_away(kind):
    share = []
    for seed in range(20):
        model = draw(seed, n=20, kind=kind)
        x = model.sample(noise(20, 2000), np.zeros((20, 1)), intervention="shift")
        r2 = 1 - 1 / np.diag(np.linalg.inv(np.corrcoef(x)))
        i, j = np.nonzero(descendants(model.graph))
        share.append((r2[i] < r2[j]).mean())
    assert np.mean(share) == pytest.approx(0.5, abs=0.1)
