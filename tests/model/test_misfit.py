from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import scgim


def chain(seed: int) -> ad.AnnData:
    """A screen of eight genes in a chain; one target a drug, known by name."""
    rng, d, drugs, cells = np.random.default_rng(seed), 8, 24, 80
    weight = np.diag(np.full(d - 1, 0.8), 1)
    total = np.linalg.inv(np.eye(d) - weight)
    target, size = np.arange(drugs) % d, rng.choice([-1, 1], drugs) * rng.uniform(1.5, 3, drugs)
    drug = np.repeat(np.arange(-1, drugs), [800] + [cells] * drugs)
    shift = np.zeros((len(drug), d))
    treated = drug >= 0
    shift[np.flatnonzero(treated), target[drug[treated]]] = size[drug[treated]]
    x = (shift + rng.normal(size=shift.shape)) @ total
    names = np.array(["DMSO", *(f"drug-{i:02d}" for i in range(drugs))])
    adata = ad.AnnData(
        x.astype(np.float32), pd.DataFrame({"drug": names[drug + 1]}, index=np.arange(len(drug)).astype(str))
    )
    adata.var_names = [f"G{i}" for i in range(d)]
    adata.uns["target"] = dict(zip(names[1:], adata.var_names[target], strict=True))
    return adata


def fitted(adata, **options) -> scgim.GIM:
    scgim.setup_anndata(adata, drug_key="drug", control="DMSO", scale="continuous")
    model = scgim.GIM(adata, **options)
    model.train(enable_progress_bar=False)
    return model


def false_calls(model: scgim.GIM, adata) -> tuple[float, float]:
    """False calls a condition and the share of targets that is found."""
    calls = model.rank_targets().astype({"drug": str})
    calls = calls[calls["probability"] > 0.5]
    true = calls["gene"] == calls["drug"].map(adata.uns["target"])
    return float((~true).sum() / len(model.drugs)), float(true.sum() / len(model.drugs))


@pytest.mark.parametrize("seed", range(2))
def test_a_right_graph_has_no_misfit_and_every_target(seed):
    adata = chain(seed)
    model = fitted(adata)
    assert model.module.misfit.max() < 0.3
    false, found = false_calls(model, adata)
    assert false < 0.1
    assert found > 0.95


@pytest.fixture(scope="module")
def small():
    adata = chain(0)
    return adata, fitted(adata)


def test_the_default_and_what_was_asked_are_remembered(small):
    adata, model = small
    assert model.settings_["min_effect"] is None
    assert model.module.min_effect.item() == model.calibration_["min_effect"] > 0
    asked = fitted(adata, min_effect=0.7)
    assert asked.module.min_effect.item() == asked.settings_["min_effect"] == 0.7
    asked.annotate()
    assert adata.uns["scgim"]["settings"]["min_effect"] == 0.7
    likely = asked.rank_targets().query("probability > .5")
    assert (likely["effect"].abs() > 0.7).all()


def test_a_loaded_model_says_the_same(small, tmp_path):
    _, model = small
    model.save(tmp_path / "m")
    pd.testing.assert_frame_equal(scgim.GIM.load(tmp_path / "m").rank_targets(), model.rank_targets())


def test_units_do_not_matter(small):
    adata, model = small
    other = adata.copy()
    other.X = other.X * np.float32(8.0)
    a, b = (each.rank_targets().set_index(["drug", "gene"])["probability"] for each in (model, fitted(other)))
    np.testing.assert_allclose(b.loc[a.index], a, atol=1e-6)


@pytest.mark.parametrize("value", [-0.1, np.nan, np.inf, "much", True, [0.1]])
def test_what_is_no_effect_is_refused(small, value):
    with pytest.raises(ValueError, match="min_effect="):
        scgim.GIM(small[0], min_effect=value)
