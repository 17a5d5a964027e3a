"""Several names of untreated cells: all of them are controls of their line and batch."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc

import scgim

CONTROLS = ["DMSO", "untreated"]
SMILES = ["CCO", "CCN", "c1ccccc1", "CC(=O)O", "C1CCOC1", "CC#N", "CCS", "c1ccncc1", "NCC(=O)O", "CC(C)=O"]


def renamed(adata):
    """The screen with another name for half of the controls."""
    rows = np.flatnonzero(adata.obs["drug"] == "DMSO")[::2]
    drug = adata.obs["drug"].astype(object)
    drug.iloc[rows] = "untreated"
    adata.obs["drug"] = pd.Categorical(drug)
    return adata


@pytest.fixture(scope="module")
def single(in_lines, fit) -> scgim.GIM:
    return fit(in_lines(1.0), cell_line_key="line", batch_key="plate")


@pytest.fixture(scope="module")
def double(in_lines, fit) -> scgim.GIM:
    return fit(renamed(in_lines(1.0)), control=CONTROLS, cell_line_key="line", batch_key="plate")


def test_two_names_are_as_one(single, double, assert_same_bits):
    assert_same_bits(single, double)
    pd.testing.assert_frame_equal(single.rank_targets(), double.rank_targets())
    one, two = (model.predict(drug="drug-001", dose=1.0) for model in (single, double))
    np.testing.assert_array_equal(one.X, two.X)
    pd.testing.assert_frame_equal(one.obs, two.obs)
    assert double.drugs == single.drugs


@pytest.mark.parametrize("control", [tuple(CONTROLS), set(CONTROLS), np.array(CONTROLS), pd.Index(CONTROLS)])
def test_any_collection_of_names(screen, setup_kwargs, control):
    adata = renamed(screen())
    scgim.setup_anndata(adata, **(setup_kwargs | {"control": control}))
    manager = scgim.GIM._get_most_recent_anndata_manager(adata)
    assert manager.registry["setup_args"]["control"] == CONTROLS
    assert manager.get_state_registry("context")["n_controls"] == 100


def test_both_names_are_no_drugs(double):
    for name in CONTROLS:
        with pytest.raises(ValueError, match=f"{name!r} is the control"):
            double.predict(drug=name)


def test_control_cells_of_either_name_go_to_predict(double):
    adata = double.adata
    cells = adata[adata.obs["drug"].isin(CONTROLS)].copy()
    pred = double.predict(cells, drug="drug-001", dose=1.0)
    assert set(pred.obs["source_cell"]) == set(cells.obs_names)
    with pytest.raises(ValueError, match=r"Pass adata\[adata.obs\['drug'\].isin\(\['DMSO', 'untreated'\]\)\]"):
        double.predict(adata, drug="drug-001")


def test_no_empty_subset_is_advised(single):
    cells = single.adata[:20].copy()
    cells.obs["drug"] = "vehicle"
    with pytest.raises(ValueError, match="If 'vehicle' are controls, call them 'DMSO' or drop this column"):
        single.predict(cells, drug="drug-001")


def test_every_name_has_a_group_of_zeros(double, tmp_path):
    """scanpy's plots need a group for every category of the column."""
    adata = double.adata.copy()
    double.annotate(adata)
    control = adata.obs["drug"].isin(CONTROLS).to_numpy()
    assert (adata.obsm["scgim_shift"][control] == 0).all()
    found = adata.uns["scgim_targets"]
    assert set(found["names"].dtype.names) == set(adata.obs["drug"].cat.categories)
    for name in CONTROLS:
        assert (found["scores"][name] == 0).all()
        with pytest.raises(KeyError, match=f"{name!r} is the control"):
            scgim.get.targets_df(adata, drug=name)
    assert not set(scgim.get.targets_df(adata)["drug"]) & set(CONTROLS)
    sc.pl.rank_genes_groups_dotplot(scgim.get.shift_adata(adata), key="scgim_targets", n_genes=2, show=False)
    for kind in ("h5ad", "zarr"):
        path = tmp_path / f"annotated.{kind}"
        getattr(adata, f"write_{kind}")(path)
        again = getattr(ad, f"read_{kind}")(path)
        pd.testing.assert_frame_equal(scgim.get.targets_df(again), scgim.get.targets_df(adata))
        assert list(again.uns["scgim"]["settings"]["control"]) == CONTROLS


def test_saved_and_loaded(double, tmp_path):
    double.save(tmp_path / "model")
    alone = scgim.GIM.load(tmp_path / "model")
    pd.testing.assert_frame_equal(alone.rank_targets(), double.rank_targets())
    with pytest.raises(ValueError, match="'untreated' is the control"):
        alone.predict(drug="untreated")
    bound = scgim.GIM.load(tmp_path / "model", adata=double.adata.copy())
    assert bound.registry_["setup_args"]["control"] == CONTROLS


def test_held_out_conditions(screen, fit, setup_kwargs):
    scores = []
    for adata, control in ((screen(), "DMSO"), (renamed(screen()), CONTROLS)):
        scgim.pp.split(adata, unseen="dose", control=control)
        assert (adata.obs.loc[adata.obs["drug"].isin(CONTROLS), "scgim_split"] == "train").all()
        assert scgim.pp.audit_split(adata, dose_key="dose", control=control).empty
        model = fit(adata, control=control, split_key="scgim_split")
        scores.append(model.evaluate(refit=False))
    pd.testing.assert_frame_equal(*scores)
    short = {"max_epochs": 10, "enable_progress_bar": False}
    folds = scgim.tl.cross_validate(
        renamed(screen()),
        unseen="dose",
        n_splits=2,
        setup_kwargs=setup_kwargs | {"control": CONTROLS},
        train_kwargs=short,
        refit=False,
        distributions=False,
    )
    assert not set(folds["drug"].dropna()) & set(CONTROLS)


def test_features_of_drugs_alone(screen):
    adata = renamed(screen())
    adata.obs["smiles"] = ["" if drug in CONTROLS else SMILES[int(drug[-1])] for drug in adata.obs["drug"]]
    audit = scgim.pp.featurize_drugs(adata, control=CONTROLS)
    assert not set(audit.index) & set(CONTROLS)
    table = adata.uns["drug_features"]
    adata.uns["drug_features"] = pd.concat([table, pd.DataFrame(1.0, CONTROLS, table.columns)])
    scgim.setup_anndata(adata, drug_key="drug", control=CONTROLS, scale="continuous", features_key="drug_features")
    assert not set(scgim.GIM(adata).drug_table_.frame.index) & set(CONTROLS)


def test_refusals(screen, setup_kwargs):
    with pytest.raises(ValueError, match="No cell equals control='vehicle'"):
        scgim.setup_anndata(screen(), **(setup_kwargs | {"control": ["DMSO", "vehicle"]}))
    with pytest.raises(ValueError, match="control is empty"):
        scgim.setup_anndata(screen(), **(setup_kwargs | {"control": []}))
    adata = renamed(screen())
    adata.obs["dose"] = adata.obs["dose"].fillna(1.0)
    adata.uns["drug_features"].loc["untreated"] = 0.0
    with pytest.warns(UserWarning, match=r"'untreated', which count as drugs.*pass control=\['DMSO', 'untreated'\]"):
        scgim.setup_anndata(adata, **setup_kwargs)
