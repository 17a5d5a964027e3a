from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import pdist
from scipy.stats import bootstrap

from scgim.evaluation import DUPLICATE, EMPTY, SCGIM, SHUFFLED, compare, e_test, remaining, verdict
from scgim.metrics import energy_distance

BASE = ["control", "ridge"]


def table(errors: dict[str, float], *, drugs: int = 20, noise: float = 0.01, size: float = 0.8) -> pd.DataFrame:
    """Scores of methods with given mean errors on two conditions a drug."""
    rng, rows = np.random.default_rng(0), []
    for method, mean in errors.items():
        for i in range(drugs):
            for dose in (1.0, 2.0):
                rows.append((method, f"d{i}", dose, "", mean + noise * rng.normal(), size))
    return pd.DataFrame(rows, columns=["method", "drug", "dose", "cell_line", "rmse", "size_ratio"])


def test_the_interval_is_the_bootstrap_over_drugs() -> None:
    rng = np.random.default_rng(0)
    drug = pd.Series(np.repeat([f"d{i}" for i in range(30)], 3))
    gap = pd.Series(np.repeat(rng.normal(0.1, 0.3, 30), 3) + 0.01 * rng.normal(size=90))
    found = compare(gap, pd.Series(np.zeros(90)), drug)
    means = gap.groupby(drug).mean().to_numpy()
    reference = bootstrap((means,), np.mean, method="percentile", rng=np.random.default_rng(1)).confidence_interval
    assert found.difference == pytest.approx(means.mean())
    np.testing.assert_allclose([found.low, found.high], reference, atol=0.02)
    alone = gap[::3].to_numpy().std() / np.sqrt(90)  # as if conditions of a drug were independent
    assert (found.high - found.low) > 1.5 * 2 * 1.96 * alone


@pytest.mark.parametrize(
    ("error", "word"), [(0.2, "beats"), (0.6, "does not beat"), (0.4, "cannot be told from")], ids=str
)
def test_words_follow_the_interval(error, word) -> None:
    said = verdict(table({SCGIM: error, "ridge": 0.4, "control": 0.9}, noise=0.05), BASE)
    assert f"scgim {word} the best baseline (ridge)" in said[0]


def test_conditions_without_an_answer_are_left_out_of_both() -> None:
    a, b, drug = pd.Series([1.0, np.nan, 3.0]), pd.Series([0.0, 5.0, np.nan]), pd.Series(["x", "y", "z"])
    assert compare(a, b, drug)[:3] == (1.0, -np.inf, np.inf)  # one witness alone has no interval
    assert compare(a, b, drug).word == "cannot be told from"
    assert np.isnan(compare(a * np.nan, b, drug).difference)


def test_a_baseline_that_is_silent_somewhere_is_not_the_best() -> None:
    scores = table({SCGIM: 0.5, "ridge": 0.4, "control": 0.9})
    scores.loc[scores["method"] == "ridge", "rmse"] = scores["rmse"].where(scores["drug"] != "d0")
    assert "(control)" in verdict(scores, BASE)[0]


@pytest.mark.parametrize(
    ("other", "error", "words"),
    [
        (EMPTY, 0.6, "graph improves the result"),
        (EMPTY, 0.5, "graph makes no measurable difference"),
        (EMPTY, 0.3, "graph worsens the result"),
        (SHUFFLED, 0.6, "features improve the result"),
        (SHUFFLED, 0.5, "features make no measurable difference"),
        (SHUFFLED, 0.3, "features worsen the result"),
    ],
    ids=str,
)
def test_the_use_of_graph_and_features_is_said(other, error, words) -> None:
    said = " ".join(verdict(table({SCGIM: 0.5, other: error, "ridge": 0.4, "control": 0.9}, noise=0.05), BASE))
    assert words in said


def test_a_significant_but_negligible_difference_does_not_count() -> None:
    said = verdict(table({SCGIM: 0.5, EMPTY: 0.5003, SHUFFLED: 0.4997, "ridge": 0.9}, noise=0), BASE[1:])
    assert any(sentence.startswith("The graph makes no measurable difference") for sentence in said)
    assert any(sentence.startswith("Drug features make no measurable difference") for sentence in said)


def test_the_share_of_squared_errors_is_bootstrapped_over_drugs() -> None:
    rng = np.random.default_rng(0)
    drug = pd.Series(np.repeat([f"d{i}" for i in range(40)], 3))
    mean = pd.Series(rng.gamma(4, 0.2, 120))
    error = mean * np.repeat(rng.uniform(0.6, 1, 40), 3)
    share, low, high = remaining(error, mean, drug)
    assert share == pytest.approx((error**2).sum() / (mean**2).sum())
    sums = [(each**2).groupby(drug).sum().to_numpy() for each in (error, mean)]
    ratio = lambda e, m, axis: e.sum(axis) / m.sum(axis)
    options = {"paired": True, "method": "percentile", "rng": np.random.default_rng(1)}
    np.testing.assert_allclose([low, high], bootstrap(sums, ratio, **options).confidence_interval, atol=0.02)
    assert remaining(mean, mean, drug) == (1, 1, 1)
    assert remaining(error, mean.where(drug != "d0"), drug)[0] == pytest.approx(remaining(error[3:], mean[3:], drug)[0])


@pytest.mark.parametrize(("error", "words"), [(0.2, "25.0%"), (0.399, "99.5%"), (0.6, "225.0%")])
def test_it_says_how_much_of_what_the_mean_leaves_is_remaining(error, words) -> None:
    said = verdict(table({SCGIM: error, "training mean": 0.4, "control": 0.9}, noise=0), ["control", "training mean"])[
        1
    ]
    assert f"squared error is {words} [" in said
    assert ("almost none" in said) == (error > 0.3)


def test_no_effect_is_called_so_and_the_ceiling_is_the_duplicate() -> None:
    said = verdict(table({SCGIM: 0.9, "ridge": 0.4, "control": 0.9, DUPLICATE: 0.1}, size=0.02), BASE)
    assert any("close to no effect" in sentence for sentence in said)
    perfect = verdict(table({SCGIM: 0.1, "ridge": 0.4, "control": 0.9, DUPLICATE: 0.1}, noise=0), BASE)
    assert any("explains 100%" in sentence for sentence in perfect)
    assert not any("no effect" in sentence for sentence in perfect)


def test_it_says_when_the_duplicate_is_no_ceiling() -> None:
    for duplicate, few in ((0.8, False), (1.0, True)):
        said = verdict(table({SCGIM: 0.7, "ridge": 0.8, "control": 0.9, DUPLICATE: duplicate}), BASE)
        assert any("with so few cells" in sentence for sentence in said) == few


# ---- the test of energy ----------------------------------------------------------------------------------------------


def test_p_values_are_uniform_without_and_small_with_an_effect() -> None:
    rng = np.random.default_rng(0)
    p = [e_test(rng.normal(size=(20, 3)), rng.normal(size=(25, 3)), n_permutations=99, seed=s) for s in range(200)]
    assert 0.02 <= np.mean(np.array(p) < 0.05) <= 0.09
    assert e_test(rng.normal(size=(20, 3)), rng.normal(2, 1, size=(25, 3))) == pytest.approx(1 / 201)


def test_its_statistic_is_the_energy_distance() -> None:
    """All permutations of two cells against one: the p-value counts those of as large an energy distance."""
    x, y = np.array([[0.0], [1.0]]), np.array([[5.0]])
    both = np.concatenate([x, y])
    own = energy_distance(x, y)
    others = [energy_distance(np.delete(both, i, 0), both[[i]]) for i in range(3)]
    assert max(others) == own
    assert e_test(x, y, n_permutations=3000) == pytest.approx(1 / 3, abs=0.05)
    assert pdist(both).max() > 0


def test_rounding_beats_nothing():
    error, drug = pd.Series(np.linspace(0.1, 0.9, 20)), pd.Series([f"d{i}" for i in range(20)])
    assert compare(error - 1e-9, error, drug).word == "cannot be told from"
    assert compare(error - 1e-3, error, drug).word == "beats"


def test_p_values_by_replicates_are_uniform_where_wells_differ() -> None:
    rng, p = np.random.default_rng(0), []
    for seed in range(200):
        own, other = np.repeat(np.arange(4), 6), np.repeat(np.arange(5), 6)
        x, y = (rng.normal(size=(len(w), 3)) + rng.normal(size=(w.max() + 1, 3))[w] for w in (own, other))
        each = (e_test(x, y, replicates=r, n_permutations=99, seed=seed) for r in (None, (own, other)))
        p.append(list(each))
    by_cells, by_wells = (np.array(p) < 0.05).mean(0)
    assert by_cells > 0.3
    assert 0.01 <= by_wells <= 0.09


def test_rows_as_replicates_are_the_test_of_rows() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 3)), rng.normal(0.5, 1, size=(15, 3))
    names = np.array([f"w{i:02}" for i in range(15)])
    assert e_test(x, y, replicates=(names[:12], names)) == e_test(x, y)
