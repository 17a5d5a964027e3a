"""Salts are distinguished from combinations by their counter-ions."""

from __future__ import annotations

import pandas as pd
import pytest
from rdkit import Chem

import scgim
from scgim.pp._mixtures import COUNTER_COMPONENTS, active_components, mixtures

ASPIRIN, CAFFEINE = "CC(=O)Oc1ccccc1C(=O)O", "Cn1cnc2c1c(=O)n(C)c(=O)n2C"


@pytest.mark.parametrize(
    "salt",
    ["Cl", "[Na+].[Cl-]", "CS(=O)(=O)O", "OC(=O)/C=C/C(=O)O", "OC(=O)C(F)(F)F", "O", "CCO", "NCCCC[C@H](N)C(=O)O"],
)
def test_salts_and_solvates_have_one_active_component(salt):
    assert active_components(f"{CAFFEINE}.{salt}") == active_components(f"{salt}.{CAFFEINE}")
    assert len(active_components(f"{CAFFEINE}.{salt}")) == 1


def test_charges_and_copies_do_not_matter():
    assert len(active_components("CC(=O)Oc1ccccc1C(=O)[O-].CC(=O)Oc1ccccc1C(=O)O.[Ca+2]")) == 1


def test_two_drugs_are_a_mixture():
    assert mixtures(pd.Series({"both": f"{ASPIRIN}.{CAFFEINE}", "one": ASPIRIN, "none": ""})) == ["both"]


def test_complexes_of_metals_are_no_mixtures():
    assert active_components("CC1=CC=CC=C1.C1CCCCC1N.Cl[Pt]Cl") == []


def test_every_counter_component_can_be_read():
    assert all(Chem.MolFromSmiles(each) is not None for each in COUNTER_COMPONENTS.split())


def test_set_up_and_check_warn(screen):
    adata = screen()
    names = sorted(set(adata.obs["drug"]) - {"DMSO"})
    adata = adata[adata.obs["drug"].isin(["DMSO", *names[:3]])].copy()
    smiles = {name: "C" * (i + 1) + "O" for i, name in enumerate(names)} | {
        "DMSO": "",
        names[0]: f"{ASPIRIN}.{CAFFEINE}",
    }
    adata.obs["smiles"] = adata.obs["drug"].map(smiles).astype(str)
    with pytest.warns(UserWarning, match="look like combinations"):
        scgim.setup_anndata(adata, "drug", "DMSO", "continuous", smiles_key="smiles")
    sheet = scgim.pp.check(adata, control="DMSO", scale="continuous", smiles_key="smiles").set_index("check")
    assert sheet.loc["structures", "status"] == "WARN"
    assert "look like combinations" in sheet.loc["structures", "finding"]
