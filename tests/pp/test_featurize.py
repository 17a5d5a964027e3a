from __future__ import annotations

import re

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scgim.pp import featurize_drugs, fingerprints


def drugs_of(adata):
    return adata.obs.loc[adata.obs["drug"] != "DMSO"].drop_duplicates("drug").set_index("drug")["smiles"].sort_index()


@pytest.mark.parametrize("options", [{}, {"n_bits": 128, "radius": 1, "counts": True, "chirality": False}])
def test_equals_fingerprints(adata, options):
    audit = featurize_drugs(adata, control="DMSO", **options)
    features, expected = fingerprints(drugs_of(adata), **options)
    pd.testing.assert_frame_equal(adata.uns["drug_features"], features)
    pd.testing.assert_frame_equal(audit, expected)
    assert list(features.index) == sorted(features.index)
    assert "DMSO" not in features.index


def test_changes_nothing_else(adata):
    before = adata.copy()
    featurize_drugs(adata, control="DMSO", key_added="fp")
    assert list(adata.uns) == ["fp"]
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    np.testing.assert_array_equal(adata.X, before.X)


def test_order_of_cells_and_categories_changes_nothing(adata):
    other = adata[::-1].copy()
    other.obs["drug"] = other.obs["drug"].cat.reorder_categories(other.obs["drug"].cat.categories[::-1])
    featurize_drugs(adata, control="DMSO")
    featurize_drugs(other, control="DMSO")
    pd.testing.assert_frame_equal(adata.uns["drug_features"], other.uns["drug_features"])


# A column is an array of its own on disk, which zarr writes slowly.
@pytest.mark.parametrize(
    ("kind", "n_bits"),
    [
        ("h5ad", 1024),
        ("zarr", 32),
        pytest.param("h5ad", 4000, marks=pytest.mark.slow),
        pytest.param("h5ad", 5001, marks=pytest.mark.slow),
        pytest.param("zarr", 1024, marks=pytest.mark.slow),
    ],
)
def test_round_trip(adata, tmp_path, kind, n_bits):
    featurize_drugs(adata, control="DMSO", n_bits=n_bits)
    path = tmp_path / f"screen.{kind}"
    getattr(adata, f"write_{kind}")(path)
    pd.testing.assert_frame_equal(getattr(ad, f"read_{kind}")(path).uns["drug_features"], adata.uns["drug_features"])


@pytest.mark.parametrize("dtype", [object, "category", "string"])
@pytest.mark.parametrize("missing", ["", " ", None, np.nan])
def test_control_needs_no_smiles(adata, dtype, missing):
    adata.obs["smiles"] = adata.obs["smiles"].replace("", missing if missing is not None else np.nan).astype(dtype)
    assert len(featurize_drugs(adata, control="DMSO")) == 6
    with pytest.warns(UserWarning, match="'DMSO' has no SMILES and was taken for the control"):
        assert len(featurize_drugs(adata)) == 6


def test_a_drug_without_smiles_is_no_control(adata):
    adata.obs["drug"] = adata.obs["drug"].cat.rename_categories({"DMSO": "Mix-7"})
    with pytest.raises(ValueError, match="'Mix-7' has no SMILES. Name the control in `control`"):
        featurize_drugs(adata)
    adata.uns["control"] = "Mix-7"
    with pytest.warns(UserWarning, match="'Mix-7' has no SMILES"):
        assert len(featurize_drugs(adata)) == 6


def test_a_drug_without_smiles_gets_a_row_of_nan(adata):
    name = next(name for name in adata.obs["drug"].cat.categories if name != "DMSO")
    whole = featurize_drugs(adata, control="DMSO").drop(index=name)
    table = adata.uns["drug_features"].drop(index=name)
    adata.obs.loc[adata.obs["drug"] == name, "smiles"] = np.nan
    with pytest.warns(UserWarning, match="1 of 6 drugs have no features: " + re.escape(repr(name))):
        audit = featurize_drugs(adata, control="DMSO")
    pd.testing.assert_frame_equal(audit.filter(regex="^(smiles|parent|n_)"), whole.filter(regex="^(smiles|parent|n_)"))
    assert adata.uns["drug_features"].loc[name].isna().all()
    pd.testing.assert_frame_equal(adata.uns["drug_features"].drop(index=name), table)


def test_a_screen_without_any_smiles_has_no_features(adata):
    adata.obs["smiles"] = ""
    with pytest.raises(ValueError, match=r"obs\['smiles'\] holds no SMILES of any drug. Leave smiles_key out"):
        featurize_drugs(adata, control="DMSO")


def test_without_a_control_every_name_is_a_drug(adata):
    adata.obs["smiles"] = adata.obs["smiles"].replace("", "CS(C)=O")
    assert "DMSO" in featurize_drugs(adata).index
    assert "DMSO" not in featurize_drugs(adata, control="DMSO").index


def test_numbers_as_names(adata):
    adata.obs["drug"] = adata.obs["drug"].cat.codes
    featurize_drugs(adata, control=adata.obs.loc[adata.obs["smiles"] == "", "drug"].iloc[0])
    assert adata.uns["drug_features"].index.map(type).unique().to_list() == [str]
    assert len(adata.uns["drug_features"]) == 6


def test_warning_points_to_the_callers_line(adata):
    adata.obs["smiles"] = adata.obs["smiles"].replace("CCO", "CC(=O)Oc1ccccc1C(=O)[O-].[Na+]")
    with pytest.warns(UserWarning, match="'aspirin' = 'ethanol'") as caught:
        featurize_drugs(adata, control="DMSO")
    assert caught[0].filename == __file__


def with_second_smiles(adata):
    adata.obs.loc[adata.obs_names[adata.obs["drug"] == "ethanol"][0], "smiles"] = "CCCO"


def with_smiles_missing_in_one_cell(adata):
    adata.obs.loc[adata.obs_names[adata.obs["drug"] == "ethanol"][0], "smiles"] = None


def with_missing_drugs(adata):
    adata.obs.loc[adata.obs_names[:3], "drug"] = None


def with_controls_only(adata):
    adata.obs["drug"] = "DMSO"


@pytest.mark.parametrize(
    ("spoil", "options", "error", "message"),
    [
        pytest.param(None, {"drug_key": "drgu"}, KeyError, "no column 'drgu'. Nearest: 'drug'", id="drug_key"),
        pytest.param(None, {"smiles_key": "SMILE"}, KeyError, "'SMILE'. Nearest: 'smiles'", id="smiles_key"),
        pytest.param(None, {"key_added": "fp/1024"}, ValueError, "Use 'fp_1024'", id="slash"),
        pytest.param(None, {"key_added": ""}, ValueError, "key_added=''", id="no key"),
        pytest.param(
            None, {"control": "dmso "}, ValueError, r"No cell equals control='dmso '.*'DMSO' \(3 cells\)", id="control"
        ),
        pytest.param(None, {"n_bits": 4096}, ValueError, "n_bits=4096.*h5ad. Use 2048", id="h5ad cannot hold it"),
        pytest.param(None, {"method": "ecfp"}, ValueError, "method='ecfp'.*'morgan'", id="method"),
        pytest.param(
            with_second_smiles,
            {},
            ValueError,
            "'ethanol' has more than one.*'CCO'.*'CCCO'|'CCCO'.*'CCO'",
            id="two SMILES",
        ),
        pytest.param(
            with_smiles_missing_in_one_cell, {}, ValueError, "'ethanol' has more than one", id="SMILES in some cells"
        ),
        pytest.param(with_missing_drugs, {}, ValueError, r"missing for 3 of 57 cells \(5.3 %\).*notna", id="NaN drug"),
        pytest.param(with_controls_only, {}, ValueError, "no drug besides the control 'DMSO'", id="controls only"),
    ],
)
def test_errors(adata, spoil, options, error, message):
    if spoil is not None:
        spoil(adata)
    with pytest.raises(error, match=message):
        featurize_drugs(adata, **({"control": "DMSO"} | options))
    assert not adata.uns


def test_refuses_a_view(adata):
    view = adata[:30]
    with pytest.raises(ValueError, match=r"view.*copy\(\)"):
        featurize_drugs(view, control="DMSO")
    assert view.is_view
