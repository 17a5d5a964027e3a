"""Columns of combinations, and the design of a screen with combinations."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scgim._combinations import TreatmentColumns, Treatments
from scgim.data._columns import ScreenColumns
from scgim.data._design import ScreenDesign
from scgim.data._known_targets import check_known_targets, target_prior

GENES = np.array(["g1", "g2", "g3"])
OBS = pd.DataFrame(
    {
        "one": ["A", "B", "B", "DMSO", "C", "DMSO"],
        "two": ["", "A", None, "", "DMSO", "C"],
        "d1": [1.0, 2.0, 2.0, np.nan, 3.0, 0.0],
        "d2": [np.nan, 1.0, np.nan, np.nan, np.nan, 4.0],
    }
)
NAMES = ["A", "A (1) + B (2)", "B", "DMSO", "C", "C"]


def read(obs: pd.DataFrame, drug=("one", "two"), dose=("d1", "d2"), sep=None) -> Treatments:
    return TreatmentColumns(drug, dose, "DMSO", sep).read(obs)


def test_columns_of_a_list():
    found = read(OBS)
    assert found.name.tolist() == NAMES
    np.testing.assert_array_equal(found.dose, [1.0, np.nan, 2.0, np.nan, 3.0, 4.0])
    assert found.combinations == {"A (1) + B (2)": (("A", 1.0), ("B", 2.0))}


def test_the_separator_gives_the_same_treatments():
    obs = pd.DataFrame(
        {"drug": ["A", "B+A", "B", "DMSO", "C+DMSO", "DMSO + C"], "dose": ["1", "2+1", "2", "", "3", "0+4"]}
    )
    one, other = read(OBS), read(obs, "drug", "dose", "+")
    assert one.name.tolist() == other.name.tolist()
    np.testing.assert_array_equal(one.dose, other.dose)
    assert one.combinations == other.combinations


def test_the_order_of_the_columns_does_not_matter():
    one, other = read(OBS), read(OBS, ("two", "one"), ("d2", "d1"))
    assert one.name.tolist() == other.name.tolist()
    assert one.combinations == other.combinations


def test_one_dose_for_all_drugs():
    obs = pd.DataFrame({"one": ["A", "DMSO"], "two": ["B", ""], "dose": np.array([0.1, 0], dtype=np.float32)})
    assert read(obs, dose="dose").combinations == {"A (0.1) + B (0.1)": (("A", 0.1), ("B", 0.1))}


def test_without_doses():
    assert read(OBS, dose=None).name.tolist() == ["A", "A + B", "B", "DMSO", "C", "C"]


def test_a_plus_is_no_separator_by_default():
    obs = pd.DataFrame({"drug": ["CD3+CD28", "DMSO"]})
    assert ScreenColumns("drug", "DMSO").names(obs).tolist() == ["CD3+CD28", "DMSO"]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"one": "A", "two": "A"}, {}, "different drugs"),
        ({"one": "", "two": None}, {}, "neither a drug nor a control"),
        ({"d1": np.nan}, {}, "no dose of 'A'"),
        ({"d1": -1.0}, {}, "no dose of 'A'"),
        ({"one": "A (1) + B (2)"}, {}, "name of a combination"),
        ({}, {"dose": ("d1", "d2", "one")}, "2 columns but dose_key has 3"),
        ({}, {"drug": ("one", "one")}, "every column once"),
        ({}, {"sep": "+"}, "Leave one of them out"),
        ({"one": "A+"}, {"drug": "one", "dose": None, "sep": "+"}, "empty name"),
        ({}, {"drug": "one", "dose": None, "sep": ""}, "no separator"),
    ],
)
def test_refusals(change, options, message):
    obs = OBS.astype(object)
    for column, value in change.items():
        obs.loc[0, column] = value
    with pytest.raises(ValueError, match=message.replace("(", r"\(").replace(")", r"\)").replace("+", r"\+")):
        read(obs, **options)


def test_columns_that_do_not_exist():
    with pytest.raises(KeyError, match="'two'"):
        read(OBS, ("one", "too"))


@pytest.fixture
def design() -> ScreenDesign:
    found = read(OBS)
    conditions = pd.DataFrame({"drug": found.name, "dose": found.dose, "line": ""}).query("drug != 'DMSO'")
    conditions = conditions.drop_duplicates().reset_index(drop=True)
    features = pd.DataFrame(np.arange(6.0).reshape(3, 2), index=["A", "B", "C"])
    return ScreenDesign.build(conditions, features, np.array([""]), found.combinations)


def test_design(design):
    assert design.drugs.tolist() == ["A", "B", "C"]
    assert design.names()["drug"].tolist() == ["A", "A (1) + B (2)", "B", "C", "C"]
    assert design.combinations() == {"A (1) + B (2)": (("A", 1.0), ("B", 2.0))}
    assert design.measured_doses(["A", "B"]) == [(1.0, 2.0)]
    assert design.reference_dose == pytest.approx(np.exp(np.log([1, 1, 2, 2, 3, 4]).mean()))


def test_inputs_of_the_design(design):
    inputs = design.inputs()
    assert inputs.single.tolist() == [True, False, True, True, True]
    parts, row = inputs.parts()
    got = sorted(zip(row.tolist(), design.drugs[parts.drug], parts.log_dose.tolist(), strict=True))
    log = lambda dose: float(np.log(dose / design.reference_dose))
    expected = [(0, "A", 1), (1, "A", 1), (1, "B", 2), (2, "B", 2), (3, "C", 3), (4, "C", 4)]
    assert got == [(i, name, pytest.approx(log(dose))) for i, name, dose in expected]
    np.testing.assert_array_equal(parts.features, design.features[parts.drug])


def test_known_targets_of_a_combination():
    known = pd.DataFrame({"drug": ["A", "B"], "gene": ["g1", "g2"], "kind": ["only", "only"], "sign": [1, 0]})
    known = check_known_targets(known, ["A", "B", "C"], GENES)
    parts = {name: tuple((each, np.nan) for each in name.split(" + ")) for name in ("A + B", "A + C")}
    prior = target_prior(known, np.array(["A", "A + B", "A + C", "C"]), GENES, parts)
    inf, half = np.inf, -np.log(2)
    np.testing.assert_allclose(prior.log_odds, [[inf, -inf, -inf], [inf, inf, -inf], [inf, half, half], [0, 0, 0]])
    np.testing.assert_array_equal(prior.sign, [[1, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]])
