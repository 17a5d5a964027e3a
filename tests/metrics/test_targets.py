import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score

from scgim.metrics import recall_at_k, target_average_precision, target_f1


def targets(seed=0, drugs=7, genes=10):
    rng = np.random.default_rng(seed)
    truth = rng.random((drugs, genes)) < 0.25
    truth[0], truth[1, 0] = False, True
    return rng.random((drugs, genes)), truth


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("ties", [False, True])
def test_average_precision_is_that_of_scikit_learn(seed, ties):
    score, truth = targets(seed)
    score = score.round(1) if ties else score
    expected = np.mean([average_precision_score(t, s) for t, s in zip(truth, score, strict=True) if t.any()])
    assert target_average_precision(score, truth) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
def test_f1_is_that_of_scikit_learn(seed):
    score, truth = targets(seed)
    assert target_f1(score > 0.6, truth) == pytest.approx(f1_score(truth.ravel(), score.ravel() > 0.6))


@pytest.mark.parametrize("k", [1, 3, 10])
def test_recall_counts_the_highest(k):
    score, truth = targets()
    expected = [t[np.argsort(-s)[:k]].sum() / t.sum() for t, s in zip(truth, score, strict=True) if t.any()]
    assert recall_at_k(score, truth, k) == pytest.approx(np.mean(expected))


@pytest.mark.parametrize("k", range(1, 11))
def test_ties_share_the_last_places_as_if_drawn(k):
    score, truth = targets(drugs=3)
    score, rng = (2 * score).round(), np.random.default_rng(1)
    drawn = [recall_at_k(score + 0.1 * rng.random(score.shape), truth, k) for _ in range(300)]
    assert recall_at_k(score, truth, k) == pytest.approx(np.mean(drawn), abs=0.06)
    assert recall_at_k(np.zeros(truth.shape), truth, k) == pytest.approx(k / 10)


def test_perfect():
    _, truth = targets()
    assert target_average_precision(truth, truth) == target_f1(truth, truth) == 1
    assert recall_at_k(truth, truth, int(truth.sum(1).max())) == 1


@pytest.mark.parametrize("measure", [target_average_precision, target_f1, lambda s, t: recall_at_k(s, t, 2)])
def test_orders_and_units_do_not_matter(measure):
    score, truth = targets()
    score = np.where(score > 0.5, score, 0)
    rng = np.random.default_rng(0)
    drugs, genes = rng.permutation(7), rng.permutation(10)
    found = measure(score, truth)
    assert measure(score[drugs][:, genes], truth[drugs][:, genes]) == pytest.approx(found)
    assert measure(7 * score, 3.0 * truth) == pytest.approx(found)


def test_drugs_without_target_count_in_f1_alone():
    score, truth = targets()
    more = np.vstack([score, np.ones((2, 10))]), np.vstack([truth, np.zeros((2, 10))])
    assert target_average_precision(*more) == target_average_precision(score, truth)
    assert recall_at_k(*more, 3) == recall_at_k(score, truth, 3)
    assert target_f1(*more) < target_f1(score, truth)


def test_no_target_at_all():
    none = np.zeros((2, 3))
    assert np.isnan([target_average_precision(none, none), recall_at_k(none, none, 1), target_f1(none, none)]).all()
    assert target_f1(none + 1, none) == 0


@pytest.mark.parametrize("measure", [target_average_precision, target_f1, lambda s, t: recall_at_k(s, t, 1)])
@pytest.mark.parametrize(
    ("first", "truth", "message"),
    [
        pytest.param(np.ones((2, 3)), np.ones((3, 2)), r"\(2, 3\) and \(3, 2\)", id="shapes"),
        pytest.param(np.ones(3), np.ones(3), r"\(drugs, genes\).*\(3,\)", id="vector"),
        pytest.param(np.full((2, 3), np.nan), np.ones((2, 3)), r"of shape \(2, 3\) holds 6", id="nan"),
    ],
)
def test_bad_shapes_are_refused(measure, first, truth, message):
    with pytest.raises(ValueError, match=message):
        measure(first, truth)


@pytest.mark.parametrize("k", [0, 4, -1, 1.5])
def test_impossible_k(k):
    with pytest.raises(ValueError, match=f"k={k} must be a whole number from 1 to 3"):
        recall_at_k(np.ones((2, 3)), np.ones((2, 3)), k)
