from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import read_h5ad
from rdkit import Chem
from rdkit.Chem import Descriptors

from scgim.pp import featurize_drugs, fingerprints

ODD = {
    "aspirin": "CC(=O)Oc1ccccc1C(=O)O",
    "cisplatin": "N.N.Cl[Pt]Cl",
    "lithium": "[Li+].[Cl-]",
    "water": "O",
    "peptide": "NCC(=O)" * 30 + "O",
    "fullerene-like": "C1=CC2=CC=C3C=CC4=CC=C5C=CC6=CC=C1C7=C2C3=C4C5=C67",
}


def test_descriptors_are_rdkits_compressed():
    features, audit = fingerprints({"aspirin": ODD["aspirin"]}, method="descriptors")
    mol = Chem.MolFromSmiles(ODD["aspirin"])
    for name, function in Descriptors.descList:
        if name.startswith("fr_"):
            assert f"rdkit_{name}" not in features
        else:
            value = function(mol)
            assert features.loc["aspirin", f"rdkit_{name}"] == pytest.approx(
                np.sign(value) * np.log1p(abs(value)), rel=1e-5
            )
    assert audit.loc["aspirin", "n_bits_on"] == 0


@pytest.mark.parametrize("method", ["descriptors", "morgan_descriptors"])
def test_odd_compounds_are_finite_and_within_bounds(method):
    features, _ = fingerprints(ODD, method=method)
    assert np.isfinite(features.to_numpy()).all()
    assert features.filter(regex="^rdkit_").abs().max(axis=None) <= 20
    assert (features.dtypes == np.float32).all()
    assert list(features.index) == list(ODD)


def test_a_drug_has_the_same_descriptors_in_any_company():
    alone, together = (fingerprints(d, method="descriptors")[0] for d in ({"water": "O"}, ODD))
    pd.testing.assert_frame_equal(alone, together.loc[["water"]])


@pytest.mark.parametrize("counts", [None, True, False])
def test_both_are_the_two_side_by_side(counts):
    both, audit = fingerprints(ODD, method="morgan_descriptors", n_bits=64, counts=counts)
    morgan, morgan_audit = fingerprints(ODD, n_bits=64, counts=counts is not False)
    pd.testing.assert_frame_equal(both, pd.concat([morgan, fingerprints(ODD, method="descriptors")[0]], axis=1))
    pd.testing.assert_series_equal(audit["n_bits_on"], morgan_audit["n_bits_on"])


def test_bits_stay_the_default():
    assert set(np.unique(fingerprints({"a": "CCCCCCCC"})[0])) == {0.0, 1.0}


def test_round_trip(adata, tmp_path):
    featurize_drugs(adata, control="DMSO", method="morgan_descriptors", n_bits=128)
    adata.write_h5ad(tmp_path / "a.h5ad")
    pd.testing.assert_frame_equal(
        read_h5ad(tmp_path / "a.h5ad").uns["drug_features"], adata.uns["drug_features"], check_names=False
    )


def test_the_whole_table_must_fit_h5ad(adata):
    with pytest.raises(ValueError, match="n_bits=3900"):
        featurize_drugs(adata, control="DMSO", method="morgan_descriptors", n_bits=3900)
