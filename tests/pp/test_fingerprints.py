from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
from rdkit import Chem
from rdkit.Chem import rdFingerprintGenerator

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


@pytest.mark.parametrize("counts", [False, True])
@pytest.mark.parametrize("chirality", [False, True])
@pytest.mark.parametrize(("n_bits", "radius"), [(1024, 2), (64, 3), (2048, 0)])
def test_equals_rdkit_on_the_parent(counts, chirality, n_bits, radius):
    drugs = {"salt": "CC(=O)Oc1ccccc1C(=O)[O-].[Na+]", "Ruxolitinib": RUXOLITINIB["Ruxolitinib"], "ethanol": "OCC"}
    features, audit = fingerprints(drugs, n_bits=n_bits, radius=radius, counts=counts, chirality=chirality)
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=radius, fpSize=n_bits, includeChirality=chirality)
    for name, parent in {"salt": ASPIRIN, "Ruxolitinib": drugs["Ruxolitinib"], "ethanol": "CCO"}.items():
        expected = np.zeros(n_bits)
        if counts:
            nonzero = generator.GetCountFingerprint(Chem.MolFromSmiles(parent)).GetNonzeroElements()
            expected[list(nonzero)] = list(nonzero.values())
        else:
            expected[list(generator.GetFingerprint(Chem.MolFromSmiles(parent)).GetOnBits())] = 1
        np.testing.assert_array_equal(features.loc[name], expected)
        assert audit.loc[name, "n_bits_on"] == (expected > 0).sum()
    assert list(features.columns) == [f"morgan_{i}" for i in range(n_bits)]
    assert list(features.index) == list(audit.index) == list(drugs)
    assert (features.dtypes == np.float32).all()


def test_mapping_and_series_are_the_same():
    drugs = {1: ASPIRIN, "ethanol": "CCO"}
    for one, two in zip(fingerprints(drugs), fingerprints(pd.Series(drugs)), strict=True):
        pd.testing.assert_frame_equal(one, two)
    assert list(one.index) == ["1", "ethanol"]


def test_same_parent_under_two_names(caplog):
    drugs = VALPROATE | {"aspirin": ASPIRIN}
    with (
        caplog.at_level(logging.INFO, logger="scgim"),
        pytest.warns(UserWarning, match="'Valproic acid' = 'Divalproex'") as caught,
    ):
        features, audit = fingerprints(drugs)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    np.testing.assert_array_equal(features.loc["Valproic acid"], features.loc["Divalproex"])
    assert audit["same_structure_as"].to_list() == ["Divalproex", "Valproic acid", ""]
    assert audit["same_fingerprint_as"].to_list() == ["Divalproex", "Valproic acid", ""]
    assert audit["same_skeleton_as"].to_list() == ["", "", ""]
    (record,) = caplog.records
    assert record.getMessage().startswith("3 drugs: 1 multi-component entry reduced to its parent, 0 other entries")
    assert "1 pair shares a parent, 0 pairs differ" in record.getMessage()


def test_stereo_pair_is_told_apart_by_chirality_alone():
    features, audit = fingerprints(RUXOLITINIB)
    assert (features.iloc[0] != features.iloc[1]).any()
    assert audit["same_skeleton_as"].to_list() == ["S-Ruxolitinib", "Ruxolitinib"]
    assert (audit[["same_structure_as", "same_fingerprint_as"]] == "").all(axis=None)
    with pytest.warns(UserWarning, match="Different structures.*'Ruxolitinib' = 'S-Ruxolitinib'.*chirality=True"):
        audit = fingerprints(RUXOLITINIB, chirality=False)[1]
    assert audit["same_fingerprint_as"].to_list() == ["S-Ruxolitinib", "Ruxolitinib"]
    assert (audit["same_structure_as"] == "").all()


def test_remote_stereo_pair_is_told_apart_by_radius_alone():
    tipifarnib = "Cn1cncc1[C@@](N)(c1ccc(Cl)cc1)c1ccc2c(c1)c(-c1cccc(Cl)c1)cc(=O)n2C"
    pair = {"R": tipifarnib, "S": tipifarnib.replace("@@", "@")}
    with pytest.warns(UserWarning, match="'R' = 'S'.*larger radius"):
        fingerprints(pair)
    features, _ = fingerprints(pair, radius=3)
    assert (features.loc["R"] != features.loc["S"]).any()


def test_chain_lengths_are_told_apart_by_counts_alone():
    acids = {f"C{n}": "C" * (n - 1) + "C(=O)O" for n in (10, 12, 16)}
    with pytest.warns(UserWarning, match="'C10' = 'C12' = 'C16'.*counts=True"):
        audit = fingerprints(acids)[1]
    assert audit.loc["C12", "same_fingerprint_as"] == "C10; C16"
    assert len(fingerprints(acids, counts=True)[0].drop_duplicates()) == 3


@pytest.mark.parametrize(
    ("drugs", "options", "error", "message"),
    [
        pytest.param({"a": "C"}, {"method": "morgen"}, ValueError, "method='morgen'.*mean 'morgan'", id="method"),
        pytest.param({"a": "C"}, {"n_bits": 0}, ValueError, "n_bits=0", id="no bits"),
        pytest.param({"a": "C"}, {"n_bits": 1024.0}, ValueError, "n_bits=1024.0", id="float"),
        pytest.param({"a": "C"}, {"radius": -1}, ValueError, "radius=-1", id="radius"),
        pytest.param({}, {}, ValueError, "no drugs", id="empty"),
        pytest.param("CCO", {}, TypeError, "drug names to SMILES", id="bare SMILES"),
        pytest.param({1: "C", "1": "CC"}, {}, ValueError, "Drug '1' has more than one SMILES", id="1 and '1'"),
        pytest.param(pd.Series(["C", "CC"], ["a", "a"]), {}, ValueError, "Drug 'a' has more", id="name twice"),
    ],
)
def test_arguments(drugs, options, error, message):
    with pytest.raises(error, match=message):
        fingerprints(drugs, **options)


def test_real_compounds():
    pytest.importorskip("scgim.datasets")
    from scgim.datasets import sciplex3_drugs

    with pytest.warns(UserWarning, match="'Divalproex Sodium'.*'ENMD-2076'"):
        _, audit = fingerprints(sciplex3_drugs()["smiles"])
    duplicates = audit.loc[audit["same_structure_as"] != "", "same_structure_as"]
    assert duplicates["Divalproex Sodium"] == "Valproic acid sodium salt (Sodium valproate)"
    assert len(duplicates) == 4
    assert audit.loc["Ruxolitinib (INCB018424)", "same_skeleton_as"] == "S-Ruxolitinib (INCB018424)"
    for parent in audit["parent"]:
        assert standardize(parent).parent == parent
        assert "." not in parent
