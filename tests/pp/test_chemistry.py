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


MEG, PAM = "CNC[C@H](O)[C@@H](O)[C@H](O)[C@H](O)CO", "OC(=O)c1cc2ccccc2c(Cc2c(O)c(cc3ccccc23)C(O)=O)c1O"
LACTO = "OC[C@@H](O)[C@@H](O[C@@H]1O[C@H](CO)[C@H](O)[C@H](O)[C@H]1O)[C@H](O)[C@@H](O)C(O)=O"
LYS, SALICYLATE = "NCCCC[C@H](N)C(O)=O", "[O-]C(=O)c1ccccc1O"
CAFFEINE = "Cn1cnc2c1c(=O)n(C)c(=O)n2C"


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    ("drug", "ion"),
    [
        pytest.param("OC(=O)c1ccc2nc(oc2c1)-c1cc(Cl)cc(Cl)c1", MEG, id="tafamidis meglumine"),
        pytest.param("CN1CCCN=C1/C=C/c1cccs1", PAM, id="pyrantel pamoate"),
        pytest.param(ASPIRIN, LYS, id="aspirin lysine"),
        pytest.param("CC(CCc1ccc(O)cc1)NCCc1ccc(O)c(O)c1", LACTO, id="dobutamine lactobionate"),
        pytest.param(SALICYLATE, "C[N+](C)(C)CCO", id="choline salicylate: both are counter-ions"),
        pytest.param("C1CNCCN1", "OC(=O)CC(O)(CC(O)=O)C(O)=O", id="piperazine citrate: both are counter-ions"),
        pytest.param("C[N+](C)(C)CCO", "OC(C(O)C(=O)[O-])C(=O)O", id="choline bitartrate: both are counter-ions"),
        pytest.param("OC(=O)c1cccnc1", "Cl", id="nicotinic acid hydrochloride"),
        pytest.param("OC(=O)c1ccc2nc(oc2c1)-c1cc(Cl)cc(Cl)c1", "CS(C)=O", id="DMSO, which is redrawn"),
        pytest.param("OC(=O)c1ccc2nc(oc2c1)-c1cc(Cl)cc(Cl)c1", "O.O.CCO", id="hydrate of ethanol"),
        pytest.param(ASPIRIN, "[Na+].CCCCCCCCCCCCCCCCCC(=O)[O-].[Mg+2]", id="stearate"),
    ],
)
def test_the_drug_is_kept_whatever_the_size_of_its_counter_ion(drug, ion, order):
    found = standardize(".".join([ion, drug][::order]))
    assert found.parent == standardize(drug).parent
    assert found.action == "parent taken"
    one, two = (Chem.MolToInchiKey(Chem.MolFromSmiles(text)) for text in (found.dropped, ion))
    assert one == two


@pytest.mark.parametrize("order", [1, -1])
def test_two_active_components_are_a_combination(order):
    found = standardize(".".join([ASPIRIN, CAFFEINE + ".Cl"][::order]))
    assert found.action == "combination kept whole"
    assert found.parent == Chem.CanonSmiles(f"{ASPIRIN}.{CAFFEINE}")
    assert found.dropped == "Cl"
    assert found.skeleton not in {standardize(ASPIRIN).skeleton, standardize(CAFFEINE).skeleton}
    assert standardize(found.parent).parent == found.parent


def test_a_combination_is_never_to_be_merged_with_its_drugs():
    both = {"both": f"{ASPIRIN}.{CAFFEINE}", "same": f"{CAFFEINE}.{ASPIRIN}", "aspirin": ASPIRIN, "caffeine": CAFFEINE}
    with pytest.warns(UserWarning, match="2 of 4 structures look like combinations.*'both', 'same'") as said:
        features, audit = fingerprints(both)
    assert not [warning for warning in said if "Merge" in str(warning.message)]
    assert audit.loc["aspirin", "same_skeleton_as"] == audit.loc["aspirin", "same_structure_as"] == ""
    single = features.loc[["aspirin", "caffeine"]].to_numpy().max(0)
    assert (features.loc["both"].to_numpy() == single).all()


def test_stereoisomers_in_one_structure_are_one_component():
    found = standardize(".".join(RUXOLITINIB.values()))
    assert found.action == "parent taken"
    assert found.parent in {standardize(smiles).parent for smiles in RUXOLITINIB.values()}


def test_a_large_counter_ion_is_named():
    salts = {
        "tafamidis meglumine": f"{MEG}.OC(=O)c1ccc2nc(oc2c1)-c1cc(Cl)cc(Cl)c1",
        "pyrantel pamoate": f"{PAM}.CN1CCCN=C1/C=C/c1cccs1",
    }
    with pytest.warns(
        UserWarning, match="'pyrantel pamoate': kept CN1CCCN=C1/C=C/c1cccs1 and dropped .*as many heavy atoms"
    ) as said:
        _, audit = fingerprints(salts)
    assert len(said) == 1  # meglumine is smaller than tafamidis in heavy atoms, though not in atoms
    assert audit["dropped"].map(Chem.CanonSmiles).tolist() == [Chem.CanonSmiles(MEG), Chem.CanonSmiles(PAM)]


def test_a_biologic_is_pointed_to_what_to_do():
    insulin = {"polyglycine": "NCC(=O)" * 60 + "O", "caffeine": CAFFEINE}
    with pytest.warns(
        UserWarning, match="More than 150 heavy atoms: 'polyglycine'.*Leave its SMILES empty.*features_key"
    ):
        fingerprints(insulin)


def test_a_name_that_can_be_read_as_a_smiles_is_pointed_out():
    with pytest.warns(UserWarning, match="The SMILES of 'CCCP' is the drug's name"):
        fingerprints({"CCCP": "cccp".upper(), "caffeine": CAFFEINE})
    fingerprints({"CCCP": "CCCP", CAFFEINE: CAFFEINE})  # drugs are named by their SMILES


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        pytest.param("InChI=1S/CH4/h1H4", "but an InChI; .*MolFromInchi", id="InChI"),
        pytest.param("BSYNRYMUTXBXSQ-UHFFFAOYSA-N", "an InChIKey.*look up", id="InChIKey"),
        pytest.param("PEPTIDE1{G.C.A}$$$$", "but HELM; .*MolFromHELM.*empty SMILES", id="HELM"),
        pytest.param("aspirin", "'aspirin', but a name", id="name"),
        pytest.param("acetylsalicylic acid", "a name", id="two words"),
        pytest.param("β-Lapachone", "a name", id="Greek letter"),
        pytest.param("trastuzumab", "a name.*a biologic takes an empty SMILES", id="antibody"),
        pytest.param("MKTAYIAKQRQISFVKSHFSRQ", "a sequence.*empty SMILES", id="sequence"),
        pytest.param("50-78-2", "a CAS number", id="CAS"),
        pytest.param("CHEMBL25", "a ChEMBL identifier", id="ChEMBL"),
        pytest.param("2244", "a number, such as a PubChem identifier", id="PubChem"),
        pytest.param("DB00945", "a DrugBank identifier", id="DrugBank"),
        pytest.param(
            "x\n\n  1  0  0  0  0  0  0  0  0  0999 V2000\nM  END", "a molfile; .*MolFromMolBlock", id="molfile"
        ),
    ],
)
def test_other_notations_are_recognized(text, kind):
    with pytest.raises(ValueError, match=kind):
        standardize(text)
    with pytest.raises(ValueError, match=rf"1 of 2 drugs.*{kind}.*A biologic, such as an antibody"):
        fingerprints({"caffeine": CAFFEINE, "x": text})


def test_the_calls_that_a_message_names_convert():
    assert (
        standardize(Chem.MolToSmiles(Chem.MolFromInchi(Chem.MolToInchi(Chem.MolFromSmiles(ASPIRIN))))).parent == ASPIRIN
    )
    assert standardize(Chem.MolToSmiles(Chem.MolFromHELM("PEPTIDE1{G.G}$$$$"))).parent == "NCC(=O)NCC(=O)O"


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
