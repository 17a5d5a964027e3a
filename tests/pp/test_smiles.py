from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import scgim
from scgim.pp._smiles import check_smiles

SALTS = ["CC(=O)O", "CC(=O)O", "CC(=O)[O-].[Na+]", ""]
NELISA = Path(__file__).parents[3] / "shared" / "data" / "nelisa_a549.h5ad"


def read(smiles: list, conflict: str, order: np.ndarray | None = None) -> dict:
    obs = pd.DataFrame({"drug": ["b"] * len(smiles) + ["a"], "smiles": [*smiles, "CCO"]})
    obs = obs if order is None else obs.iloc[order]
    return check_smiles(obs, "smiles", names=obs["drug"], treated=np.ones(len(obs), bool), conflict=conflict).to_dict()


def test_smiles_of_drugs_alone():
    obs = pd.DataFrame({"drug": ["b", "c", "a", "b"], "smiles": ["CC", "x", None, "CC"]})
    found = check_smiles(obs, "smiles", names=obs["drug"], treated=(obs["drug"] != "c").to_numpy())
    assert found.to_dict() == {"a": "", "b": "CC"}
    assert list(found.index) == ["a", "b"]


@pytest.mark.parametrize("conflict", ["first", "same_parent"])
@pytest.mark.parametrize(
    ("smiles", "taken"),
    [
        (SALTS, "CC(=O)O"),
        (["OC(C)=O", "CC(=O)O"], "CC(=O)O"),
        (["OC(C)=O", "CC(=O)O", "OC(C)=O"], "OC(C)=O"),
        ([None, np.nan, " ", "CC(=O)O"], "CC(=O)O"),
        ([None, ""], ""),
    ],
)
def test_the_most_frequent_smiles_is_taken_in_any_order_of_cells(conflict, smiles, taken):
    rng = np.random.default_rng(0)
    for _ in range(5):
        assert read(smiles, conflict, rng.permutation(len(smiles) + 1)) == {"a": "CCO", "b": taken}


def test_conflicts_are_refused_with_the_next_option():
    with pytest.raises(ValueError, match="'b' has more than one SMILES.*smiles_conflict='same_parent' or 'first'"):
        read(SALTS, "error")
    other = ["CC(=O)O", "CCC(=O)O"]
    with pytest.raises(ValueError, match=r"'b' has SMILES of different parents.*'CC\(=O\)O' and 'CCC.*='first'"):
        read(other, "same_parent")
    assert read(other, "first")["b"] == "CC(=O)O"
    with pytest.raises(ValueError, match="smiles_conflict='frist' does not exist. Did you mean 'first'"):
        read(other, "frist")


def test_an_unreadable_form_has_another_parent():
    with pytest.raises(ValueError, match="different parents"):
        read(["CC(=O)O", "C1CC"], "same_parent")


@pytest.mark.skipif(not NELISA.exists(), reason="the wells of nELISA are not here")
def test_a_vendor_table_with_two_forms_of_three_drugs():
    """One form of each has no stereochemistry, or is another tautomer, so the parents differ."""
    adata = ad.read_h5ad(NELISA)
    options = {"control": "DMSO", "smiles_key": "smiles"}
    forms = adata.obs.groupby("drug", observed=True)["smiles"].nunique().loc[lambda n: n > 1].index
    assert forms.tolist() == ["BVT-948", "dexamethasone", "thiostrepton"]
    with pytest.raises(ValueError, match="more than one SMILES"):
        scgim.pp.featurize_drugs(adata, **options)
    sheet = scgim.pp.check(adata, scale="continuous", **options).set_index("check")
    assert sheet["status"]["structures"] == "FAIL"
    assert "smiles_conflict='same_parent'" in sheet["fix"]["structures"]
    permuted = adata[np.random.default_rng(0).permutation(adata.n_obs)].copy()
    for one in (adata, permuted):
        scgim.pp.featurize_drugs(one, **options, smiles_conflict="first")
    pd.testing.assert_frame_equal(adata.uns["drug_features"], permuted.uns["drug_features"])
    with pytest.raises(ValueError, match="different parents"):
        scgim.pp.featurize_drugs(adata, **options, smiles_conflict="same_parent")
    sheet = scgim.pp.check(adata, scale="continuous", smiles_conflict="first", **options).set_index("check")
    assert "more than one SMILES" not in sheet["finding"]["structures"]
