from __future__ import annotations

import numpy as np
import pytest

import scgim
from scgim.train._graph_choice import choose_graph

COLUMNS = {"drug_key": "drug", "control": "DMSO", "scale": "continuous", "features_key": "drug_features"}


def test_a_graph_that_harms_held_out_conditions_is_left_out():
    rng = np.random.default_rng(0)
    change, drug = rng.normal(size=(60, 8)), np.repeat(np.arange(20), 3)
    near, far = (change + sd * rng.normal(size=change.shape) for sd in (0.3, 0.6))
    assert choose_graph(change, near, far, drug, rows=1000).use
    harmful = choose_graph(change, far, near, drug, rows=1000)
    assert not harmful.use
    assert "does harm" in harmful.reason
    assert harmful.with_graph > harmful.without > 0
    # no difference is no harm
    assert choose_graph(change, near, near, drug, rows=1000).use


def test_fewer_rows_than_genes_determine_no_graph():
    change = np.zeros((4, 30))
    choice = choose_graph(change, None, None, np.arange(4), rows=29)
    assert not choice.use
    assert "29 rows for 30 genes" in choice.reason
    assert choose_graph(change, None, None, np.arange(4), rows=30).use


@pytest.fixture(scope="module")
def few_rows():
    """Fewer wells than genes."""
    adata = scgim.datasets.simulate_screen(
        n_genes=120, n_drugs=12, n_cells=3, n_control=60, doses=(1.0,), n_new_drugs=2, seed=0
    )
    scgim.setup_anndata(adata, **COLUMNS)
    model = scgim.GIM(adata)
    model.train(max_epochs=20, enable_progress_bar=False)
    return adata, model


def test_predictions_are_then_made_without_and_the_ranking_still_shows_the_graph(few_rows, tmp_path):
    adata, model = few_rows
    assert not model.graph_choice_.use
    assert "without it" in repr(model)
    assert len(model.get_graph()) > 0
    drug = model.drugs[0]
    said = model.predict(drug=drug, as_="delta", evidence="features")
    bare = scgim.GIM(adata, structure="none", generator=model.generator_)
    bare.train(max_epochs=20, enable_progress_bar=False)
    np.testing.assert_array_equal(said.X, bare.predict(drug=drug, as_="delta", evidence="features").X)
    np.testing.assert_array_equal(model.predict(drug=drug, as_="delta").X, bare.predict(drug=drug, as_="delta").X)
    model.save(tmp_path / "model")
    again = scgim.GIM.load(tmp_path / "model")
    assert again.graph_choice_[:2] == model.graph_choice_[:2]
    np.testing.assert_array_equal(again.predict(drug=drug, as_="delta", evidence="features").X, said.X)
    model.annotate()
    assert adata.uns["scgim"]["graph_choice"]["use"] is False


def test_a_graph_that_was_asked_for_is_used():
    adata = scgim.datasets.simulate_screen(n_genes=6, n_drugs=10, doses=(1.0,), n_new_drugs=2)
    scgim.setup_anndata(adata, **COLUMNS)
    model = scgim.GIM(adata, structure="search")
    model.train(max_epochs=20, enable_progress_bar=False)
    assert model.graph_choice_ is None
    assert model.plain_ is None


def test_the_model_without_a_graph_leaves_out_the_same_contexts():
    adata = scgim.datasets.simulate_screen(
        n_genes=40, n_drugs=15, n_cells=1, n_control=20, doses=(1.0,), n_new_drugs=2, seed=0
    )
    scgim.setup_anndata(adata, **COLUMNS)
    model = scgim.GIM(adata)
    model.train(max_epochs=20, train_size=0.6, enable_progress_bar=False)
    assert model.plain_ is not None
    assert len(model.summary_.responses["0"]["drug"]) <= len(model.summary_.design.drug) == 9
    said = model.predict(drug=list(model.summary_.design.drugs), as_="delta", evidence="data").X
    control = (adata.obs["drug"] == "DMSO").to_numpy()
    own = [
        adata.X[(adata.obs["drug"] == drug).to_numpy()].mean(0) - adata.X[control].mean(0)
        for drug in model.summary_.design.drugs
    ]
    r = np.corrcoef(np.vstack([said, own]))[:9, 9:]
    assert (r.argmax(1) == np.arange(9)).all()


def test_the_graph_is_judged_with_the_mean_of_drugs_as_well():
    adata = scgim.datasets.simulate_screen(n_genes=6, n_drugs=10, doses=(1.0,), n_new_drugs=2)
    scgim.setup_anndata(adata, **COLUMNS)
    model = scgim.GIM(adata, generator="mean")
    model.train(max_epochs=20, enable_progress_bar=False)
    assert "squared error" in model.graph_choice_.reason
    assert model.graph_choice_.with_graph > 0


def test_a_model_that_was_interrupted_after_its_training_gives_no_answers(monkeypatch):
    adata = scgim.datasets.simulate_screen(n_genes=6, n_drugs=10, doses=(1.0,), n_new_drugs=2)
    scgim.setup_anndata(adata, **COLUMNS)
    model = scgim.GIM(adata)

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("scgim.model._training_mixin.average", interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.train(max_epochs=20, enable_progress_bar=False)
    with pytest.raises(RuntimeError, match="train"):
        model.predict(as_="mean")


def test_a_graph_of_counts_is_used():
    adata = scgim.datasets.simulate_screen(
        n_genes=8, n_drugs=12, doses=(1.0,), n_new_drugs=2, observation="counts", depth=3, seed=0
    )
    columns = {"features_key": "drug_features", "size_factor_key": "n_counts"}
    scgim.setup_anndata(adata, drug_key="drug", control="DMSO", scale="counts", **columns)
    model = scgim.GIM(adata)
    model.train(max_epochs=20, enable_progress_bar=False)
    assert model.graph_choice_.use
    assert model.plain_ is None
