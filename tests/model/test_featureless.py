"""Drugs without features among drugs with features: learned on their own, and never used to teach features."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import scgim

BARE = ["drug-000", "drug-004"]


def bare(adata, names=BARE):
    """The screen without features of some drugs; an unmeasured drug has the features of the first of them."""
    table = adata.uns["drug_features"].astype(float)
    table.loc["new"] = table.loc[BARE[0]]
    table.loc[names] = np.nan
    adata.uns["drug_features"] = table
    return adata


def fitted(fit, adata, **options) -> scgim.GIM:
    with pytest.warns(
        UserWarning, match="drugs have no features: 'drug-000', 'drug-004'. The model learns them on their own"
    ):
        return fit(adata, **options)


@pytest.fixture(scope="module")
def model(screen, fit) -> scgim.GIM:
    return fitted(fit, bare(screen()), gim={"generator": "kernel"}, train={"max_epochs": 40})


@pytest.mark.parametrize("generator", ["mean", "kernel", "hill", "network"])
def test_they_teach_nothing_about_other_drugs(screen, fit, generator):
    """A huge effect moves the predictions of unmeasured drugs, unless it belongs to drugs without features."""
    moved = {}
    for featured in (True, False):
        predicted = []
        for effect in (0.0, 30.0):
            adata = screen()
            rows = adata.obs["drug"].isin(BARE).to_numpy()
            x = adata.X.copy()
            x[np.ix_(rows, [0])] += np.float32(effect * x[:, 0].std())
            adata.X = x
            options = {"gim": {"generator": generator, "structure": "none"}}
            model = fit(bare(adata, []), **options) if featured else fitted(fit, bare(adata), **options)
            predicted.append(model.predict(drug="new", as_="delta").X / x[~rows, 0].std())
        moved[featured] = np.abs(predicted[1] - predicted[0]).max()
    assert moved[True] > 1.5
    assert moved[False] < 0.03 * moved[True]


@pytest.mark.parametrize("likelihood", ["cells", "means"])
def test_their_targets_are_those_of_drugs_known_by_name(screen, fit, likelihood):
    adata, options = bare(screen(doses=(1.0,))), {"structure": "none", "likelihood": likelihood}
    own = fitted(fit, adata, gim=options | {"generator": "kernel"}).rank_targets(drug=BARE)
    named = fitted(fit, adata, gim=options | {"generator": "identity"}).rank_targets(drug=BARE)
    both = own.merge(named, on=["drug", "dose", "gene"], suffixes=("", "_named"))
    assert (own["evidence"] == "data").all()
    called = both[both["probability_named"] > 0.5]
    assert called["probability"].min() > 0.5
    assert both.drop(called.index)["probability"].max() <= 0.5
    np.testing.assert_allclose(called["effect"], called["effect_named"], rtol=0.1)
    np.testing.assert_allclose(called["effect_se"], called["effect_se_named"], rtol=1e-6)


def test_predictions_follow_their_own_data(model):
    change = model.predict(drug=BARE, as_="delta")
    predictor = model._predictor()
    names = predictor.summary.design.names()
    measured = predictor.measured_changes()[names["drug"].isin(BARE)] * predictor.summary.scale
    order = np.searchsorted(predictor.summary.genes, change.var_names)
    assert np.corrcoef(change.X.ravel(), measured[:, order].ravel())[0, 1] > 0.98
    assert set(change.obs["evidence"]) == {"data"}
    between = model.predict(drug=BARE[0], dose=0.7, as_="delta")
    assert between.obs["evidence"].tolist() == ["drug"]
    assert np.isfinite(between.X).all()
    cells = model.predict(drug=[BARE[0], ("drug-001", BARE[1])], dose=[1.0, (1.0, 2.0)], as_="cells", n_cells=5)
    assert np.isfinite(cells.X).all()


def test_only_the_measured_conditions_are_ranked(model):
    every = model.rank_targets()
    assert np.isfinite(every[["probability", "effect", "effect_se", "score"]].to_numpy()).all()
    assert set(BARE) < set(every["drug"])
    some = model.rank_targets(drug=[BARE[0], "drug-001"], dose=[1.0, 1.7])
    assert some.groupby("drug")["dose"].unique().map(sorted).to_dict() == {BARE[0]: [1.0], "drug-001": [1.0, 1.7]}
    with pytest.raises(ValueError, match="only where it was measured, and 'drug-000' at 1.7 was not"):
        model.rank_targets(drug=BARE[0], dose=1.7)


def test_none_of_them_is_the_nearest_drug(model):
    found = model.predict(drug=[*BARE, "new"], as_="mean").obs.groupby("drug", observed=True)["nearest_drug"].first()
    assert found[BARE].tolist() == BARE
    assert found["new"] not in BARE


@pytest.mark.parametrize("method", ["predict", "rank_targets"])
def test_features_of_a_drug_without_features_are_refused(model, method):
    with pytest.raises(ValueError, match="evidence='features' needs features, and 'drug-004' has none"):
        getattr(model, method)(drug=["drug-001", "drug-004"], evidence="features")


def test_an_unmeasured_drug_without_features_is_unknown(screen, fit):
    model = fit(bare(screen(), ["new"]))  # no warning: the drug is not in the screen
    with pytest.raises(ValueError, match="'new' has no features and was not measured"):
        model.predict(drug="new")


@pytest.mark.filterwarnings("ignore:.*drugs have no features")
def test_they_are_saved_annotated_and_bound_again(model, tmp_path, assert_same_bits):
    model.save(tmp_path / "model", overwrite=True)
    alone = scgim.GIM.load(tmp_path / "model")
    assert_same_bits(model, alone)
    pd.testing.assert_frame_equal(alone.rank_targets(), model.rank_targets())
    bound = scgim.GIM.load(tmp_path / "model", adata=model.adata.copy())
    bound.annotate()
    assert np.isfinite(bound.adata.obsm["scgim_shift"]).all()
    assert {*BARE, "DMSO"} < set(scgim.get.targets_df(bound.adata)["drug"]) | {"DMSO"}


@pytest.mark.filterwarnings("ignore:.*drugs have no features")
def test_scores_of_held_out_drugs(screen, fit):
    """A held-out drug without features has predictions of the methods that need none."""
    adata = bare(screen(n_drugs=14))
    adata.obs["side"] = np.where(adata.obs["drug"].isin(["drug-004", "drug-005", "drug-006"]), "test", "train")
    model = fit(adata, gim={"generator": "kernel"}, split_key="side")
    scores = model.evaluate(distributions=False).set_index(["drug", "method"])["rmse"].sort_index()
    for method in ("scgim", "nearest drug", "ridge", "kernel ridge", "network", "scgim, shuffled features"):
        assert scores["drug-004", method].isna().all(), method
        assert scores["drug-005", method].notna().all(), method
    assert scores["drug-004", "training mean"].notna().all()


@pytest.mark.filterwarnings("ignore:.*drugs have no features")
def test_cross_validation_holds_out_other_drugs(screen, setup_kwargs):
    adata = bare(screen(n_drugs=12))
    scgim.setup_anndata(adata, **setup_kwargs)
    short = {"max_epochs": 10, "enable_progress_bar": False}
    scores = scgim.tl.cross_validate(
        adata, n_splits=2, model_kwargs={"generator": "mean"}, train_kwargs=short, refit=False, distributions=False
    )
    assert set(scores["drug"].dropna()) & set(adata.obs["drug"]) == set(adata.obs["drug"]) - {*BARE, "DMSO"}


@pytest.mark.filterwarnings("ignore:.*drugs have no features")
@pytest.mark.parametrize(
    "options",
    [
        {"scale_shift": True},
        {"intervention": "hard"},
        {"mechanism": "network", "generator": "network"},
        {"structure": "gradient"},
    ],
    ids=str,
)
def test_every_kind_of_model_takes_them(screen, fit, options):
    model = fit(bare(screen()), gim={"generator": "hill"} | options, train={"max_epochs": 10, "train_size": 0.8})
    assert np.isfinite(model.predict(drug=["drug-001", *BARE], as_="mean").X).all()
    assert np.isfinite(model.rank_targets()["probability"]).all()


def test_a_generator_of_features_needs_a_drug_with_features(screen, fit):
    adata = bare(screen())
    adata.obs["side"] = np.where(adata.obs["drug"].isin([*BARE, "DMSO"]), "train", "test")
    with pytest.raises(
        ValueError, match="generator='hill' learns from the features of drugs, and no training drug has"
    ):
        fitted(fit, adata, gim={"generator": "hill"}, split_key="side")
