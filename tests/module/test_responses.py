from __future__ import annotations

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Kernel

from scgim.module import Responses, Rows
from scgim.module.responses import Covariance, _fit


def screen(drugs: int = 5, doses: int = 6, lines: int = 3, genes: int = 10, noise: float = 0.2, seed: int = 0):
    """Hill responses of every drug, some genes without any, lines that differ a little; conditions, truth and what was seen."""
    rng = np.random.default_rng(seed)
    drug, dose, line = (a.ravel() for a in np.meshgrid(range(drugs), range(doses), range(lines), indexing="ij"))
    log_dose = np.linspace(-3.0, 3.0, doses)[dose]
    effect = rng.normal(size=(drugs, genes)) * 2 * (np.arange(genes) < 7)
    size = 1 + 0.2 * rng.normal(size=(lines, genes))
    half = rng.normal(size=drugs)
    truth = effect[drug] * size[line] / (1 + np.exp(half[drug] - log_dose))[:, None]
    return Rows(drug, log_dose, line), truth, truth + noise * rng.normal(size=truth.shape)


def rmse(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(((a - b) ** 2).mean()))


def fit(rows: Rows, seen: np.ndarray, noise: float = 0.2, **features) -> Responses:
    said = {"said": None, "held_out": None} | features
    return Responses.fit(rows, seen, np.full(seen.shape, noise**2), **said)


@pytest.mark.parametrize("drugs", [pytest.param(5, id="few drugs"), pytest.param(30, id="many drugs")])
def test_measured_conditions_are_nearer_to_the_truth_than_their_own_means(drugs):
    rows, truth, seen = screen(drugs)
    found = fit(rows, seen).predict(rows, 0 * seen)
    assert rmse(found, truth) < 0.75 * rmse(seen, truth)


@pytest.mark.parametrize("drugs", [pytest.param(5, id="few drugs"), pytest.param(30, id="many drugs")])
def test_doses_in_between_are_nearer_than_by_interpolation(drugs):
    rows, truth, seen = screen(drugs, doses=7)
    held = np.isin(rows.log_dose, np.unique(rows.log_dose)[[2, 4]])
    found = fit(rows.take(~held), seen[~held]).predict(rows.take(held), 0 * seen[held])
    doses = np.unique(rows.log_dose)
    straight = np.empty_like(found)
    for i, k in enumerate(np.flatnonzero(held)):
        same = (rows.drug == rows.drug[k]) & (rows.line == rows.line[k])
        at = np.searchsorted(doses, rows.log_dose[k])
        below, above = (seen[same & (rows.log_dose == doses[at + step])][0] for step in (-1, 1))
        straight[i] = (below + above) / 2
    assert rmse(found, truth[held]) < 0.8 * rmse(straight, truth[held])


def test_an_unseen_line_gets_what_the_drug_does_in_others():
    rows, truth, seen = screen(lines=5)
    held = rows.line == 4
    found = fit(rows.take(~held), seen[~held]).predict(
        rows.take(held)._replace(line=np.full(held.sum(), -1)), 0 * seen[held]
    )
    others = np.array(
        [
            seen[~held][(rows.drug[~held] == d) & (rows.log_dose[~held] == x)].mean(0)
            for d, x in zip(rows.drug[held], rows.log_dose[held], strict=True)
        ]
    )
    assert rmse(found, truth[held]) < 1.02 * rmse(others, truth[held])


def test_no_drug_has_no_effect_and_high_doses_end_in_a_plateau():
    rows, _, seen = screen()
    model = fit(rows, seen)
    one = Rows(np.zeros(3, int), np.array([-np.inf, 20.0, 30.0]), np.zeros(3, int))
    nothing, high, higher = model.own(one)
    assert (nothing == 0).all()
    np.testing.assert_allclose(high, higher, atol=1e-3)


def test_noise_alone_is_drawn_to_nothing():
    rows, truth, _ = screen()
    noise = 0.2 * np.random.default_rng(1).normal(size=truth.shape)
    assert rmse(fit(rows, noise).predict(rows, 0 * noise), 0) < 0.25 * rmse(noise, 0)


def test_what_features_say_is_taken_where_it_holds_on_held_out_conditions():
    rows, truth, seen = screen(30, doses=3, lines=1)
    good = truth + 0.05 * np.random.default_rng(2).normal(size=truth.shape)
    bad = np.random.default_rng(3).permutation(truth)
    assert fit(rows, seen, said=good, held_out=good).weight == 1
    assert fit(rows, seen, said=bad, held_out=bad).weight == 0
    # features that repeat what they saw and say nothing of what they did not
    assert fit(rows, seen, said=seen, held_out=bad).weight == 0


def test_units_and_the_order_of_conditions_and_genes_do_not_matter():
    rows, _, seen = screen()
    found = fit(rows, seen).predict(rows, 0 * seen)
    scaled = Responses.fit(rows, 7 * seen, np.full(seen.shape, (7 * 0.2) ** 2), None, None).predict(rows, 0 * seen)
    np.testing.assert_allclose(scaled, 7 * found, rtol=1e-6, atol=1e-8)
    rng = np.random.default_rng(0)
    order, genes = rng.permutation(len(seen)), rng.permutation(seen.shape[1])
    again = fit(rows.take(order), seen[order][:, genes]).predict(rows, 0 * seen)
    np.testing.assert_allclose(again, found[:, genes], atol=1e-6)


def test_state_round_trips_to_equal_bits():
    rows, _, seen = screen(30)
    model = fit(rows, seen)
    again = Responses.from_state(model.state())
    assert (again.predict(rows, 0 * seen) == model.predict(rows, 0 * seen)).all()


class Given(Kernel):
    """scikit-learn's view of a covariance that is already there: inputs are numbers of conditions."""

    def __init__(self, matrix):
        self.matrix = matrix

    def __call__(self, x, y=None, eval_gradient=False):
        return self.matrix[np.ix_(x[:, 0].astype(int), (x if y is None else y)[:, 0].astype(int))]

    def diag(self, x):
        return np.diag(self.matrix)[x[:, 0].astype(int)]

    def is_stationary(self):
        return False


@pytest.mark.parametrize("by_drug", [False, True])
def test_equals_the_regression_of_scikit_learn_at_a_known_signal(monkeypatch, by_drug):
    monkeypatch.setattr("scgim.module.responses.RATIOS", np.array([4.0]))
    rows, _, seen = screen(4, doses=4, lines=2, genes=3)
    noise = np.random.default_rng(0).uniform(0.02, 0.1, len(seen))[:, None] * np.ones((1, 3))
    shares = ((0.0, 0.0, 0.7, 0.3),)
    process, _ = _fit(rows, seen, noise, shares, by_drug=by_drug)
    kernel = process.covariance.between(rows, rows, process.span, process.scale)
    of_row = np.exp(np.log(noise).mean(1))
    of_row /= np.exp(np.log(of_row).mean())
    at = np.arange(len(seen))[:, None]
    theirs = GaussianProcessRegressor(Given(4.0 * kernel), alpha=of_row, optimizer=None).fit(at, seen).predict(at)
    np.testing.assert_allclose(process.predict(rows), theirs, rtol=1e-6, atol=1e-8)


def test_the_covariance_is_positive_semidefinite_and_one_at_the_highest_dose():
    rows, *_ = screen(4)
    covariance = Covariance((0.4, 0.3, 0.2, 0.1), 0.0, (1.0, 4.0, 0.5))
    kernel = covariance.between(rows, rows, (-3.0, 3.0), np.ones(5))
    assert np.linalg.eigvalsh(kernel).min() > -1e-10
    np.testing.assert_allclose(np.diag(kernel)[rows.log_dose == 3.0], 1.0)
    assert (np.diff(np.diag(kernel)[(rows.drug == 0) & (rows.line == 0)]) > 0).all()


def test_blocks_of_drugs_say_what_the_whole_covariance_says():
    rows, _, seen = screen(30)
    process = fit(rows, seen).processes[1]
    assert not any(process.covariance.shares[:2])
    asked = Rows(np.append(rows.drug[::3], -1), np.append(rows.log_dose[::3] + 0.1, 0.0), np.append(rows.line[::3], 0))
    whole = process.covariance.between(asked, process.rows, process.span, process.scale) @ process.weights
    np.testing.assert_allclose(process.predict(asked), whole, atol=1e-12)
