"""Covariates as columns of numbers, and what makes their effects impossible to estimate."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scgim._covariates import Covariates, check_covariates

N = 60


def small() -> ad.AnnData:
    rng = np.random.default_rng(0)
    obs = pd.DataFrame(index=[f"c{i}" for i in range(N)])
    obs["score"], obs["time"] = rng.normal(size=N), np.arange(N) % 4
    obs["donor"] = pd.Categorical(np.array(["b", "a", "c"])[np.arange(N) % 3])
    obs["mitotic"] = rng.random(N) < 0.5
    obs["drug"] = np.where(np.arange(N) < 30, "DMSO", "drug")
    return ad.AnnData(np.zeros((N, 1)), obs=obs)


def table(adata: ad.AnnData) -> pd.DataFrame:
    line = np.where(np.arange(N) % 2, "A549", "K562")
    control = (adata.obs["drug"] == "DMSO").to_numpy()
    return pd.DataFrame(
        {"drug": adata.obs["drug"].to_numpy(), "line": line, "batch": "", "control": control, "train": True}
    )


def check(adata: ad.AnnData, *keys: str) -> list[str]:
    return check_covariates(adata, keys, table(adata), ["drug", None])


def test_numbers_are_continuous_and_the_rest_is_one_hot():
    found = Covariates.read(small(), ["score", "time", "donor", "mitotic"])
    assert found.names == ["score", "time", "donor=b", "donor=c", "mitotic=True"]
    donor = small().obs["donor"]
    np.testing.assert_array_equal(found.values[:, 2:4], np.column_stack([donor == "b", donor == "c"]))
    assert found.levels == {"donor": ["a", "b", "c"], "mitotic": ["False", "True"]}


def test_levels_of_training_serve_other_cells():
    adata = small()
    levels = Covariates.read(adata, ["donor"]).levels
    some = adata[adata.obs["donor"] == "c"].copy()
    np.testing.assert_array_equal(Covariates.read(some, ["donor"], levels).values, np.tile([0.0, 1.0], (len(some), 1)))
    some.obs["donor"] = "d"
    with pytest.raises(ValueError, match="'d', and the training data hold 'a', 'b', 'c' only"):
        Covariates.read(some, ["donor"], levels)


def test_centers_are_those_of_the_controls_of_the_group():
    adata = small()
    group, control = np.arange(N) % 2, (adata.obs["drug"] == "DMSO").to_numpy()
    found = Covariates.read(adata, ["score"]).centered(group, control)[:, 0]
    score = adata.obs["score"].to_numpy()
    for k in range(2):
        np.testing.assert_allclose(found[group == k], score[group == k] - score[control & (group == k)].mean())
    np.testing.assert_array_equal(Covariates.read(adata, ["score"]).centered(np.full(N, -1), control), 0)


def put(key, value, rows=slice(None)):
    def change(adata):
        values = adata.obs[key].astype(object).to_numpy(copy=True) if key in adata.obs else np.zeros(N)
        values = values.astype(object)
        values[rows] = value(adata) if callable(value) else value
        adata.obs[key] = pd.Series(values, adata.obs_names).infer_objects()

    return change


@pytest.mark.parametrize(
    ("spoil", "keys", "error", "message"),
    [
        pytest.param(None, ["scor"], KeyError, "Nearest: 'score'", id="unknown"),
        pytest.param(put("score", np.nan, slice(3)), ["score"], ValueError, "missing for 3 of 60.*notna", id="missing"),
        pytest.param(put("score", np.inf, slice(3)), ["score"], ValueError, "'inf' in 3 cells", id="infinite"),
        pytest.param(
            put("score", 1.0, slice(30)), ["score"], ValueError, "'score' is constant in the controls", id="constant"
        ),
        pytest.param(
            put("twice", lambda a: 2 * a.obs["score"] + a.obs["time"]),
            ["score", "time", "twice"],
            ValueError,
            "'twice' is a linear combination of 'score', 'time'",
            id="collinear",
        ),
        pytest.param(
            put("donor", "d", slice(40, 50)),
            ["donor"],
            ValueError,
            "No control cell has 'd' in obs\\['donor'\\]",
            id="level",
        ),
        pytest.param(None, ["drug"], ValueError, "'drug' twice, or the column is the drug", id="drug"),
        pytest.param(None, ["score", "score"], ValueError, "'score' twice", id="twice"),
        pytest.param(
            put("id", lambda a: [f"x{i % 30}" for i in range(N)]),
            ["id"],
            ValueError,
            "constant|combination|too few",
            id="ids",
        ),
    ],
)
def test_wrong_covariates_are_named(spoil, keys, error, message):
    adata = small()
    if spoil is not None:
        spoil(adata)
    with pytest.raises(error, match=message):
        check(adata, *keys)


def test_confounding_with_drugs_is_said():
    adata = small()
    assert check(adata, "time", "donor") == []
    put("score", lambda a: a.obs["score"].iloc[30:] + 5, slice(30, None))(adata)
    (said,) = check(adata, "score")
    assert "'score' is confounded" in said
    assert "'drug'" in said


def test_a_covariate_that_is_constant_in_one_line_is_said():
    adata = small()
    put("score", 0.0, np.arange(0, 30, 2))(adata)
    (said,) = check(adata, "score")
    assert "constant in the controls of line 'K562'" in said


@pytest.mark.parametrize("unit", [1e-11, 1.0, 1e12])
def test_the_unit_of_a_covariate_does_not_matter(unit):
    adata = small()
    adata.obs["score"] = adata.obs["score"] * unit
    check(adata, "score")


def test_large_values_that_are_constant_within_groups_are_no_covariate():
    adata = small()
    adata.obs["time"] = 1.6e9 + 0.3
    with pytest.raises(ValueError, match="'time' is constant in the controls"):
        check(adata, "time")
