from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scgim._checks import (
    check_control,
    check_doses,
    check_names,
    check_obs_column,
    check_option,
    check_whole,
    control_names,
    find_control,
    is_control,
    listed,
    nearest,
    warn_of_columns,
)


@pytest.mark.parametrize(
    ("value", "options", "found"),
    [
        pytest.param("DMSO", ["dmso ", "A-485"], "dmso ", id="case and spaces"),
        pytest.param("JQ1", ["Akti-1/2", "(+/-)-JQ1"], "(+/-)-JQ1", id="short name of a long one"),
        pytest.param(3, [30, 8], "30", id="numbers"),
    ],
)
def test_nearest(value, options, found):
    assert nearest(value, options, n=1) == [found]


def test_nearest_is_complete_ordered_and_cut_off_on_request():
    assert nearest("drug", ["x", "drugs", "drug"], n=3) == ["drug", "drugs", "x"]
    assert nearest("drug", []) == []
    assert nearest("drug", ["zzz"], cutoff=0.6) == []


def test_listed():
    assert listed(["a", 1]) == "'a', '1'"
    assert listed(range(5), n=2) == "'0', '1' and 3 more"
    assert listed(np.array(["a"])) == "'a'"


def test_column_comes_back_as_it_is():
    obs = pd.DataFrame({"dose": [1.0, None]})
    pd.testing.assert_series_equal(check_obs_column(obs, "dose", allow_missing=True), obs["dose"])


@pytest.mark.parametrize(
    ("obs", "error", "message"),
    [
        pytest.param(pd.DataFrame({"drugs": ["a"]}), KeyError, "no column 'drug'. Nearest: 'drugs'", id="typo"),
        pytest.param(pd.DataFrame(index=[0]), KeyError, "no columns at all", id="empty"),
        pytest.param(
            pd.DataFrame([["a", "b"]], columns=["drug"] * 2), ValueError, "2 columns called 'drug'", id="twice"
        ),
        pytest.param(pd.DataFrame({"drug": ["a", None]}), ValueError, r"1 of 2 cells \(50 %\)", id="missing"),
        pytest.param(pd.DataFrame({"drug": [1, "1"]}), ValueError, "differ only in type", id="1 and '1'"),
    ],
)
def test_bad_columns(obs, error, message):
    with pytest.raises(error, match=message):
        check_names(obs, "drug")


def test_option():
    check_option("kind", "direct", ["direct", "total"])
    with pytest.raises(ValueError, match="kind='driect' does not exist. Did you mean 'direct'"):
        check_option("kind", "driect", ["direct", "total"])
    with pytest.raises(ValueError, match="kind=None does not exist. There is: 'direct', 'total'"):
        check_option("kind", None, ["direct", "total"])


@pytest.mark.parametrize(
    ("names", "uns", "found"),
    [
        pytest.param(["a", "DMSO"], {}, "DMSO", id="conventional"),
        pytest.param(["a", " Dmso"], {}, " Dmso", id="case and space"),
        pytest.param(["a", "non_targeting", "Non-Targeting x"], {}, "non_targeting", id="punctuation"),
        pytest.param(["a", "DMSO", "untreated"], {}, None, id="several"),
        pytest.param(["a", "DMSO", "untreated"], {"control": "untreated"}, "untreated", id="several, one noted"),
        pytest.param(["a", "DMSO"], {"control": "PBS"}, "DMSO", id="noted but absent"),
        pytest.param(["a", "b"], {}, None, id="none"),
        pytest.param(["a", "DMSO"], {"control": np.array([1, 2])}, "DMSO", id="noted is something else"),
    ],
)
def test_find_control(names, uns, found):
    assert find_control(ad.AnnData(np.zeros((1, 1)), uns=uns), names) == found


def test_control_spelt_otherwise_is_doubted():
    with pytest.warns(UserWarning, match="also holds 'dmso ', which count as drugs.*call them 'DMSO'") as caught:
        check_control(pd.Series(["DMSO", "dmso ", "D-MS0"]), "DMSO", key="drug")
    assert caught[0].filename == __file__


def test_several_controls():
    names = pd.Series(["DMSO", "water", "a", "mock"])
    assert control_names(("water", "DMSO", "water")) == ["water", "DMSO"]
    assert is_control(names, ["water", "DMSO"]).tolist() == [True, True, False, False]
    with pytest.warns(UserWarning, match=r"'mock'.*pass control=\['water', 'DMSO', 'mock'\]"):
        check_control(names, ["water", "DMSO"], key="drug")
    with pytest.raises(ValueError, match="No cell equals control='wate' in obs.*Nearest and most frequent: 'water'"):
        check_control(names, ["DMSO", "wate"], key="drug")


def test_doses_are_numbers_where_cells_are_treated():
    obs = pd.DataFrame({"dose": [np.float32(0.1), "2", 3, None, "x"]})
    dose = check_doses(obs, "dose", treated=np.array([True, True, True, False, False]))
    np.testing.assert_array_equal(dose, [0.1, 2, 3, np.nan, np.nan])
    with pytest.raises(ValueError, match="holds 'None', 'x' for 2 treated cells.*goes into dose_unit"):
        check_doses(obs, "dose", treated=np.ones(5, bool))


@pytest.mark.parametrize("value", [-1, 1.5, "3", None, True, np.nan])
def test_whole_numbers(value):
    with pytest.raises(ValueError, match="seed must be at least 0, and a whole number, got"):
        check_whole("seed", value)
    check_whole("seed", np.int64(3))


def test_misspelled_optional_columns_are_pointed_out():
    with pytest.warns(
        UserWarning, match="prior_graph has a column 'knd', which is not read. If it is 'kind', rename it"
    ):
        warn_of_columns(pd.DataFrame(columns=["source", "knd", "resources"]), ["source", "kind"], "prior_graph")
    warn_of_columns(pd.DataFrame(columns=["source", "kind", "kinds"]), ["source", "kind"], "prior_graph")
