"""Cross-validation of screens with combinations."""

from __future__ import annotations

from itertools import combinations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import scgim
from scgim.pp import audit_split
from scgim.tl._folds import deal

COLUMNS = {"drug_key": ["one", "two"], "dose_key": ["d1", "d2"], "control": "DMSO"}
DRUGS = list("ABCDEF")


def screen(*, singles: bool = True) -> ad.AnnData:
    """Single drugs at two doses, and all pairs but two, in a screen whose effects add."""
    rng, effect = np.random.default_rng(0), pd.DataFrame(1.5 * np.eye(6), DRUGS)
    rows = [(name, dose, "", np.nan) for name in DRUGS for dose in (1.0, 2.0)] * singles
    rows += [(one, 1.0, two, 2.0) for one, two in list(combinations(DRUGS, 2))[2:]]
    obs = pd.DataFrame([("DMSO", np.nan, "", np.nan)] * 4 + rows, columns=["one", "d1", "two", "d2"])
    obs = obs.loc[obs.index.repeat(15)].reset_index(drop=True)
    mean = sum(effect.reindex(obs[key]).fillna(0.0).to_numpy() for key in ("one", "two"))
    features = pd.DataFrame(rng.normal(size=(6, 3)), DRUGS, ["f1", "f2", "f3"])
    adata = ad.AnnData(mean + rng.normal(size=mean.shape), obs.set_index(obs.index.astype(str)))
    adata.uns["features"] = features
    return adata


@pytest.mark.parametrize("unseen", ["drug", "dose"])
@pytest.mark.parametrize("seed", range(3))
def test_no_fold_trains_on_what_it_tests(unseen, seed):
    adata = screen()
    test = deal(adata, unseen, 3, COLUMNS, seed)
    two = (adata.obs["two"] != "").to_numpy()
    assert not test[(adata.obs["one"] == "DMSO").to_numpy()].any()
    assert (test[(adata.obs["one"] != "DMSO") & ~two].sum(1) == (1 if unseen == "drug" else test[:, :2].any())).all()
    for k in range(3):
        adata.obs["side"] = np.where(test[:, k], "test", "train")
        assert audit_split(adata, split_key="side", **COLUMNS).empty
        own = adata.obs[test[:, k] & ~two]
        keys = [list(zip(*(adata.obs[name] for name in pair), strict=True)) for pair in (("one", "d1"), ("two", "d2"))]
        held_out = set(zip(own["one"], own["d1"], strict=True))
        if unseen == "drug":
            held_out = {(name, dose) for name in set(own["one"]) for dose in (1.0, 2.0)}
        assert (test[:, k] == [one in held_out or other in held_out for one, other in zip(*keys, strict=True)]).all()


@pytest.mark.parametrize("singles", [True, False])
def test_combinations_are_dealt_once_and_their_drugs_stay_in_training(singles):
    adata = screen(singles=singles)
    test = deal(adata, "combination", 4, COLUMNS, 0)
    two = (adata.obs["two"] != "").to_numpy()
    assert (test.sum(1) == two).all()
    for k in range(4):
        train = adata.obs[~test[:, k]]
        assert {*train["one"], *train["two"]} >= set(DRUGS)


@pytest.mark.parametrize("seed", range(5))
def test_a_combination_of_a_drug_without_other_cells_is_never_tested(seed):
    adata = screen(singles=False)
    adata = adata[~(adata.obs["two"].eq("F") & adata.obs["one"].ne("E"))].copy()
    test = deal(adata, "combination", 3, COLUMNS, seed)
    assert not test[(adata.obs["two"] == "F").to_numpy()].any()
    assert test[((adata.obs["two"] != "F") & (adata.obs["two"] != "")).to_numpy()].any(1).mean() > 0.5
    for k in range(3):
        train = adata.obs[~test[:, k]]
        assert {*train["one"], *train["two"]} >= {*adata.obs["one"], *adata.obs["two"]}


def test_without_combinations_there_are_no_folds_of_them():
    adata = screen()
    with pytest.raises(ValueError, match="n_splits=2, but there are 0 combinations"):
        deal(adata[adata.obs["two"] == ""].copy(), "combination", 2, COLUMNS, 0)


@pytest.mark.parametrize("unseen", ["drug", "combination"])
def test_end_to_end(unseen):
    adata = screen()
    keys = {"drug_key": ["one", "two"], "dose_key": ["d1", "d2"], "dose_unit": "uM", "features_key": "features"}
    scgim.setup_anndata(adata, control="DMSO", scale="continuous", **keys)
    scores = scgim.tl.cross_validate(
        adata,
        unseen=unseen,
        n_splits=2,
        model_kwargs={"generator": "hill", "structure": "none"},
        train_kwargs={"max_epochs": 20, "enable_progress_bar": False},
        refit=False,
        distributions=False,
    )
    own = scores[(scores["method"] == "scgim") & scores["fold"].notna()]
    pairs = own["drug"].str.contains("+", regex=False)
    assert np.isfinite(own["rmse"]).all()
    assert own["drug"][pairs].nunique() == 13
    assert not own["drug"][pairs].duplicated().any()
    if unseen == "combination":
        assert pairs.all()
        assert own["rmse"].mean() < scores.loc[(scores["method"] == "control") & scores["fold"].notna(), "rmse"].mean()
    else:
        assert set(own.loc[~pairs, "drug"]) == set(DRUGS)


def test_evaluate_warns_of_a_test_drug_in_a_combination_in_training():
    adata = screen()
    adata.obs["side"] = np.where((adata.obs["one"] == "A") & (adata.obs["two"] == ""), "test", "train")
    keys = {"drug_key": ["one", "two"], "dose_key": ["d1", "d2"], "dose_unit": "uM", "features_key": "features"}
    scgim.setup_anndata(adata, control="DMSO", scale="continuous", split_key="side", **keys)
    model = scgim.GIM(adata, generator="hill", structure="none")
    model.train(max_epochs=5, enable_progress_bar=False)
    with pytest.warns(UserWarning, match="Leakage: 1 test drugs \\('A'\\) are in a combination in training"):
        scores = model.evaluate(refit=False, distributions=False)
    assert any("not unseen" in sentence for sentence in scores.attrs["verdict"])
