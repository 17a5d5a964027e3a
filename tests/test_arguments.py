from __future__ import annotations

import inspect

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import scgim

NAMES = [
    *("drug_key", "dose_key", "smiles_key", "cell_line_key", "batch_key", "size_factor_key", "split_key"),
    *("intervention_key", "replicate_key", "features_key", "layer", "dose_unit", "readout"),
]
OPTIONS = ["scale", "smiles_conflict", "unit"]
FRAME = pd.DataFrame({"a": ["JQ1"]})
WRONG = [3, 2.5, b"drug", {"drug": 1}, [], ["drug", 3], FRAME, FRAME["a"], np.zeros((1, 1))]


def screen() -> ad.AnnData:
    obs = pd.DataFrame(
        {"drug": ["DMSO"] * 4 + ["JQ1"] * 4, "well": list("aabbccdd")}, index=[f"cell {i}" for i in range(8)]
    )
    return ad.AnnData(np.random.default_rng(0).normal(size=(8, 3)), obs, pd.DataFrame(index=["A", "B", "C"]))


def message(function, **changes) -> str:
    """The message of the refusal, whose argument must not reach the data."""
    adata = screen()
    before = adata.copy()
    with pytest.raises((TypeError, ValueError)) as found:
        function(adata, **({"drug_key": "drug", "control": "DMSO", "scale": "continuous"} | changes))
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    assert not adata.uns
    return str(found.value)


FUNCTIONS = pytest.mark.parametrize("function", [scgim.pp.check, scgim.setup_anndata], ids=["check", "setup"])


@FUNCTIONS
def test_every_argument_is_covered(function):
    known = {*NAMES, *OPTIONS, "adata", "control", "covariate_keys", "combination_sep", "kwargs"}
    assert set(inspect.signature(function).parameters) <= known


@FUNCTIONS
@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_name_is_refused_with_name_value_and_fix(function, name):
    for value in WRONG:
        said = message(function, **{name: value})
        assert said.startswith(f"{name}=")
        assert " must be a string, the " in said
        assert ". " in said  # the fix
        assert "\n" not in said
        assert repr(value) in said or type(value).__name__ in said


@FUNCTIONS
@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("drug_key", "dose_key", "smiles_key")])
def test_a_list_of_names_is_refused_where_one_is_needed(function, name):
    assert message(function, **{name: ["one"]}).endswith(f"Pass {name}='one'.")
    said = message(function, **{name: ["drug", "well"]})
    assert said.startswith(f"{name}=['drug', 'well'] must be a string")
    assert ("Join the columns" in said) == (name not in ("features_key", "layer", "dose_unit", "readout"))


@pytest.mark.parametrize("name", ["drug_key", "dose_key", "smiles_key"])
def test_check_says_that_combinations_are_for_set_up(name):
    assert "setup_anndata does, with the same errors" in message(scgim.pp.check, **{name: ["drug", "well"]})


@FUNCTIONS
@pytest.mark.parametrize("name", OPTIONS)
def test_options_of_a_wrong_type_do_not_exist(function, name):
    for value in [*WRONG, None]:
        said = message(function, **{name: value})
        assert said.startswith(f"{name}=")
        assert "does not exist. There is: '" in said


@FUNCTIONS
def test_controls_and_drugs_are_required(function):
    assert message(function, drug_key=None) == (
        "drug_key=None must be a string, the name of a column of obs"
        + (", or a list of such names" if function == scgim.setup_anndata else "")
        + ". Pass one, such as drug_key='drug'."
    )
    for value in (None, b"DMSO", FRAME, {"DMSO": 1}, [["DMSO"]], np.zeros((1, 1))):
        assert "must be the name of untreated cells, or a list of such names. Pass e.g." in message(
            function, control=value
        )


@FUNCTIONS
def test_covariates_are_a_list(function):
    assert message(function, covariate_keys="well").endswith("Pass covariate_keys=['well'], or () for none.")
    for value in (None, 3, b"well", FRAME, [3], ""):
        assert "must be a list of columns of obs. Pass covariate_keys=['S_score']" in message(
            function, covariate_keys=value
        )


def test_a_separator_of_a_wrong_type_is_refused():
    for value in (3, FRAME, ["+"], ""):
        assert "is no separator: pass a string such as '+', or None." in message(
            scgim.setup_anndata, combination_sep=value
        )


@FUNCTIONS
def test_numbered_drugs_may_have_a_number_as_control(function):
    adata = screen()
    adata.obs["drug"] = [0] * 4 + [7] * 4
    function(adata, drug_key="drug", control=0, scale="continuous")
