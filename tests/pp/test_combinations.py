"""Splits, features and audits of screens with combinations."""

from __future__ import annotations

from itertools import combinations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scgim.pp import audit_split, featurize_drugs, split

SMILES = {
    "A": "CCO",
    "B": "CCN",
    "C": "c1ccccc1",
    "D": "CC(=O)O",
    "E": "C1CCOC1",
    "F": "CC#N",
    "valproate": "CCCC(CCC)C(=O)[O-].[Na+]",
    "valproic acid": "CCCC(CCC)C(=O)O",
}
LISTS = {"drug_key": ["one", "two"], "smiles_key": ["s1", "s2"], "control": "DMSO"}
DOSED = LISTS | {"dose_key": ["d1", "d2"]}


def screen(seed: int = 0, *, singles: bool = True) -> ad.AnnData:
    """Two cells of controls, of single drugs at three doses, and of half of the pairs at two doses; in two lines, in no order."""
    rng = np.random.default_rng(seed)
    rows = [("DMSO", np.nan, "", np.nan)]
    rows += [(name, dose, "", np.nan) for name in SMILES for dose in (0.1, 1.0, 10.0)] * singles
    pairs = [pair for pair in combinations(SMILES, 2) if rng.random() < 0.5]
    rows += [
        (*each, *other) for one, two in pairs for each, other in (((one, 1.0), (two, 1.0)), ((two, 10.0), (one, 0.1)))
    ]
    obs = pd.DataFrame(rows, columns=["one", "d1", "two", "d2"])
    obs = pd.concat([obs.assign(line=line) for line in ("A549", "K562") for _ in range(2)], ignore_index=True)
    obs["s1"], obs["s2"] = (obs[key].map(SMILES).fillna("") for key in ("one", "two"))
    obs = obs.iloc[rng.permutation(len(obs))]
    return ad.AnnData(np.zeros((len(obs), 2), np.float32), obs.set_index(np.arange(len(obs)).astype(str)))


def drugs_of(adata: ad.AnnData, side: str) -> set[str]:
    own = adata.obs[adata.obs["scgim_split"] == side]
    return {*own["one"], *own["two"]} - {"", "DMSO"}


def in_one_column(adata: ad.AnnData) -> ad.AnnData:
    """The same treatments with a separator; SMILES of single drugs alone."""
    obs, both = adata.obs, (adata.obs["two"] != "").to_numpy()
    drug = np.where(both, obs["two"] + " + " + obs["one"], obs["one"])
    dose = np.where(both, obs["d2"].astype(str) + "+" + obs["d1"].astype(str), obs["d1"].astype(str))
    new = pd.DataFrame(
        {"drug": drug, "dose": dose, "smiles": np.where(both, "", obs["s1"]), "line": obs["line"]}, obs.index
    )
    return ad.AnnData(adata.X, new)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("unseen", ["drug", "scaffold"])
def test_no_held_out_drug_is_in_training(unseen, seed):
    adata = screen(seed)
    split(adata, unseen=unseen, seed=seed, **LISTS)
    assert audit_split(adata, cell_line_key="line", **DOSED).empty
    held_out = set(SMILES) - drugs_of(adata, "train")
    assert 1 <= len(held_out) <= 3
    assert ("valproate" in held_out) == ("valproic acid" in held_out)
    has = adata.obs["one"].isin(held_out) | adata.obs["two"].isin(held_out)
    assert ((adata.obs["scgim_split"] == "test") == has).all()


@pytest.mark.parametrize("unseen", ["drug", "scaffold", "dose", "combination", "cell_line"])
def test_a_separator_gives_the_split_of_the_lists(unseen):
    adata = screen()
    other = in_one_column(adata)
    keys = {"unseen": unseen, "cell_line_key": "line", "seed": 3}
    split(adata, **(DOSED | keys))
    split(other, drug_key="drug", dose_key="dose", smiles_key="smiles", control="DMSO", combination_sep="+", **keys)
    assert (adata.obs["scgim_split"] == other.obs["scgim_split"]).all()
    assert adata.obs["scgim_split"].nunique() == 2


@pytest.mark.parametrize("unseen", ["drug", "dose", "cell_line"])
def test_screens_without_combinations_are_split_as_before(unseen):
    adata = screen()
    adata = adata[adata.obs["two"] == ""].copy()
    keys = {"unseen": unseen, "cell_line_key": "line", "control": "DMSO"}
    split(adata, drug_key="one", dose_key="d1", smiles_key="s1", key_added="plain", **keys)
    split(adata, **(DOSED | keys))
    assert (adata.obs["plain"] == adata.obs["scgim_split"]).all()


@pytest.mark.parametrize("seed", range(4))
def test_held_out_doses_are_in_no_combination_in_training(seed):
    adata = screen(seed)
    split(adata, unseen="dose", seed=seed, **{**DOSED, "smiles_key": None})
    obs, test = adata.obs, (adata.obs["scgim_split"] == "test").to_numpy()
    alone = (obs["two"] == "").to_numpy()
    held_out = set(zip(obs["one"][alone & test], obs["d1"][alone & test], strict=True))
    own = [set(zip(obs[drug], obs[dose], strict=True)) for drug, dose in (("one", "d1"), ("two", "d2"))]
    assert {name for name, _ in held_out} == set(SMILES)
    assert drugs_of(adata[alone], "train") == set(SMILES)
    has = [
        (one, a) in held_out or (two, b) in held_out
        for one, a, two, b in obs[["one", "d1", "two", "d2"]].itertuples(index=False, name=None)
    ]
    assert (test == np.array(has)).all()
    assert held_out <= own[0]


@pytest.mark.parametrize("singles", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_drugs_of_held_out_combinations_stay_in_training(seed, singles):
    adata = screen(seed, singles=singles)
    split(adata, unseen="combination", seed=seed, frac=0.3, **LISTS)
    test = adata.obs[adata.obs["scgim_split"] == "test"]
    assert (test["two"] != "").all()
    assert drugs_of(adata, "train") == set(SMILES)
    sets = [
        {frozenset(pair) for pair in zip(each["one"], each["two"], strict=True)}
        for each in (test, adata.obs.drop(test.index))
    ]
    assert sets[0]
    assert not sets[0] & sets[1]
    assert audit_split(adata, cell_line_key="line", **(DOSED | {"smiles_key": None})).empty


def test_without_combinations_none_can_be_held_out():
    adata = screen()
    single = adata[adata.obs["two"] == ""].copy()
    with pytest.raises(ValueError, match="0 combinations.*Pass drug_key as a list of columns, or combination_sep"):
        split(single, unseen="combination", drug_key="one", control="DMSO")
    alone = adata[(adata.obs["one"] == "DMSO") | (adata.obs["one"].eq("A") & adata.obs["two"].ne("")).to_numpy()].copy()
    alone = alone[~alone.obs.duplicated(["one"])].copy()
    with pytest.raises(ValueError, match="1 combinations, and none can be held out .* Use unseen='drug'"):
        split(alone, unseen="combination", **LISTS)


@pytest.mark.filterwarnings("ignore:Duplicates")
def test_every_drug_gets_one_row_of_features():
    adata = screen()
    plain, other = adata[adata.obs["two"] == ""].copy(), in_one_column(adata)
    audit = featurize_drugs(plain, drug_key="one", smiles_key="s1", control="DMSO")
    pd.testing.assert_frame_equal(featurize_drugs(adata, **LISTS), audit)
    featurize_drugs(other, control="DMSO", combination_sep="+")
    for each in (adata, other):
        pd.testing.assert_frame_equal(each.uns["drug_features"], plain.uns["drug_features"])


@pytest.mark.filterwarnings("ignore:Duplicates")
def test_a_drug_in_combinations_alone_has_features_from_lists_only():
    adata = screen()
    adata = adata[~((adata.obs["one"] == "A") & (adata.obs["two"] == ""))].copy()
    featurize_drugs(adata, **LISTS)
    assert adata.uns["drug_features"].notna().all(axis=None)
    other = in_one_column(adata)
    with pytest.warns(UserWarning, match="have no features: 'A'"):
        featurize_drugs(other, control="DMSO", combination_sep="+")
    assert other.uns["drug_features"].index[other.uns["drug_features"].isna().all(axis=1)].tolist() == ["A"]


def test_the_control_of_combinations_is_named():
    with pytest.raises(ValueError, match="A screen with combinations needs control="):
        featurize_drugs(screen(), **{**LISTS, "control": None})
    adata = screen()
    with pytest.warns(UserWarning, match="'DMSO' was taken for the control"):
        split(adata, **{**LISTS, "control": None})


def sided(*rows: tuple[str, float, str, float, str]) -> ad.AnnData:
    obs = pd.DataFrame(
        [*rows, ("DMSO", np.nan, "", np.nan, "train")], columns=["one", "d1", "two", "d2", "scgim_split"]
    )
    obs["s1"], obs["s2"] = (obs[key].map(SMILES).fillna("") for key in ("one", "two"))
    return ad.AnnData(np.zeros((len(obs), 1), np.float32), obs.set_index(np.arange(len(obs)).astype(str)))


V, W, NAN = "valproate", "valproic acid", np.nan


@pytest.mark.parametrize(
    ("rows", "leaks"),
    [
        pytest.param([("A", 1, "", NAN, "test"), ("B", 1, "", NAN, "train")], [], id="clean"),
        pytest.param(
            [("A", 1, "", NAN, "test"), ("B", 1, "A", 1, "train")],
            [("component", "A", "A (1) + B (1)")],
            id="component",
        ),
        pytest.param(
            [("A", 1, "", NAN, "test"), ("B", 1, "A", 1, "train"), ("A", 9, "", NAN, "train")], [], id="unseen dose"
        ),
        pytest.param(
            [("A", 1, "B", 1, "test"), ("A", 1, "", NAN, "train"), ("B", 1, "", NAN, "train")], [], id="unseen pair"
        ),
        pytest.param([("A", 1, "B", 1, "test"), ("A", 1, "C", 1, "train")], [], id="pairs alone"),
        pytest.param(
            [("A", 1, "B", 2, "test"), ("B", 2, "A", 1, "train")],
            [("condition", "A (1) + B (2)", "A (1) + B (2)")],
            id="condition in another order",
        ),
        pytest.param([("A", 1, "B", 2, "test"), ("A", 1, "B", 3, "train")], [], id="other doses of a pair"),
        pytest.param([(V, 1, "", NAN, "test"), (W, 1, "A", 1, "train")], [("parent", V, W)], id="duplicate in a pair"),
        pytest.param(
            [(V, 1, "A", 1, "test"), (W, 1, "A", 1, "train"), (V, 1, "", NAN, "train")],
            [("parent", V, W)],
            id="one pair under two names",
        ),
        pytest.param(
            [(V, 1, "A", 1, "test"), (W, 1, "B", 1, "train"), (V, 1, "", NAN, "train")], [], id="another partner"
        ),
    ],
)
def test_leaks_are_found_by_drug(rows, leaks):
    found = audit_split(sided(*rows), **DOSED)
    assert list(found[["kind", "test", "train"]].itertuples(index=False, name=None)) == leaks
    assert found["detail"].str.len().gt(0).all()
