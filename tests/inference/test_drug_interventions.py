from __future__ import annotations

import numpy as np
import pytest

import scgim
from scgim.model import _io

DOSES = (0.5, 1.0, 2.0)


@pytest.fixture(scope="module")
def screen():
    adata = scgim.datasets.simulate_screen(n_genes=6, n_drugs=12, doses=DOSES, n_cells=20, n_new_drugs=3, seed=1)
    columns = {"dose_key": "dose", "dose_unit": "uM", "features_key": "drug_features"}
    scgim.setup_anndata(adata, drug_key="drug", control="DMSO", scale="continuous", **columns)
    return adata


@pytest.fixture(scope="module")
def model(screen):
    model = scgim.GIM(screen, generator="mean")
    model.train(max_epochs=30, enable_progress_bar=False)
    return model


def measured(adata, drug, dose):
    rows = ((adata.obs["drug"] == drug) & (adata.obs["dose"] == dose)).to_numpy()
    return adata.X[rows].mean(0) - adata.X[(adata.obs["drug"] == "DMSO").to_numpy()].mean(0)


def test_measured_drugs_are_answered_from_their_data(model, screen):
    """Under `mean` features say the same of every drug; the data do not."""
    drugs = model.drugs[:3]
    said = model.predict(drug=drugs, dose=1.0, as_="delta", evidence="features").X
    np.testing.assert_allclose(said[1:], said[:1].repeat(2, 0))
    own = model.predict(drug=drugs, dose=1.0, as_="delta")
    assert (own.obs["evidence"] == "data").all()
    truth = np.array([measured(screen, drug, 1.0) for drug in drugs])
    assert np.corrcoef(own.X.ravel(), truth.ravel())[0, 1] > 0.95
    assert np.abs(own.X - truth).mean() < 0.3 * np.abs(said - truth).mean()


def test_obs_says_what_every_row_rests_on(model, screen):
    features = screen.uns["drug_features"].iloc[:1].set_axis(["new"])
    pred = model.predict(drug=model.drugs[0], dose=[1.0, 1.5], as_="delta")
    assert pred.obs["evidence"].tolist() == ["data", "drug"]
    new = model.predict(drug="new", features=features, dose=1.0, as_="delta")
    assert new.obs["evidence"].tolist() == ["features"]
    pair = model.predict(drug=tuple(model.drugs[:2]), dose=(1.0, 1.0), as_="delta")
    assert pair.obs["evidence"].tolist() == ["drug"]
    assert model.do({"gene_00" if "gene_00" in screen.var_names else screen.var_names[0]: 1.0}, as_="delta").obs[
        "evidence"
    ].tolist() == ["do"]


def test_data_are_asked_for_where_there_are_none(model):
    drug = model.drugs[0]
    with pytest.raises(ValueError, match=f"{drug!r} at 1.5 is none"):
        model.predict(drug=drug, dose=1.5, as_="delta", evidence="data")
    with pytest.raises(ValueError, match="evidence"):
        model.predict(drug=drug, dose=1.0, as_="delta", evidence="dat")


def test_cells_samples_mean_and_delta_agree(model):
    asked = {"drug": model.drugs[1], "dose": 2.0}
    delta = model.predict(**asked, as_="delta").X
    mean, cells = (model.predict(**asked, as_=kind) for kind in ("mean", "cells"))
    np.testing.assert_allclose(mean.X - mean.layers["control"], delta, atol=1e-5)
    np.testing.assert_allclose((cells.X - cells.layers["control"]).mean(0, keepdims=True), delta, atol=1e-4)
    samples = model.predict(**asked, as_="samples", n_cells=4000)
    np.testing.assert_allclose((samples.X - samples.layers["control"]).mean(0, keepdims=True), delta, atol=0.1)


def test_doses_between_lie_between_and_dose_zero_does_nothing(model):
    drug = model.drugs[2]
    x = model.predict(drug=drug, dose=[0.0, 1.0, 1.4, 2.0], as_="delta").X
    np.testing.assert_allclose(x[0], 0, atol=1e-6)
    low, high = np.minimum(x[1], x[3]) - 0.2, np.maximum(x[1], x[3]) + 0.2
    assert ((x[2] >= low) & (x[2] <= high)).all()


def test_annotate_writes_either(model, screen):
    model.annotate()
    own = screen.obsm["scgim_shift"].copy()
    model.annotate(evidence="features")
    assert np.abs(own - screen.obsm["scgim_shift"]).max() > 0.5


def test_a_plot_of_one_kind_of_evidence(model):
    pred = model.predict(drug=model.drugs[:2], as_="delta")
    assert scgim.pl.shift(pred, evidence="data", n_genes=3) is not None
    with pytest.raises(ValueError, match="features"):
        scgim.pl.shift(pred, evidence="features")
    assert scgim.pl.dose_response(model, drug=model.drugs[0], evidence="features", n_doses=5) is not None
    assert scgim.pl.dose_response(model, drug=model.drugs[0], n_doses=5) is not None


@pytest.fixture(scope="module")
def few_counts():
    adata = scgim.datasets.simulate_screen(
        n_genes=8, n_drugs=10, doses=(1.0,), n_new_drugs=2, observation="counts", depth=0.3, seed=0
    )
    scgim.setup_anndata(adata, drug_key="drug", control="DMSO", scale="counts", size_factor_key="n_counts")
    model = scgim.GIM(adata)
    model.train(max_epochs=20, enable_progress_bar=False)
    return model


def test_counts_are_never_below_zero(few_counts):
    model = few_counts
    for kind in ("cells", "mean", "samples"):
        assert model.predict(as_=kind, n_cells=None if kind == "mean" else 20).X.min() >= 0
        assert model.do({model.adata.var_names[0]: -9.0}, as_=kind).X.min() >= 0


def test_sampled_targets_keep_the_mean(model):
    asked = {"drug": model.drugs[0], "dose": 1.0}
    delta = model.predict(**asked, as_="delta").X
    for seed in range(2):
        cells = model.predict(**asked, as_="cells", targets="sample", seed=seed)
        moved = cells.X - cells.layers["control"]
        error = moved.std(0) / np.sqrt(len(moved))
        assert (np.abs(moved.mean(0) - delta) < 4 * error + 1e-4).all()


def test_the_sum_of_two_drugs_is_not_below_zero_either(few_counts):
    model = few_counts
    pair = model.predict(drug=[tuple(model.drugs[:2]), tuple(model.drugs[2:4])], as_="cells", n_cells=20)
    assert pair.layers["additive"].min() >= 0


def test_models_of_older_versions_still_answer(model, tmp_path):
    model.save(tmp_path / "model")
    state = _io.read(tmp_path / "model")
    for name in ("graph_choice", "plain", "averaging"):
        state.pop(name)
    for name in ("min_effect", "misfit"):
        state["module"].pop(name)
    _io.write(tmp_path / "model", state, overwrite=True)
    old = scgim.GIM.load(tmp_path / "model")
    assert (old.module.min_effect == 0).all()
    assert (old.module.misfit == 0).all()
    assert np.isfinite(old.predict(as_="mean").X).all()
