from __future__ import annotations

import pytest
from rdkit import Chem, rdBase

from scgim.pp import fingerprints, standardize

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
RUXOLITINIB = {
    "Ruxolitinib": "N#CC[C@H](C1CCCC1)n1cc(-c2ncnc3[nH]ccc23)cn1",
    "S-Ruxolitinib": "N#CC[C@@H](C1CCCC1)n1cc(-c2ncnc3[nH]ccc23)cn1",
}
VALPROATE = {
    "Valproic acid": "CCCC(CCC)C(=O)O",
    "Divalproex": "CCCC(CCC)C(=O)O.CCCC(CCC)C(=O)[O-].[Na+]",
}
CISPLATIN = ["[NH3]->[Pt](<-[NH3])(Cl)Cl", "N.N.Cl[Pt]Cl", "N.N.[Cl-].[Cl-].[Pt+2]"]


@pytest.mark.parametrize(
    ("smiles", "parent", "n_fragments", "action"),
    [
        pytest.param(ASPIRIN, ASPIRIN, 1, "none", id="nothing to do"),
        pytest.param("OC(=O)c1ccccc1OC(C)=O", ASPIRIN, 1, "none", id="other spelling"),
        pytest.param("CC(=O)Oc1ccccc1C(=O)[O-].[Na+]", ASPIRIN, 2, "parent taken", id="sodium salt"),
        pytest.param("CC(=O)Oc1ccccc1C(=O)O[Na]", ASPIRIN, 1, "parent taken", id="sodium drawn with a bond"),
        pytest.param("CC(=O)Oc1ccccc1C(=O)[O-]", ASPIRIN, 1, "parent taken", id="anion"),
        pytest.param(VALPROATE["Divalproex"], VALPROATE["Valproic acid"], 3, "parent taken", id="two of one acid"),
        pytest.param("C[N+](C)(C)CCO.[Cl-]", "C[N+](C)(C)CCO", 2, "parent taken", id="permanent charge stays"),
        pytest.param("OC(=O)/C=C/C(=O)O.CN", "OC(=O)/C=C/C(=O)O", 2, "parent taken", id="double bond stays"),
        pytest.param("*.Cl.N[C@@H]1C[C@H]1c1ccccc1", "N[C@@H]1C[C@H]1c1ccccc1", 3, "parent taken", id="placeholder"),
        pytest.param(CISPLATIN[0], CISPLATIN[0], 1, "metal kept whole", id="cisplatin, dative"),
        pytest.param(CISPLATIN[1], CISPLATIN[1], 3, "metal kept whole", id="cisplatin, fragments"),
        pytest.param(CISPLATIN[2], CISPLATIN[2], 5, "metal kept whole", id="cisplatin, ions"),
        pytest.param("[Li+].[Li+].[O-]C([O-])=O", "[Li+].[Li+].[O-]C([O-])=O", 3, "metal kept whole", id="lithium"),
        pytest.param("[Na+].[Cl-]", "[Na+].[Cl-]", 2, "metal kept whole", id="no organic part"),
        pytest.param("  CCO\n", "CCO", 1, "none", id="spaces around"),
    ],
)
def test_parent(smiles, parent, n_fragments, action):
    found = standardize(smiles)
    assert found.parent == Chem.CanonSmiles(parent) == Chem.MolToSmiles(found.mol)
    assert found.inchikey == Chem.MolToInchiKey(Chem.MolFromSmiles(parent))
    assert (found.n_fragments, found.action) == (n_fragments, action)
    again = standardize(found.parent)
    assert again.parent == found.parent
    assert again.action == ("none" if action == "parent taken" else action)


def test_stereoisomers_differ_and_share_a_skeleton():
    r, s = (standardize(smiles) for smiles in RUXOLITINIB.values())
    assert r.parent != s.parent
    assert r.inchikey != s.inchikey
    assert r.skeleton == s.skeleton != standardize(ASPIRIN).skeleton


@pytest.mark.parametrize(
    ("smiles", "why"),
    [
        pytest.param("", "no SMILES: ''", id="empty: a valid molecule to RDKit"),
        pytest.param(" \n", "no SMILES", id="blank"),
        pytest.param(None, "no SMILES: None", id="None"),
        pytest.param(float("nan"), "no SMILES: nan", id="nan"),
        pytest.param(7, "no SMILES: 7", id="number"),
        pytest.param("CCO DMSO", "more than a SMILES: 'CCO DMSO'", id="name behind: ethanol to RDKit"),
        pytest.param("CCO\tDMSO", "more than a SMILES", id="tab"),
        pytest.param("C1CC", "not a SMILES: 'C1CC'", id="open ring"),
        pytest.param("CN(C)(C)(C)C", "not a SMILES", id="valence"),
        pytest.param("nan", "not a SMILES: 'nan'", id="nan as text"),
        pytest.param("InChI=1S/CH4/h1H4", "not a SMILES", id="InChI"),
        pytest.param("CCO>>CC=O", "not a SMILES", id="reaction"),
        pytest.param("*CC", "a wildcard atom", id="wildcard"),
    ],
)
def test_no_structure(smiles, why, capfd):
    with pytest.raises(ValueError, match=why):
        standardize(smiles)
    with pytest.raises(ValueError, match=rf"1 of 2 drugs have no usable structure: 'Mix-7' \({why}.*control"):
        fingerprints({"aspirin": ASPIRIN, "Mix-7": smiles})
    assert capfd.readouterr() == ("", "")


def test_all_bad_drugs_are_named():
    with pytest.raises(ValueError, match="7 of 8 drugs.*'bad 0'.*'bad 4'.* and 2 more"):
        fingerprints({"aspirin": ASPIRIN} | {f"bad {i}": "" for i in range(7)})


def test_the_global_log_stays_as_it_was(capfd):
    before = rdBase.LogStatus()
    fingerprints({"aspirin": "CC(=O)Oc1ccccc1C(=O)[O-].[Na+]", "cisplatin": CISPLATIN[1]})
    assert capfd.readouterr() == ("", "")
    assert rdBase.LogStatus() == before
    Chem.MolFromSmiles("C1CC")
    assert "unclosed ring" in capfd.readouterr().err


def test_the_british_name_is_an_alias():
    from scgim import pp

    assert pp.standardise is pp.standardize
    with pytest.raises(AttributeError, match="no attribute 'standardice'"):
        _ = pp.standardice
