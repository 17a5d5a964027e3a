from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import expit

from scgim.module import GENERATORS, TreatmentInputs
from scgim.train._cross_fit import cross_fit, reliability
from scgim.train._folds import Folds, ObservedEffects

PENALTY = 5.0


def inputs(drugs: int = 24, doses: int = 1, lines: int = 1, bits: int = 8, seed: int = 0) -> TreatmentInputs:
    drug, dose, line = (a.ravel() for a in np.meshgrid(range(drugs), range(doses), range(lines), indexing="ij"))
    features = np.random.default_rng(seed).integers(2, size=(drugs, bits)).astype(float)
    return TreatmentInputs(*map(torch.as_tensor, (features[drug], drug, np.linspace(-1.0, 1.0, doses)[dose], line)))


def build(given: TreatmentInputs, genes: int, name: str):
    doses = torch.unique(given.log_dose).tolist()
    sizes = {"n_drugs": int(given.drug.max()) + 1, "n_lines": int(given.line.max()) + 1}
    return lambda: GENERATORS[name](given.features.shape[1], genes, dosed=True, log_doses=doses, **sizes)


def fit(name: str, given: TreatmentInputs, shift: np.ndarray, n: float = 50.0):
    observed = torch.as_tensor(shift)
    observed_effects = ObservedEffects(
        observed, n * observed**2 / 2, torch.full_like(observed, n), torch.ones(shift.shape[1]).double()
    )
    penalty = torch.full((shift.shape[1],), PENALTY, dtype=torch.float64)
    return cross_fit(
        name, build(given, shift.shape[1], name), given, observed_effects, observed_effects, penalty, penalty, seed=0
    )


def noise(given: TreatmentInputs, genes: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(len(given.drug), genes)) / 50**0.5


@pytest.mark.parametrize("name", ["hill", "kernel", "mean", "network"])
def test_random_structures_vouch_for_nothing(name):
    """Some drugs of random features have strong targets: what is said of any is no more than the penalty from placebos allows."""
    given = inputs(drugs=30, bits=60)
    shift = noise(given, 10)
    shift[np.arange(10), np.arange(10)] += 3
    said = fit(name, given, shift)
    assert (said.log_odds <= -PENALTY).all()
    assert (said.log_odds > -PENALTY - 1.5).all()


def test_features_that_other_drugs_bear_out_speak_for_targets():
    given = inputs(drugs=60)
    shift = noise(given, 8)
    for feature in range(4):
        shift[:, feature] += 2 * given.features[:, feature].numpy()
    said, target = fit("hill", given, shift), given.features[:, :4] > 0
    odds = said.log_odds[:, :4]
    assert odds[target].median() > 0
    assert odds[~target].max() < -PENALTY / 2
    assert (said.log_odds[:, 4:] < -1).all()
    assert said.psi[:, :4][target].median() == pytest.approx(2, abs=0.3)


def test_a_condition_is_never_vouched_for_by_its_own_data():
    """What is said of a condition stays the same if the condition shows something else."""
    given = inputs(drugs=40)
    shift = noise(given, 8)
    shift[:, 0] += 2 * given.features[:, 0].numpy()
    before = fit("kernel", given, shift)
    shift[3, 2] = 5.0
    after = fit("kernel", given, shift)
    torch.testing.assert_close(after.psi[3], before.psi[3])


def test_drugs_known_by_name_and_few_drugs_are_not_cross_fitted():
    given = inputs(drugs=30)
    assert fit("identity", given, noise(given, 5)) is None
    few = inputs(drugs=7)
    assert fit("hill", few, noise(few, 5)) is None


def test_every_condition_is_held_out_once_and_drugs_of_one_condition_with_their_duplicates():
    given = inputs(drugs=20, doses=3, lines=2)
    held, *_ = Folds.of_conditions(given, 4, 0)
    assert (held.sum(0) == 1).all()
    for drug in range(20):  # something is known of the drug in every fold
        assert not held[:, given.drug == drug].all(1).any()
    single = inputs(drugs=20)
    single = single._replace(features=single.features[single.drug // 2])
    held, *_ = Folds.of_conditions(single, 4, 0)
    assert (held.sum(0) == 1).all()
    assert (held[:, ::2] == held[:, 1::2]).all()


def test_the_slope_maximises_the_marginal_likelihood():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(300, 1)) * 2
    target = rng.random((300, 1)) < expit(-2 + logits)
    odds = np.where(target, 2.0, -2.0) + rng.normal(size=(300, 1))
    found = reliability(*map(torch.as_tensor, (logits, odds, np.arange(300))))
    x = logits - logits.mean()

    def loss(theta):
        q = expit(theta[0] + theta[1] * x)
        prior = -0.05 * np.log(expit(theta[0])) - 0.95 * np.log(expit(-theta[0]))  # of the pseudo-condition
        return -np.log1p(q * np.expm1(odds)).sum() + prior + 0.5 * 1e-9 * theta[1] ** 2

    best = minimize(loss, [-1.0, 0.5], tol=1e-10).x
    assert found.slope == pytest.approx(best[1], rel=0.05)
    assert 0.3 < found.trust < 1


def test_logits_that_say_nothing_are_not_trusted():
    rng = np.random.default_rng(1)
    trusted = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        odds = np.where(rng.random((60, 10)) < 0.1, 10.0, -1.0)
        found = reliability(*map(torch.as_tensor, (rng.normal(size=(60, 10)), odds, np.arange(60))))
        trusted += found.trust > 0
    assert trusted <= 2


def test_the_likelihood_ratio_averages_to_one_where_nothing_is_a_target():
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(200, 5)) * 3
    odds = np.where(rng.random((200, 5)) < expit(logits - 2), 8.0, -8.0)
    found = reliability(*map(torch.as_tensor, (logits, odds, np.arange(200))))
    assert found.trust > 0.5
    ratio, none = torch.exp(found.log_ratio), torch.as_tensor(odds < 0)
    torch.testing.assert_close((ratio * none).sum(0) / none.sum(0), torch.ones(5).double(), rtol=0.2, atol=0.1)
