from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import scgim
from scgim.evaluation import BASELINES, DUPLICATE, EMPTY, SCGIM, SHUFFLED, ZEROED, _heldout, compare, summarize

METRICS = ["rmse", "pearson", "pearson_centred", "wmse", "rank", "size_ratio", "energy", "w1", "sd"]
COLUMNS = {"drug_key": "drug", "control": "DMSO", "scale": "continuous", "features_key": "drug_features"}
DOSED = COLUMNS | {"dose_key": "dose", "dose_unit": "uM"}


def screen(unseen: str = "drug", **options):
    adata = scgim.datasets.simulate_screen(
        **({"n_genes": 8, "n_drugs": 20, "doses": (0.5, 1.0, 2.0), "n_new_drugs": 2, "seed": 1} | options)
    )
    scgim.pp.split(adata, unseen=unseen, control="DMSO")
    return adata


def fitted(adata, *, setup: dict = DOSED, max_epochs: int | None = None, **options) -> scgim.GIM:
    scgim.setup_anndata(adata, **setup, split_key="scgim_split")
    model = scgim.GIM(adata, **({"generator": "hill"} | options))
    model.train(max_epochs, enable_progress_bar=False)
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


def each(scores: pd.DataFrame) -> pd.DataFrame:
    return scores[~scores["drug"].str.startswith("(")].reset_index(drop=True)


def against(scores: pd.DataFrame, one: str, other: str):
    """The paired comparison of two methods' errors."""
    errors = each(scores).pivot(index=["drug", "dose", "cell_line"], columns="method", values="rmse")
    return compare(errors[one], errors[other], errors.index.to_frame()["drug"])


def true_change(adata, names: pd.DataFrame) -> np.ndarray:
    """The exact change of a linear screen's conditions, genes sorted, in control sd."""
    truth, dose = adata.uns["truth"], names["dose"].to_numpy()[:, None]
    drug = pd.Index(truth["drugs"]).get_indexer(names["drug"])
    shift = truth["effect"][drug] * dose / (dose + truth["ec50"][drug])
    change = shift @ np.linalg.inv(np.eye(adata.n_vars) - adata.varp["true_weight"].toarray())
    return change[:, np.argsort(adata.var_names.to_numpy(str))]


def test_features_that_say_nothing_do_not_beat_the_training_mean(scores) -> None:
    for method in (SHUFFLED, ZEROED):
        assert against(scores, method, "training mean").high >= 0
    assert against(scores, SCGIM, SHUFFLED).word == "beats"
    assert any(sentence.startswith("Drug features improve the result") for sentence in scores.attrs["verdict"])


def test_a_perfect_predictor_reaches_the_ceiling(model, monkeypatch) -> None:
    monkeypatch.setattr(_heldout, "predictions", lambda predictor, names, combinations: true_change(model.adata, names))
    scores = model.evaluate(refit=False)
    total = overall(scores)
    for metric in ("rmse", "wmse"):
        assert total.loc[SCGIM, metric] <= total.loc[DUPLICATE, metric]
    for metric in ("pearson", "pearson_centred", "rank"):
        assert total.loc[SCGIM, metric] >= total.loc[DUPLICATE, metric] - 0.01
    assert total.loc[SCGIM, "energy"] < 0.1 * total.loc["control", "energy"]
    share = next(s for s in scores.attrs["verdict"] if "technical duplicate" in s)
    assert int(share.partition("%")[0].rsplit(" ", 1)[1]) >= 100


def test_no_effect_is_called_so() -> None:
    adata, rng = screen(), np.random.default_rng(0)
    control = np.flatnonzero(adata.obs["drug"] == "DMSO")
    treated = np.flatnonzero(adata.obs["drug"] != "DMSO")
    adata.X[treated] = adata.X[rng.choice(control, len(treated))]
    scores = fitted(adata).evaluate(refit=False, distributions=False)
    said = scores.attrs["verdict"]
    assert any("so there is" in s for s in said)
    assert "scgim beats" not in said[0]


def test_a_model_that_says_nothing_is_called_so(model, monkeypatch) -> None:
    nothing = np.zeros(model.adata.n_vars)
    monkeypatch.setattr(
        _heldout, "predictions", lambda predictor, names, combinations: np.tile(nothing, (len(names), 1))
    )
    said = model.evaluate(refit=False, distributions=False).attrs["verdict"]
    assert "scgim does not beat the best baseline" in said[0]
    assert "It explains 0%" in " ".join(said)
    assert any("the model predicts close to no effect" in s for s in said)


def test_an_absolute_r2_is_never_shown(scores) -> None:
    shown = [*scores.columns, *scores["method"], *scores.attrs["verdict"], *scgim.metrics.__all__]
    assert not [name for name in shown if any(r2 in name.casefold() for r2 in ("r2", "r²", "explained variance"))]


@pytest.mark.parametrize("metric", [name for name in METRICS if name not in {"rmse", "size_ratio"}])
def test_dropping_a_metric_changes_no_other_number(metric, scores) -> None:
    """The verdict speaks of errors and sizes; all others can go."""
    without = summarize(each(scores).drop(columns=metric))
    pd.testing.assert_frame_equal(without, scores.drop(columns=metric))
    assert without.attrs == scores.attrs


def test_leaving_distributions_or_refits_out_changes_no_other_number(model, scores) -> None:
    fast, slow = (model.evaluate(refit=False, distributions=distributions) for distributions in (False, True))
    pd.testing.assert_frame_equal(fast, slow.drop(columns=["energy", "w1", "sd"]))
    assert fast.attrs == slow.attrs
    rows = scores[scores["method"].isin(slow["method"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(slow, rows)
    assert set(slow.attrs["verdict"]) <= set(scores.attrs["verdict"])


def test_a_twin_in_training_is_warned_of() -> None:
    adata = screen()
    side = adata.obs.loc[adata.obs["drug"] != "DMSO"].drop_duplicates("drug").set_index("drug")["scgim_split"]
    test, train = sorted(side.index[side == "test"])[0], sorted(side.index[side == "train"])[0]
    # no two alike, to a fingerprint either
    ends = ["O", "N", "F", "Cl", "Br", "S", "C#N", "C=O", "C(=O)N", "c1ccccc1"]
    smiles = {name: f"C1{'C' * (i // 10 + 2)}1{ends[i % 10]}" for i, name in enumerate(sorted(side.index))}
    smiles |= {test: "CCCC(CCC)C(=O)[O-].[Na+]", train: "CCCC(CCC)C(=O)O"}
    adata.obs["smiles"] = adata.obs["drug"].map(smiles).astype(object).fillna("")
    other = fitted(adata, setup=DOSED | {"smiles_key": "smiles"}, max_epochs=20)
    with pytest.warns(UserWarning, match="Leakage: .* have the structure of a training drug"):
        scores = other.evaluate(refit=False, distributions=False)
    assert f"'{test} = {train}'" in scores.attrs["verdict"][-1]


def test_duplicates_that_cannot_be_looked_for_are_said() -> None:
    adata = screen()
    adata.obs["smiles"] = np.where(adata.obs["drug"] == "DMSO", "", "not a structure")
    other = fitted(adata, setup=DOSED | {"smiles_key": "smiles"}, max_epochs=20)
    with pytest.warns(UserWarning, match="Duplicates of test drugs in training could not be looked for"):
        assert "could not be looked for" in other.evaluate(refit=False, distributions=False).attrs["verdict"][-1]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_on_twenty_genes_it_beats_every_baseline_on_unseen_drugs(seed) -> None:
    """All 40 drugs in turn: the 8 of one split are too few for an interval clear of zero.

    Not so on every screen: on seed 4 it cannot be told from ridge (2 and 3 are as 0 and 1).
    """
    adata = scgim.datasets.simulate_screen(seed=seed)
    quiet = {"enable_progress_bar": False}
    scores = scgim.tl.cross_validate(adata, setup_kwargs=DOSED, train_kwargs=quiet, distributions=False)
    for method in {*BASELINES, EMPTY, SHUFFLED, ZEROED} - {"dose interpolation"}:
        assert against(scores, SCGIM, method).high < 0, method
    assert against(scores, SHUFFLED, "training mean").high >= 0
    said = scores.attrs["verdict"]
    assert "40 drugs in 3 folds, scgim beats the best baseline" in said[0]
    assert any(sentence.startswith("The graph improves the result") for sentence in said)


@pytest.mark.slow
def test_on_twenty_genes_the_empty_graph_is_worse_on_targets() -> None:
    adata = scgim.datasets.simulate_screen(seed=0)
    scgim.pp.split(adata, control="DMSO")
    model, truth = fitted(adata, generator="auto"), adata.uns["truth"]
    drug, gene = np.nonzero(truth["targets"])
    known = pd.DataFrame({"drug": np.asarray(truth["drugs"])[drug], "gene": adata.var_names[gene]})
    targets = model.evaluate_targets(known)
    total = targets[(targets["drug"] == "(all)") & (targets["evidence"] == "data")].set_index("method")
    assert total.loc[SCGIM, ["ap", "f1"]].gt(total.drop(SCGIM)[["ap", "f1"]].max()).all()
    assert any(sentence.startswith("The graph improves the result") for sentence in targets.attrs["verdict"])


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
            adata.obs["scgim_split"] = np.where(adata.obs["drug"] == other.summary_.design.drugs[0], "test", "train")
            other.save(tmp_path / "m")
            other = scgim.GIM.load(
                tmp_path / "m", adata
            )  # without a new set-up, the other split is refused as changed data
            match = "was trained on test condition"
    with pytest.raises(ValueError, match=match):
        other.evaluate()
