from __future__ import annotations

import gc

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import scgim
from scgim.evaluation import EMPTY, SCGIM, verdict
from scgim.pp import audit_split
from scgim.tl._folds import deal

SETUP = {
    "drug_key": "drug",
    "control": "DMSO",
    "scale": "continuous",
    "dose_key": "dose",
    "dose_unit": "uM",
    "features_key": "drug_features",
}
QUICK = {
    "model_kwargs": {"generator": "hill"},
    "train_kwargs": {"max_epochs": 20, "enable_progress_bar": False},
    "refit": False,
    "distributions": False,
}


def screen(**options) -> ad.AnnData:
    small = {"n_genes": 5, "n_drugs": 9, "n_cells": 15, "n_control": 60, "doses": (0.5, 1.0, 2.0), "n_new_drugs": 2}
    return scgim.datasets.simulate_screen(**(small | options))


def fold_of(*arguments) -> np.ndarray:
    """The fold in which each cell is tested, -1 for none; no cell is tested twice without combinations."""
    test = deal(*arguments)
    assert test.sum(1).max() <= 1
    return np.where(test.any(1), test.argmax(1), -1)


@pytest.fixture(scope="module")
def adata() -> ad.AnnData:
    adata = screen()
    scgim.setup_anndata(adata, **SETUP)
    return adata


@pytest.fixture(scope="module")
def scores(adata) -> pd.DataFrame:
    return scgim.tl.cross_validate(adata, **QUICK)


def each(scores: pd.DataFrame) -> pd.DataFrame:
    return scores[~scores["drug"].str.startswith("(")]


# ---- the table -------------------------------------------------------------------------------------------------------


def test_every_condition_is_tested_once_in_the_fold_of_its_drug(adata, scores) -> None:
    own = each(scores)[each(scores)["method"] == SCGIM]
    treated = adata.obs.loc[adata.obs["drug"] != "DMSO", ["drug", "dose"]].astype({"drug": str}).drop_duplicates()
    found = own[["drug", "dose"]].sort_values(["drug", "dose"]).to_numpy().tolist()
    assert found == treated.sort_values(["drug", "dose"]).to_numpy().tolist()
    assert (own.groupby("drug")["fold"].nunique() == 1).all()
    assert own.groupby("fold")["drug"].nunique().tolist() == [3, 3, 3]
    assert scores.loc[scores["drug"].str.startswith("("), "fold"].isna().all()


def test_a_fold_is_what_evaluate_says_of_that_split(adata, scores) -> None:
    other = adata.copy()
    tested = set(each(scores).loc[each(scores)["fold"] == 1, "drug"])
    other.obs["side"] = np.where(other.obs["drug"].isin(tested), "test", "train")
    scgim.setup_anndata(other, **SETUP, split_key="side")
    model = scgim.GIM(other, **QUICK["model_kwargs"])
    model.train(**QUICK["train_kwargs"])
    alone = model.evaluate(refit=False, distributions=False)
    assert [*scores.columns.drop("fold")] == [*alone.columns]
    mine = each(scores)[each(scores)["fold"] == 1].drop(columns="fold").reset_index(drop=True)
    pd.testing.assert_frame_equal(mine, each(alone).reset_index(drop=True), check_dtype=False)


def test_rows_of_all_folds_and_the_verdict_are_recomputed(scores) -> None:
    metrics = ["rmse", "pearson", "pearson_centred", "wmse", "rank", "size_ratio", "p_moved"]
    for name, rows in (("(all)", each(scores)), ("(strong)", each(scores)[each(scores)["strong"]])):
        pooled = scores[scores["drug"] == name].set_index("method")[metrics]
        pd.testing.assert_frame_equal(pooled, rows.groupby("method", sort=False)[metrics].mean(), check_like=True)
    baselines = ["control", "training mean", "nearest drug", "ridge", "kernel ridge", "network"]
    assert scores.attrs["verdict"] == verdict(each(scores), baselines)
    assert scores.attrs["verdict"][0].startswith("On 27 test conditions of 9 drugs in 3 folds, scgim ")


def test_neither_the_data_nor_their_set_up_change() -> None:
    adata = screen()
    scgim.setup_anndata(adata, **SETUP)
    before, uuid, x = adata.copy(), adata.uns["_scvi_uuid"], adata.X
    gc.collect()  # entries of data that earlier tests left
    stores = scgim.GIM._setup_adata_manager_store
    known = set(stores)
    model = scgim.GIM(adata, generator="hill")
    scgim.tl.cross_validate(adata, n_splits=2, **QUICK)
    assert adata.X is x
    np.testing.assert_array_equal(adata.X, before.X)
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    assert set(adata.uns) == set(before.uns)
    assert adata.uns["_scvi_uuid"] == uuid
    gc.collect()
    assert set(stores) == known  # nothing keeps the folds alive
    model.train(**QUICK["train_kwargs"])  # what was set up before still is
    scgim.GIM(adata, generator="hill").train(**QUICK["train_kwargs"])
    assert model.summary_.design.drugs.tolist() == sorted(set(adata.obs["drug"]) - {"DMSO"})


def test_same_seed_same_table_another_seed_other_folds(adata, scores) -> None:
    pd.testing.assert_frame_equal(scores, scgim.tl.cross_validate(adata, **QUICK))
    cells = adata.obs
    assert not np.array_equal(fold_of(adata, "drug", 3, SETUP, 0), fold_of(adata, "drug", 3, SETUP, 1))
    other = adata[np.random.default_rng(0).permutation(len(cells))].copy()
    mine = pd.Series(fold_of(adata, "drug", 3, SETUP, 0), adata.obs_names)
    assert (pd.Series(fold_of(other, "drug", 3, SETUP, 0), other.obs_names) == mine[other.obs_names]).all()


def test_controls_of_scgim_are_refitted_in_every_fold() -> None:
    adata, options = screen(n_drugs=6, doses=(0.5, 1.0)), QUICK | {"refit": True}
    scores = scgim.tl.cross_validate(adata, n_splits=2, setup_kwargs=SETUP, **options)
    counts = each(scores).groupby("method").size()
    assert (
        counts[EMPTY] == counts[SCGIM] == counts["scgim, shuffled features"] == counts["scgim, zeroed features"] == 12
    )


def test_lines_and_backed_files(tmp_path) -> None:
    adata = screen(n_drugs=5, doses=(1.0,))
    adata.obs["line"] = np.array(["A", "B"])[np.arange(adata.n_obs) % 2]
    adata.write_h5ad(tmp_path / "a.h5ad")
    setup = {name: SETUP[name] for name in ("drug_key", "control", "scale", "features_key")} | {"cell_line_key": "line"}
    tables = [
        scgim.tl.cross_validate(source, "cell_line", 2, setup_kwargs=setup, **QUICK)
        for source in (adata, ad.read_h5ad(tmp_path / "a.h5ad", backed="r"))
    ]
    assert (each(tables[0]).groupby("fold")["cell_line"].nunique() == 1).all()
    assert set(each(tables[0])["cell_line"]) == {"A", "B"}
    pd.testing.assert_frame_equal(*tables, rtol=1e-5)


def test_one_progress_line(adata, capfd) -> None:
    scgim.tl.cross_validate(adata, n_splits=2, **(QUICK | {"train_kwargs": {"max_epochs": 5}}))
    lines = capfd.readouterr().err.strip().split("\n")
    assert len(lines) == 1
    assert "cross-validation, unseen drug: 100%" in lines[0]
    assert "2/2" in lines[0]
    scgim.tl.cross_validate(adata, n_splits=2, **QUICK)
    assert not capfd.readouterr().err


# ---- folds -----------------------------------------------------------------------------------------------------------

COMPOUNDS = {  # name: SMILES; forms of one compound and duplicates to a fingerprint among them
    "valproate": "CCCC(CCC)C(=O)[O-].[Na+]",
    "valproic acid": "CCCC(CCC)C(=O)O",
    "aspirin": "CC(=O)Oc1ccccc1C(=O)O",
    "salicylic acid": "O=C(O)c1ccccc1O",
    "ibuprofen": "CC(C)Cc1ccc(cc1)C(C)C(=O)O",
    "dexibuprofen": "CC(C)Cc1ccc(cc1)[C@H](C)C(=O)O",
    "caffeine": "Cn1cnc2c1c(=O)n(C)c(=O)n2C",
    "dodecane": "CCCCCCCCCCCC",
    "tridecane": "CCCCCCCCCCCCC",
    "indole": "c1ccc2[nH]ccc2c1",
    "quinoline": "c1ccc2ncccc2c1",
    "naphthalene": "c1ccc2ccccc2c1",
}
COLUMNS = {
    "drug_key": "drug",
    "control": "DMSO",
    "dose_key": "dose",
    "smiles_key": "smiles",
    "cell_line_key": "line",
}


def compounds(doses: dict[str, tuple[float, ...]] | None = None) -> ad.AnnData:
    doses = doses or {}
    rows = [
        (drug, dose, line, smiles)
        for drug, smiles in COMPOUNDS.items()
        for dose in doses.get(drug, (1.0, 2.0, 4.0))
        for line in "AB"
    ]
    rows += [("DMSO", np.nan, line, "") for line in "AB"]
    obs = pd.DataFrame(rows, columns=["drug", "dose", "line", "smiles"], index=[f"cell {i}" for i in range(len(rows))])
    return ad.AnnData(np.zeros((len(obs), 1), np.float32), obs=obs)


@pytest.mark.parametrize(
    ("unseen", "n_splits"), [("drug", 2), ("drug", 5), ("dose", 2), ("dose", 3), ("scaffold", 3), ("cell_line", 2)]
)
@pytest.mark.parametrize("seed", range(3))
def test_all_are_tested_once_and_nothing_leaks(unseen, n_splits, seed) -> None:
    adata = compounds({"valproate": (1.0, 2.0), "valproic acid": (2.0, 4.0, 8.0)})
    fold = fold_of(adata, unseen, n_splits, COLUMNS, seed)
    control = (adata.obs["drug"] == "DMSO").to_numpy()
    assert (fold[control] == -1).all()
    assert set(fold[~control]) == set(range(n_splits))
    for k in range(n_splits):
        adata.obs["side"] = np.where(fold == k, "test", "train")
        columns = COLUMNS | {"dose_key": "dose", "split_key": "side"}
        assert audit_split(adata, **columns).empty
    by = {"drug": "drug", "scaffold": "drug", "dose": ["drug", "dose"], "cell_line": "line"}[unseen]
    assert (
        pd.Series(fold[~control])
        .groupby([*adata.obs[~control][by].to_numpy().T] if unseen == "dose" else adata.obs[~control][by].to_numpy())
        .nunique()
        == 1
    ).all()


def test_duplicates_and_scaffolds_share_a_fold() -> None:
    adata = compounds()

    def folds(unseen: str, seed: int) -> dict[str, int]:
        return dict(zip(adata.obs["drug"], fold_of(adata, unseen, 3, COLUMNS, seed), strict=True))

    pairs = [("valproate", "valproic acid"), ("ibuprofen", "dexibuprofen"), ("dodecane", "tridecane")]
    apart = []
    for seed in range(6):
        by_drug, by_scaffold = folds("drug", seed), folds("scaffold", seed)
        assert all(found[a] == found[b] for a, b in pairs for found in (by_drug, by_scaffold))
        assert by_scaffold["aspirin"] == by_scaffold["salicylic acid"] == by_scaffold["ibuprofen"]  # benzenes
        apart.append(by_drug["aspirin"] != by_drug["salicylic acid"])
    assert any(apart)  # or folds of drugs would be those of scaffolds


def test_an_only_dose_is_never_tested_and_every_drug_keeps_one() -> None:
    adata = compounds({"caffeine": (1.0,), "indole": (1.0, 2.0)})
    fold = pd.Series(fold_of(adata, "dose", 4, COLUMNS, 0))
    drug = adata.obs["drug"].to_numpy()
    assert (fold[drug == "caffeine"] == -1).all()
    assert (fold[(drug != "caffeine") & (drug != "DMSO")] >= 0).all()
    assert fold[drug == "indole"].nunique() == 2
    assert fold[fold >= 0].value_counts().between(12, 18).all()


def test_drugs_without_structure_are_told_apart_by_name() -> None:
    adata = compounds()
    adata.obs.loc[adata.obs["drug"].isin(["indole", "quinoline"]), "smiles"] = ""
    drugs = sorted(set(adata.obs["drug"]) - {"DMSO"})
    adata.uns["own"] = pd.DataFrame(np.eye(len(drugs)), drugs)
    columns = COLUMNS | {"features_key": "own"}
    fold = pd.Series(fold_of(adata, "scaffold", 3, columns, 0)).groupby(adata.obs["drug"].to_numpy()).first()
    assert fold[["indole", "quinoline"]].between(0, 2).all()


@pytest.mark.parametrize("unseen", ["drug", "scaffold"])
def test_drugs_without_features_are_never_unseen(unseen) -> None:
    adata = compounds()
    adata.obs.loc[adata.obs["drug"] == "indole", "smiles"] = ""
    fold = pd.Series(fold_of(adata, unseen, 3, COLUMNS, 0)).groupby(adata.obs["drug"].to_numpy()).first()
    assert fold["indole"] == fold["DMSO"] == -1
    assert fold.drop(["indole", "DMSO"]).between(0, 2).all()


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "error", "match"),
    [
        ({"unseen": "drugs"}, ValueError, "unseen='drugs' does not exist. Did you mean 'drug'"),
        ({"n_splits": 1}, ValueError, "n_splits=1 must be a whole number from 2 up"),
        ({"n_splits": 2.0}, ValueError, "n_splits=2.0 must be"),
        ({"n_splits": True}, ValueError, "n_splits=True must be"),
        ({"n_splits": 10}, ValueError, r"n_splits=10, but there are 9 drugs .* Use n_splits=9 or fewer"),
        ({"unseen": "scaffold"}, ValueError, "unseen='scaffold' needs smiles_key"),
        ({"unseen": "cell_line"}, ValueError, "unseen='cell_line' needs cell_line_key"),
        ({"model_kwargs": {"generator": "identity"}}, ValueError, "by their features, not by name. Use generator='kernel'"),
        ({"model_kwargs": {"generator": "hil"}}, ValueError, "generator='hil' does not exist"),
        ({"setup_kwargs": {"drug_kye": "drug"}}, ValueError, "Did you mean 'drug_key'"),
        ({"setup_kwargs": {"drug_key": "drug"}}, ValueError, "setup_kwargs lacks 'control'"),
        ({"setup_kwargs": SETUP | {"control": "dmso"}}, ValueError, "Nearest and most frequent: 'DMSO'"),
        ({"setup_kwargs": SETUP | {"features_key": None}, "model_kwargs": {}}, ValueError, "Name features_key or smiles_key"),
        ({"setup_kwargs": SETUP | {"drug_key": "drgu"}}, KeyError, "obs has no column 'drgu'"),
    ],
    ids=str,
)  # fmt: skip
def test_mistakes_are_found_before_training(asked, error, match, adata, monkeypatch) -> None:
    monkeypatch.setattr(scgim.GIM, "train", lambda *args, **options: pytest.fail("trained"))
    known = set(scgim.GIM._setup_adata_manager_store)
    with pytest.raises(error, match=match):
        scgim.tl.cross_validate(adata, **(QUICK | asked))
    assert set(scgim.GIM._setup_adata_manager_store) == known


def test_it_needs_an_anndata_of_its_own_that_was_set_up(adata) -> None:
    with pytest.raises(ValueError, match="Nothing is known of adata's columns"):
        scgim.tl.cross_validate(screen())
    with pytest.raises(ValueError, match="adata is a view"):
        scgim.tl.cross_validate(adata[:50])
    with pytest.raises(TypeError, match="must be an AnnData"):
        scgim.tl.cross_validate(adata.obs)


def test_too_few_drugs_or_doses() -> None:
    with pytest.raises(ValueError, match="You have 4 drugs"):
        scgim.tl.cross_validate(screen(n_drugs=4), setup_kwargs=SETUP)
    with pytest.raises(ValueError, match="0 doses of drugs with two or more"):
        scgim.tl.cross_validate(screen(doses=(1.0,)), "dose", setup_kwargs=SETUP)


def test_a_model_that_cannot_say_anything_of_unseen_drugs_is_refused() -> None:
    setup = SETUP | {"features_key": None}
    scores = scgim.tl.cross_validate(
        screen(), "dose", 2, setup_kwargs=setup, **(QUICK | {"model_kwargs": {"generator": "identity"}})
    )
    assert "dose interpolation" in set(scores["method"])  # its drugs at other doses are known
    adata = screen()
    scgim.pp.split(adata, control="DMSO")
    scgim.setup_anndata(adata, **setup, split_key="scgim_split")
    model = scgim.GIM(adata)
    model.train(**QUICK["train_kwargs"])
    with pytest.raises(ValueError, match="generator='identity' cannot predict drugs without training conditions"):
        model.evaluate(refit=False)
