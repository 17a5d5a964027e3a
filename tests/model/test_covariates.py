"""Covariates are regressed out of every gene, exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

import scgim
from scgim.pp import check

if TYPE_CHECKING:
    import anndata as ad

KEYS = ["phase", "donor"]


def with_covariates(adata: ad.AnnData, size: float = 0.0, seed: int = 0) -> ad.AnnData:
    """A screen with two covariates, to whose genes ``size`` x random linear functions of the covariates are added."""
    rng, n = np.random.default_rng(seed), adata.n_obs
    adata.obs["phase"], adata.obs["donor"] = rng.normal(size=n), np.array(["a", "b", "c"])[rng.integers(3, size=n)]
    one_hot = pd.get_dummies(adata.obs["donor"]).to_numpy(float)
    c = np.column_stack([adata.obs["phase"], one_hot])
    adata.X = np.asarray(adata.X, float) + size * c @ rng.normal(size=(4, adata.n_vars))
    return adata


def residuals(adata: ad.AnnData) -> np.ndarray:
    """The definition: every gene less its slopes on the covariates, estimated in controls within line and batch."""
    obs = adata.obs
    control = (obs["drug"] == "DMSO").to_numpy()
    places = [obs[key].astype(str) for key in ("line", "plate") if key in obs]
    group = pd.factorize(
        pd.Series(["+".join(each) for each in zip(*places, strict=True)] if places else [""] * len(obs))
    )[0]
    c = np.column_stack([obs["phase"], pd.get_dummies(obs["donor"]).to_numpy(float)[:, 1:]])
    x = np.asarray(adata.X, float)
    around = np.zeros_like(c)
    centered = np.zeros_like(x)
    for k in np.unique(group):
        own = control & (group == k)
        around[group == k] = c[group == k] - c[own].mean(0)
        centered[group == k] = x[group == k] - x[own].mean(0)
    slopes = np.linalg.lstsq(around[control], centered[control], rcond=None)[0]
    return x - around @ slopes


def answers(model: scgim.GIM) -> dict[str, np.ndarray]:
    delta = model.predict(as_="delta")
    table = model.rank_targets()
    return {
        "change": delta.X,
        "mean": model.predict(as_="mean").X - model.predict(as_="mean").layers["control"],
        "targets": table[["probability", "effect", "score", "change"]].to_numpy(),
        "genes": table["gene"].to_numpy(str),
        "edges": model.get_graph()[["weight", "strength"]].to_numpy(),
        "ends": model.get_graph()[["source", "target"]].to_numpy(str),
    }


def assert_equal_answers(one: scgim.GIM, other: scgim.GIM, atol: float = 1e-6) -> None:
    found, expected = answers(one), answers(other)
    for name, values in expected.items():
        if values.dtype.kind == "U":
            np.testing.assert_array_equal(found[name], values, err_msg=name)
        else:
            np.testing.assert_allclose(found[name], values, atol=atol, err_msg=name)


@pytest.mark.parametrize(
    "places", [{}, {"cell_line_key": "line", "batch_key": "plate"}], ids=["one", "lines and batches"]
)
def test_linear_functions_of_covariates_change_nothing(screen, in_lines, fit, places):
    build = (lambda: in_lines(1.0)) if places else screen
    plain = fit(with_covariates(build()), covariate_keys=KEYS, **places)
    moved = fit(with_covariates(build(), size=1.0), covariate_keys=KEYS, **places)
    assert_equal_answers(moved, plain)


def test_the_result_is_that_of_residuals(in_lines, fit):
    places = {"cell_line_key": "line", "batch_key": "plate"}
    adata = with_covariates(in_lines(1.0), size=0.7)
    by_hand = adata.copy()
    by_hand.X = residuals(adata)
    assert_equal_answers(fit(adata, covariate_keys=KEYS, **places), fit(by_hand, **places))


def test_a_readout_is_regressed_on_covariates_too(screen, fit):
    def build(size: float) -> ad.AnnData:
        adata = screen()
        frame = pd.DataFrame(
            np.asarray(adata.X, float) @ np.random.default_rng(5).normal(size=(adata.n_vars, 4)), adata.obs_names
        )
        frame = frame.set_axis([f"R{i}" for i in range(4)], axis=1) + np.random.default_rng(6).normal(
            size=(adata.n_obs, 4)
        )
        adata = with_covariates(adata, size)
        adata.obsm["rest"] = frame.add(size * adata.obs["phase"], axis=0)
        return adata

    plain, moved = (fit(build(size), covariate_keys=KEYS, readout="rest") for size in (0.0, 1.0))
    np.testing.assert_allclose(moved.predict(as_="delta").X, plain.predict(as_="delta").X, atol=1e-5)


@pytest.mark.parametrize(
    "options", [{"gim": {"mechanism": "network"}}, {"gim": {"likelihood": "means"}}], ids=["network", "means"]
)
def test_other_models_see_residuals_too(screen, fit, options):
    plain = fit(with_covariates(screen()), covariate_keys=KEYS, train={"max_epochs": 5}, **options)
    moved = fit(with_covariates(screen(), size=1.0), covariate_keys=KEYS, train={"max_epochs": 5}, **options)
    np.testing.assert_allclose(moved.predict(as_="delta").X, plain.predict(as_="delta").X, atol=1e-3)


def test_cells_are_predicted_at_their_own_covariates(screen, fit):
    adata = with_covariates(screen(), size=2.0)
    model = fit(adata, covariate_keys=KEYS)
    still = model.do({adata.var_names[0]: 0.0})
    source = adata[still.obs["source_cell"].to_numpy(str)]
    np.testing.assert_allclose(still.X, source[:, still.var_names].X, atol=1e-5)
    controls = adata[(adata.obs["drug"] == "DMSO").to_numpy()].copy()
    for as_ in ("cells", "delta"):
        own, given = model.predict(drug="drug-001", as_=as_), model.predict(controls, drug="drug-001", as_=as_)
        np.testing.assert_allclose(given.X, own.X, atol=1e-4)
    del controls.obs["donor"]
    with pytest.raises(KeyError, match="'donor'"):
        model.predict(controls, drug="drug-001")


def test_a_saved_model_keeps_covariates(screen, fit, tmp_path):
    adata = with_covariates(screen(), size=1.0)
    model = fit(adata, covariate_keys=KEYS)
    model.save(tmp_path)
    for again in (scgim.GIM.load(tmp_path), scgim.GIM.load(tmp_path, adata=adata.copy())):
        for as_ in ("cells", "samples", "delta"):
            one, two = (m.predict(drug="drug-001", as_=as_) for m in (model, again))
            np.testing.assert_array_equal(one.X, two.X)
    again.annotate()
    again.adata.write_h5ad(tmp_path / "a.h5ad")
    assert again.adata.uns["scgim"]["settings"]["covariate_keys"].tolist() == KEYS


def test_evaluation_scores_residuals(screen, fit):
    def scores(size: float) -> pd.DataFrame:
        adata = with_covariates(screen(), size)
        scgim.pp.split(adata, control="DMSO")
        model = fit(adata, covariate_keys=KEYS, split_key="scgim_split")
        return model.evaluate(refit=False)

    plain, moved = scores(0.0), scores(1.0)
    for name in ("rmse", "pearson", "energy"):
        np.testing.assert_allclose(moved[name], plain[name], atol=1e-4, err_msg=name)


def test_counts_are_adjusted_on_the_log_scale_and_means_of_counts_refuse(screen, setup_kwargs, fit):
    rng = np.random.default_rng(0)
    adata = with_covariates(screen())
    z = np.asarray(adata.X)
    adata.X = rng.poisson(np.exp(2 + 0.2 * (z - z.mean(0)) + 0.3 * adata.obs["phase"].to_numpy()[:, None])).astype(
        float
    )
    adata.obs["size"] = 1000.0
    counts = {"scale": "counts", "size_factor_key": "size"}
    scgim.setup_anndata(adata, **(setup_kwargs | counts), covariate_keys=KEYS)
    with pytest.raises(ValueError, match="likelihood='cells'.*scale='lognorm'"):
        scgim.GIM(adata)
    cells = {"gim": {"likelihood": "cells"}}
    by_hand = adata.copy()
    by_hand.X = np.log1p(1e4 * adata.X / 1000)
    by_hand.X = residuals(by_hand)
    assert_equal_answers(fit(adata, covariate_keys=KEYS, **counts, **cells), fit(by_hand, **cells), atol=5e-3)


def test_set_up_warns_of_covariates_that_differ_between_drugs(screen, setup_kwargs):
    adata = with_covariates(screen())
    adata.obs.loc[adata.obs["drug"] == "drug-003", "phase"] += 4
    with pytest.warns(UserWarning, match="'phase' is confounded with drugs.*'drug-003'"):
        scgim.setup_anndata(adata, **setup_kwargs, covariate_keys=KEYS)
    sheet = check(adata, control="DMSO", scale="continuous", covariate_keys=KEYS).set_index("check")
    assert sheet["status"]["covariates"] == "WARN"
    assert "'drug-003'" in sheet["finding"]["covariates"]


def test_check_knows_covariates(screen):
    adata = with_covariates(screen())
    sheet = check(adata, control="DMSO", scale="continuous", covariate_keys=KEYS).set_index("check")
    assert sheet.loc["covariates"].tolist() == [
        "PASS",
        "3 columns of covariates, 'phase', 'donor=b', 'donor=c', are regressed out.",
        "",
    ]
    adata.obs["phase"] = 1.0
    sheet = check(adata, control="DMSO", scale="continuous", covariate_keys=KEYS).set_index("check")
    assert sheet["status"]["covariates"] == "FAIL"
    assert "constant" in sheet["finding"]["covariates"]
    with pytest.raises(KeyError, match="'donor'"):
        check(adata, control="DMSO", scale="continuous", covariate_keys=["donors"])


def test_on_dask_nothing_differs(screen, fit):
    array = pytest.importorskip("dask.array")
    adata = with_covariates(screen(), size=1.0)
    adata.var["leaf"] = np.arange(adata.n_vars) >= 4
    lazy = adata.copy()
    lazy.X = array.from_array(adata.X, chunks=(100, -1))
    options = {"covariate_keys": KEYS, "readout": "leaf"}
    np.testing.assert_allclose(
        fit(lazy, **options).predict(as_="delta").X, fit(adata, **options).predict(as_="delta").X, atol=1e-5
    )
