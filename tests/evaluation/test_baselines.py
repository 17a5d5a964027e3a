from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import RidgeCV

from scgim.evaluation import BASELINES, ConditionTable


def conditions(
    seed: int = 0, *, drugs: int = 12, doses=(1.0, 10.0, 100.0), lines=("A", "B"), d: int = 4
) -> ConditionTable:
    """Every drug at every dose in every line; the change follows features, dose and line, plus a little noise."""
    rng = np.random.default_rng(seed)
    index = [(i, dose, line) for i in range(drugs) for dose in doses for line in lines]
    bits = (rng.random((drugs, 6)) < 0.4).astype(float)
    effect = rng.normal(size=(6, d))
    names = pd.DataFrame([(f"d{i:02d}", dose, line) for i, dose, line in index], columns=["drug", "dose", "cell_line"])
    features = np.array([bits[i] for i, _, _ in index])
    size = np.log(names["dose"].to_numpy())[:, None] + (names["cell_line"] == "B").to_numpy()[:, None]
    change = features @ effect * (1 + 0 * size) + 0.3 * size + 0.01 * rng.normal(size=(len(index), d))
    return ConditionTable(names, features, change, np.full(len(index), 50.0))


def split(table: ConditionTable, test: np.ndarray) -> tuple[ConditionTable, ConditionTable]:
    return table.take(np.flatnonzero(~test)), table.take(np.flatnonzero(test))


def predict(name: str, train: ConditionTable, test: ConditionTable) -> np.ndarray:
    baseline = BASELINES[name]()
    baseline.fit(train)
    return baseline.predict(test)


@pytest.fixture
def by_drug() -> tuple[ConditionTable, ConditionTable]:
    table = conditions()
    return split(table, np.isin(table.drug, ["d00", "d01"]))


@pytest.mark.parametrize("name", BASELINES)
def test_the_answer_does_not_depend_on_the_change_of_test_conditions(by_drug, name) -> None:
    train, test = by_drug
    other = ConditionTable(test.names, test.features, test.change + 100, test.n)
    np.testing.assert_array_equal(predict(name, train, test), predict(name, train, other))


@pytest.mark.parametrize("name", BASELINES)
def test_each_row_is_answered_alone(by_drug, name) -> None:
    train, test = by_drug
    whole = predict(name, train, test)
    alone = np.concatenate([predict(name, train, test.take(np.array([i]))) for i in range(len(test))])
    np.testing.assert_allclose(whole, alone, rtol=1e-9, atol=1e-12)


def test_control_is_no_change(by_drug) -> None:
    assert not predict("control", *by_drug).any()


def test_the_training_mean_is_that_of_line_and_nearest_dose(by_drug) -> None:
    train, test = by_drug
    near = ConditionTable(test.names.assign(dose=test.names["dose"] * 1.2), test.features, test.change, test.n)
    for found in (predict("training mean", train, test), predict("training mean", train, near)):
        for i in range(len(test)):
            rows = (train.line == test.line[i]) & (train.names["dose"] == test.names["dose"][i]).to_numpy()
            np.testing.assert_allclose(found[i], train.change[rows].mean(0))


def test_the_nearest_drug_is_itself_if_it_was_trained_on() -> None:
    table = conditions()
    unlike = np.eye(12)[table.names["drug"].astype("category").cat.codes]
    table = ConditionTable(table.names, unlike, table.change, table.n)
    np.testing.assert_allclose(predict("nearest drug", table, table), table.change)


def test_interpolation_is_linear_in_log_dose_and_silent_on_new_drugs() -> None:
    table = conditions(doses=(1.0, 10.0, 100.0))
    train, test = split(table, (table.names["dose"] == 10.0).to_numpy())
    found = predict("dose interpolation", train, test)
    ends = [train.change[(train.names["dose"] == dose).to_numpy()] for dose in (1.0, 100.0)]
    np.testing.assert_allclose(found, (ends[0] + ends[1]) / 2)
    beyond = ConditionTable(test.names.assign(dose=1e4), test.features, test.change, test.n)
    np.testing.assert_allclose(predict("dose interpolation", train, beyond), ends[1])
    none = ConditionTable(test.names.assign(dose=1e-9), test.features, test.change, test.n)
    assert not predict("dose interpolation", train, none).any()
    new = ConditionTable(test.names.assign(drug="new"), test.features, test.change, test.n)
    assert np.isnan(predict("dose interpolation", train, new)).all()


def test_ridge_is_scikit_learns(by_drug) -> None:
    train, test = by_drug
    x = [np.column_stack([t.features, t.log_dose, t.line == "B"]) for t in (train, test)]
    center, scale = x[0].mean(0), x[0].std(0)
    reference = RidgeCV(alphas=np.logspace(-3, 4, 15)).fit((x[0] - center) / scale, train.change)
    np.testing.assert_allclose(predict("ridge", train, test), reference.predict((x[1] - center) / scale))
    assert np.abs(predict("ridge", train, test) - test.change).max() < 0.1


def test_kernel_ridge_knows_more_than_the_mean(by_drug) -> None:
    train, test = by_drug
    error = {
        name: ((predict(name, train, test) - test.change) ** 2).mean() for name in ("kernel ridge", "training mean")
    }
    assert error["kernel ridge"] < error["training mean"]


@pytest.mark.parametrize("drugs", [1, 2, 5])
def test_kernel_ridge_has_the_penalty_that_predicts_each_drug_best_from_the_others(drugs) -> None:
    train, test = conditions(drugs=drugs, lines=("A",)), conditions(seed=1, lines=("A",))
    mean = predict("training mean", train, train)

    def kernel(one: ConditionTable, two: ConditionTable) -> np.ndarray:
        shared, joint = (f(one.features[:, None], two.features).sum(2) for f in (np.minimum, np.maximum))
        dose = (one.log_dose[:, None] - two.log_dose) / train.log_dose.std()
        return np.where(joint > 0, shared / np.maximum(joint, 1), 1.0) * np.exp(-0.5 * dose**2)

    def rest(penalty: float, rows: np.ndarray, of: ConditionTable) -> np.ndarray:
        known = train.take(rows)
        dual = np.linalg.solve(kernel(known, known) + penalty * np.eye(len(rows)), (train.change - mean)[rows])
        return kernel(of, known) @ dual

    def loss(penalty: float) -> float:
        held = [train.drug == drug for drug in np.unique(train.drug)] if drugs > 1 else []  # one drug: no choice
        known = [np.flatnonzero(~rows) for rows in held]
        return sum(
            (((train.change - mean) - rest(penalty, k, train))[h] ** 2).sum() for h, k in zip(held, known, strict=True)
        )

    penalty = min(np.logspace(-2, 4, 13), key=loss)
    expected = predict("training mean", train, test) + rest(penalty, np.arange(len(train)), test)
    np.testing.assert_allclose(predict("kernel ridge", train, test), expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", ["nearest drug", "kernel ridge"])
def test_without_features_there_is_no_answer(by_drug, name) -> None:
    train, test = (ConditionTable(t.names, t.features[:, :0], t.change, t.n) for t in by_drug)
    assert np.isnan(predict(name, train, test)).all()


def test_an_unseen_line_is_that_of_all(by_drug) -> None:
    train, test = by_drug
    other = ConditionTable(test.names.assign(cell_line="C"), test.features, test.change, test.n)
    found = predict("training mean", train, other)
    rows = (train.names["dose"] == other.names["dose"][0]).to_numpy()
    np.testing.assert_allclose(found[0], train.change[rows].mean(0))
