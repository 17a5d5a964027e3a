"""Readout genes from set-up to annotation."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata.tests.helpers import assert_equal

import scgim
from scgim.pp import check

N_READOUT, CONSTANT = 16, "R03"
KEYS = {"drug_key": "drug", "control": "DMSO", "scale": "continuous", "dose_key": "dose", "dose_unit": "uM"}


def extended(adata: ad.AnnData, seed: int = 0) -> pd.DataFrame:
    """Readout genes that follow the panel, one constant; the first drug moves the first one directly."""
    rng = np.random.default_rng(seed)
    slopes = rng.normal(size=(adata.n_vars, N_READOUT)) * (rng.random((adata.n_vars, N_READOUT)) < 0.4)
    values = np.asarray(adata.X, float) @ slopes + rng.normal(size=(adata.n_obs, N_READOUT))
    values[:, 0] += 3 * (adata.obs["drug"] == "drug-001")
    frame = pd.DataFrame(values, adata.obs_names, [f"R{i:02}" for i in range(N_READOUT)])
    frame[CONSTANT] = 4.0
    return frame


def in_var(adata: ad.AnnData) -> ad.AnnData:
    """Panel and readout in one matrix, mixed."""
    frame = extended(adata)
    names = np.concatenate([adata.var_names, frame.columns])
    order = np.random.default_rng(1).permutation(len(names))
    x = np.hstack([np.asarray(adata.X, float), frame.to_numpy()])[:, order]
    wide = ad.AnnData(x, obs=adata.obs.copy(), var=pd.DataFrame(index=names[order]), uns=dict(adata.uns))
    wide.var["leaf"] = wide.var_names.str.startswith("R")
    return wide


def in_obsm(adata: ad.AnnData) -> ad.AnnData:
    adata = adata.copy()
    adata.X = np.asarray(adata.X, float)
    adata.obsm["rest"] = extended(adata)
    return adata


@pytest.fixture(scope="module")
def wide(screen):
    return in_var(screen())


@pytest.fixture(scope="module")
def trained(wide, fit):
    return fit(wide, readout="leaf")


@pytest.fixture(scope="module")
def panel_alone(screen, fit):
    adata = screen()
    adata.X = np.asarray(adata.X, float)
    return fit(adata)


def test_predictions_cover_all_genes_in_the_order_of_the_anndata(trained, wide):
    for as_ in ("cells", "samples", "mean", "delta"):
        pred = trained.predict(drug="drug-001", dose=1.0, as_=as_)
        assert pred.var_names.equals(wide.var_names)
        assert pred.layers["control"].shape == pred.shape
        assert np.isfinite(pred.X).all()
    panel = trained.predict(drug="drug-001", dose=1.0, genes="panel")
    assert panel.var_names.tolist() == wide.var_names[~wide.var["leaf"]].tolist()
    with pytest.raises(ValueError, match="genes='readout'"):
        trained.predict(genes="readout")


def test_the_panel_is_predicted_as_without_a_readout(trained, panel_alone):
    expected = panel_alone.predict(as_="delta")
    for genes in ("all", "panel"):
        found = trained.predict(as_="delta", genes=genes)[:, expected.var_names]
        np.testing.assert_allclose(found.X, expected.X, atol=1e-4)
    assert set(trained.rank_targets()["gene"]) == set(expected.var_names)
    pd.testing.assert_frame_equal(trained.get_graph(), panel_alone.get_graph(), rtol=1e-4)


def test_both_forms_of_a_readout_are_one(trained, screen, fit):
    other = fit(in_obsm(screen()), readout="rest")
    assert other.predict(as_="mean").var_names.tolist()[-1] == f"R{N_READOUT - 1:02}"
    for as_ in ("cells", "samples", "delta"):
        one, two = (m.predict(drug="drug-001", as_=as_) for m in (trained, other))
        np.testing.assert_allclose(one[:, two.var_names].X, two.X, atol=1e-4)


def test_a_readout_gene_is_control_plus_slopes_times_the_panel_plus_its_own_change(trained, wide):
    found = trained.summary_.readout
    names, panel = found["genes"], trained.summary_.genes
    unit, scale, slopes = trained.summary_.scale, found["scale"], found["model"]["slopes"]
    control = np.asarray(wide[(wide.obs["drug"] == "DMSO").to_numpy(), names].X).mean(0)
    new = trained.predict(drug=trained.drugs, as_="mean", evidence="features")
    change = (new[:, panel].X - new[:, panel].layers["control"]) / unit
    np.testing.assert_allclose(new[:, names].X, control + change @ slopes * scale, atol=1e-4)
    np.testing.assert_allclose(
        new[:, names].layers["control"], np.broadcast_to(control, (len(new), N_READOUT)), atol=1e-4
    )
    measured = trained.predict(as_="mean", evidence="data")
    own = (
        measured[:, names].X
        - control
        - (measured[:, panel].X - measured[:, panel].layers["control"]) / unit @ slopes * scale
    )
    first = (measured.obs["drug"] == "drug-001").to_numpy()
    assert own[first, 0].min() > 1.5
    assert np.abs(own[~first, 0]).max() < 1.0


def test_cells_keep_their_noise_and_no_intervention_changes_nothing(trained, wide):
    gene = trained.summary_.genes[0]
    still = trained.do({gene: 0.0})
    control = wide[still.obs["source_cell"].to_numpy(str)]
    np.testing.assert_allclose(still.X, control[:, still.var_names].X, atol=1e-4)
    cells = trained.predict(drug="drug-002", dose=1.0, as_="cells")
    delta = trained.predict(drug="drug-002", dose=1.0, as_="delta")
    np.testing.assert_allclose((cells.X - cells.layers["control"]).mean(0), delta.X[0], atol=1e-3)
    assert (cells[:, CONSTANT].X == 4).all()
    samples = trained.predict(drug="drug-002", dose=1.0, as_="samples", n_cells=2000)
    np.testing.assert_allclose(samples.X.std(0), cells.X.std(0), rtol=0.25, atol=0.05)


def test_combinations_add_own_changes(trained):
    pair = trained.predict(drug=[("drug-001", "drug-002")], dose=[(1.0, 1.0)], as_="delta")
    alone = trained.predict(drug=["drug-001", "drug-002"], dose=1.0, as_="delta")
    np.testing.assert_allclose(pair.layers["additive"][0], alone.X.sum(0), atol=1e-4)


def test_a_saved_model_predicts_the_same_bits(trained, wide, tmp_path):
    trained.save(tmp_path)
    for again in (scgim.GIM.load(tmp_path), scgim.GIM.load(tmp_path, adata=wide.copy())):
        for as_ in ("cells", "samples", "delta"):
            one, two = (m.predict(drug="drug-001", as_=as_) for m in (trained, again))
            np.testing.assert_array_equal(one.X, two.X)
    assert "6 genes and 16 readout genes" in repr(again)
    lacking = wide.copy()
    lacking.var["leaf"] = lacking.var["leaf"] & (lacking.var_names != CONSTANT)
    with pytest.raises(ValueError, match=f"1 new: '{CONSTANT}'"):
        scgim.GIM.load(tmp_path, adata=lacking)


@pytest.mark.parametrize("genes", ["all", "panel"])
@pytest.mark.parametrize("form", [in_var, in_obsm])
def test_annotate_and_shift_adata_cover_all_genes(screen, fit, form, genes, tmp_path):
    adata = form(screen())
    key = "leaf" if form is in_var else "rest"
    model = fit(adata, readout=key)
    model.annotate(genes=genes)
    shift = scgim.get.shift_adata(adata)
    pred = model.predict(as_="delta", genes=genes)
    assert shift.var_names.equals(pred.var_names)
    one = pred[0]
    cells = ((adata.obs["drug"] == one.obs["drug"].iloc[0]) & (adata.obs["dose"] == one.obs["dose"].iloc[0])).to_numpy()
    np.testing.assert_allclose(shift.X[cells], np.broadcast_to(one.X, (cells.sum(), one.n_vars)), atol=1e-6)
    edges = scgim.get.graph_df(adata)[["source", "target"]].sort_values(["source", "target"]).to_numpy()
    found = model.get_graph()[["source", "target"]].sort_values(["source", "target"]).to_numpy()
    np.testing.assert_array_equal(edges, found)
    adata.write_h5ad(tmp_path / "a.h5ad")
    assert_equal(ad.read_h5ad(tmp_path / "a.h5ad").obsm["scgim_shift"], adata.obsm["scgim_shift"])


def test_users_controls_bring_readout_genes_or_do_without(trained, wide):
    controls = wide[(wide.obs["drug"] == "DMSO").to_numpy()].copy()
    given, own = trained.predict(controls, drug="drug-001", dose=1.0), trained.predict(drug="drug-001", dose=1.0)
    np.testing.assert_allclose(given.X, own.X, atol=1e-4)
    panel = controls[:, ~controls.var["leaf"]].copy()
    np.testing.assert_allclose(
        trained.predict(panel, drug="drug-001", dose=1.0, genes="panel").X, own[:, panel.var_names].X, atol=1e-4
    )
    with pytest.raises(ValueError, match="missing 'R00'"):
        trained.predict(panel, drug="drug-001", dose=1.0)
    with pytest.warns(UserWarning, match="1 genes are missing"):
        lacking = trained.predict(controls[:, controls.var_names != "R05"].copy(), drug="drug-001", dose=1.0)
    np.testing.assert_allclose(lacking[:, "R05"].layers["control"].std(), 0, atol=1e-6)
    others = [name for name in own.var_names if name != "R05"]
    np.testing.assert_allclose(lacking[:, others].X, own[:, others].X, atol=1e-4)


def test_size_factors_of_counts_are_sums_over_panel_and_readout(screen, fit):
    rng = np.random.default_rng(0)
    adata = screen()
    counts = rng.poisson(np.exp(1 + 0.3 * (np.asarray(adata.X, float) - np.asarray(adata.X, float).mean(0))))
    wide = ad.AnnData(
        np.hstack([counts, rng.poisson(2.0, size=(adata.n_obs, 1200))]).astype(np.float32),
        obs=adata.obs.copy(),
        uns=dict(adata.uns),
    )
    wide.var["leaf"] = np.arange(wide.n_vars) >= adata.n_vars
    model = fit(wide, readout="leaf", scale="counts")
    pred = model.predict(drug="drug-001", dose=1.0, n_cells=5)
    x = wide[pred.obs["source_cell"].to_numpy(str)].X
    np.testing.assert_allclose(pred.layers["control"], np.log1p(1e4 * x / x.sum(1, keepdims=True)), rtol=1e-4)


@pytest.mark.slow
def test_evaluation_and_cross_validation_score_the_panel(screen, fit):
    adata = in_var(screen())
    scgim.pp.split(adata, control="DMSO")
    model = fit(adata, readout="leaf", split_key="scgim_split")
    assert len(model.evaluate(refit=True, distributions=False))
    options = {"n_splits": 2, "refit": False, "distributions": False, "model_kwargs": {"generator": "hill"}}
    training = {"max_epochs": 5, "enable_progress_bar": False}
    assert len(scgim.tl.cross_validate(adata, **options, train_kwargs=training))


def test_evaluators_of_other_packages_find_their_layout(trained, wide):
    # cell-eval and pertpy take cells with a column of perturbations, controls among them, and the same genes in X.
    predicted = trained.predict(drug=trained.drugs[:3], dose=1.0, n_cells=20)
    controls = wide[(wide.obs["drug"] == "DMSO").to_numpy()]
    joined = ad.concat([controls, predicted], index_unique="-")
    real = wide[wide.obs["drug"].isin(joined.obs["drug"]).to_numpy()]
    assert joined.var_names.equals(real.var_names)
    assert set(joined.obs["drug"]) == set(real.obs["drug"]) == {"DMSO", *trained.drugs[:3]}
    assert isinstance(joined.X, np.ndarray)


def test_check_tells_panel_and_readout_apart(wide, screen):
    sheet = check(wide, control="DMSO", scale="continuous", readout="leaf").set_index("check")
    assert sheet["status"]["genes"] == "PASS"
    assert "16 readout genes are regressed on 6 genes of the panel; 1 are constant" in sheet["finding"]["readout"]
    assert "16 readout genes" in sheet["finding"]["resources"]
    adata = in_obsm(screen())
    sheet = check(adata, control="DMSO", scale="continuous", readout="rest").set_index("check")
    assert "1 are constant" in sheet["finding"]["readout"]
    adata.obsm["rest"].iloc[3, 1] = np.nan
    sheet = check(adata, control="DMSO", scale="continuous", readout="rest").set_index("check")
    assert "R01" in sheet["finding"]["scale"]
    adata.obsm["rest"] = adata.obsm["rest"].to_numpy()
    sheet = check(adata, control="DMSO", scale="continuous", readout="rest").set_index("check")
    assert sheet["status"]["readout"] == "FAIL"
    with pytest.raises(KeyError, match="'leaf'"):
        check(wide, control="DMSO", scale="continuous", readout="leafs")


def test_set_up_refuses_a_wrong_readout(wide, setup_kwargs):
    with pytest.raises(KeyError, match="Nearest: 'leaf'"):
        scgim.setup_anndata(wide.copy(), **setup_kwargs, readout="leafs")
