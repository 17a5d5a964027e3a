from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import scgim
from scgim.evaluation import BASELINES, DUPLICATE, EMPTY, SCGIM, SHUFFLED, ZEROED

METRICS = ["rmse", "pearson", "pearson_centred", "wmse", "rank", "size_ratio", "energy", "w1", "sd"]
COLUMNS = {"drug_key": "drug", "control": "DMSO", "scale": "continuous", "features_key": "drug_features"}
DOSED = COLUMNS | {"dose_key": "dose", "dose_unit": "uM"}


def screen(unseen: str = "drug", **options):
    adata = scgim.datasets.simulate_screen(
        **({"n_genes": 8, "n_drugs": 20, "doses": (0.5, 1.0, 2.0), "n_new_drugs": 2, "seed": 1} | options)
    )
    scgim.pp.split(adata, unseen=unseen, control="DMSO")
    return adata


def fitted(adata, *, setup: dict = DOSED, **options) -> scgim.GIM:
    scgim.setup_anndata(adata, **setup, split_key="scgim_split")
    model = scgim.GIM(adata, **({"generator": "hill"} | options))
    model.train(enable_progress_bar=False)
    return model


@pytest.fixture(scope="module")
def model() -> scgim.GIM:
    return fitted(screen())


@pytest.fixture(scope="module")
def scores(model) -> pd.DataFrame:
    return model.evaluate()


def overall(scores: pd.DataFrame) -> pd.DataFrame:
    return scores[scores["drug"] == "(all)"].set_index("method")


def test_every_method_is_scored_on_every_test_condition(model, scores) -> None:
    test = model.adata.obs.loc[(model.adata.obs["scgim_split"] == "test") & (model.adata.obs["drug"] != "DMSO")]
    wanted = set(map(tuple, test[["drug", "dose"]].astype({"drug": str}).drop_duplicates().to_numpy()))
    each = scores[~scores["drug"].str.startswith("(")]
    methods = {*BASELINES, SCGIM, EMPTY, SHUFFLED, ZEROED, DUPLICATE} - {
        "dose interpolation"
    }  # of unseen drugs: silent
    assert set(each["method"]) == methods
    for _, rows in each.groupby("method"):
        assert set(map(tuple, rows[["drug", "dose"]].to_numpy())) == wanted
        assert not rows.duplicated(["drug", "dose", "cell_line"]).any()


def test_means_over_conditions_are_that(scores) -> None:
    each = scores[~scores["drug"].str.startswith("(")]
    for method, rows in each.groupby("method"):
        np.testing.assert_allclose(overall(scores).loc[method, METRICS].astype(float), rows[METRICS].mean())


def test_on_the_models_own_simulator_it_wins_and_its_controls_do_not(scores) -> None:
    rmse = overall(scores)["rmse"]
    assert rmse[DUPLICATE] < rmse[SCGIM] < rmse[["control", "training mean", "nearest drug", SHUFFLED, ZEROED]].min()
    assert rmse[SCGIM] < rmse[EMPTY]
    assert overall(scores).loc["control", "size_ratio"] == 0
    rank = overall(scores)["rank"]
    assert rank[SCGIM] > rank[SHUFFLED] + 0.1
    assert scores.attrs["verdict"][0].startswith("On 12 test conditions of 4 drugs, scgim beats the best baseline")


def test_scores_are_those_of_predictions_against_measured_means(model, scores) -> None:
    drug, dose = scores.loc[0, ["drug", "dose"]]
    adata = model.adata
    x = np.asarray(adata.X, dtype=float)
    control = x[(adata.obs["drug"] == "DMSO").to_numpy()]
    cells = x[((adata.obs["drug"] == drug) & (adata.obs["dose"] == dose)).to_numpy()]
    predicted = model.predict(drug=drug, dose=dose, as_="delta").X[0]
    gap = (predicted - (cells.mean(0) - control.mean(0))) / control.std(0)
    found = scores[(scores["method"] == SCGIM) & (scores["drug"] == drug) & (scores["dose"] == dose)]
    assert found["rmse"].item() == pytest.approx(np.sqrt((gap**2).mean()), rel=1e-4)


def test_same_seed_same_table_and_nothing_else_moves(model, scores) -> None:
    np.random.seed(5)  # noqa: NPY002
    before, obs = np.random.get_state()[1].copy(), model.adata.obs.copy()  # noqa: NPY002
    graph = model.get_graph()
    again = model.evaluate(refit=False, distributions=False)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    pd.testing.assert_frame_equal(model.adata.obs, obs)
    pd.testing.assert_frame_equal(model.get_graph(), graph)
    shared = [name for name in METRICS if name in again and name not in {"energy", "w1", "sd"}]
    for method in again["method"].unique():  # other methods and distances left out change no number
        both = (t[t["method"] == method].reset_index(drop=True)[shared] for t in (again, scores))
        pd.testing.assert_frame_equal(*both)


def test_unseen_doses_are_interpolated() -> None:
    scores = fitted(screen("dose")).evaluate(refit=False, distributions=False)
    assert "dose interpolation" in set(scores["method"])
    assert overall(scores).loc["dose interpolation", "rmse"] < overall(scores).loc["control", "rmse"]


def test_lines_and_counts_and_no_doses() -> None:
    adata = screen(observation="counts", doses=(1.0,), n_cells=80)
    adata.obs["line"] = np.where(np.arange(adata.n_obs) % 2, "A", "B")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sizes for scale")
        model = fitted(adata, setup=COLUMNS | {"scale": "counts", "cell_line_key": "line"})
    scores = model.evaluate(refit=False)
    each = scores[(scores["method"] == SCGIM) & ~scores["drug"].str.startswith("(")]
    assert set(each["cell_line"]) == {"A", "B"}
    assert np.isfinite(each[["rmse", "energy"]]).all(axis=None)


def test_weak_conditions_are_told_apart() -> None:
    scores = fitted(screen(frac_dead=0.5)).evaluate(refit=False, distributions=False)
    assert {"(strong)", "(weak)"} <= set(scores["drug"])


@pytest.mark.parametrize("trouble", ["no split", "seen", "no test", "no data"])
def test_what_cannot_be_evaluated_is_refused(trouble, model, tmp_path) -> None:
    adata = screen()
    if trouble == "no split":
        scgim.setup_anndata(adata, **DOSED)
        other = scgim.GIM(adata, generator="hill")
        other.train(max_epochs=5, enable_progress_bar=False)
        match = "split_key"
    elif trouble == "no data":
        model.save(tmp_path / "m")
        other, match = scgim.GIM.load(tmp_path / "m"), "loaded without data"
    else:
        scgim.setup_anndata(adata, **DOSED, split_key="scgim_split")
        other = scgim.GIM(adata, generator="hill")
        if trouble == "no test":
            adata.obs["scgim_split"] = "train"
            match = "no treated cells that are 'test'"
            scgim.setup_anndata(adata, **DOSED, split_key="scgim_split")
            other = scgim.GIM(adata, generator="hill")
            other.train(max_epochs=5, enable_progress_bar=False)
        else:
            other.train(max_epochs=5, enable_progress_bar=False)
            adata.obs["scgim_split"] = np.where(adata.obs["drug"] == other.fitted.design.drugs[0], "test", "train")
            match = "was trained on test condition"
    with pytest.raises(ValueError, match=match):
        other.evaluate()
