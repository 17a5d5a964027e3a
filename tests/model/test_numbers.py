"""Data at the edge of what numbers can show: copies and sums of genes, and hardly any controls."""

from __future__ import annotations

import warnings
from contextlib import nullcontext

import numpy as np
import pytest

import scgim
from scgim.module.mechanisms import NOISE_FLOOR

SCREEN = {"n_genes": 10, "n_drugs": 12, "n_cells": 30, "n_control": 300, "n_new_drugs": 2, "seed": 3}


def copied(x):
    x[:, 9] = x[:, 0]


def summed(x):
    x[:, 8] = x[:, 1] + x[:, 2]


@pytest.mark.parametrize("change", [copied, summed])
@pytest.mark.parametrize("intervention", ["shift", "hard"])
def test_copies_and_sums_of_genes_hide_no_effect(change, intervention, screen, fit):
    """As large as without them; a deviation of a copy from its source by rounding once outweighed all effects."""
    effect, called = {}, {}
    for kind in ("as it is", "changed"):
        adata = screen(**SCREEN)
        if kind == "changed":
            change(adata.X)
        word = pytest.warns(UserWarning, match="determined by others up to 3%.*cannot be distinguished")
        with word if kind == "changed" else nullcontext():
            model = fit(adata, gim={"intervention": intervention}, train={"max_epochs": 40})
        effect[kind] = np.abs(model.predict(as_="delta", evidence="features").X / model.summary_.scale).max()
        called[kind] = (model.rank_targets()["probability"] > 0.5).mean()
    assert float(model.module.mechanism.variance.min()) == pytest.approx(NOISE_FLOOR)
    assert effect["changed"] > 0.8 * effect["as it is"]
    assert called["changed"] > 0.6 * called["as it is"]


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize("unit", ["cell", "well"])
def test_hardly_any_controls_are_warned_of(n, unit, screen, setup_kwargs):
    adata = screen()
    control = np.flatnonzero(adata.obs["drug"] == "DMSO")
    adata = adata[np.setdiff1d(np.arange(adata.n_obs), control[n:])].copy()
    few = n < {"cell": 4, "well": 2}[unit]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scgim.setup_anndata(adata, unit=unit, **setup_kwargs)
    found = [str(each.message) for each in caught if "control" in str(each.message)]
    assert len(found) == few
    if few:
        assert found[0].startswith(f"Only {n} control {unit}{'s' if n > 1 else ''} ('DMSO').")


@pytest.mark.filterwarnings("ignore:Sizes for scale='counts' are row sums")
def test_no_value_of_counts_is_negative(screen, fit):
    """Far beyond the measured doses, and in changes as in values."""
    adata = screen(n_genes=20, n_drugs=12, n_cells=30, n_control=300, doses=(0.5, 2.0), observation="counts", seed=6)
    model = fit(adata, scale="counts")
    asked = {"dose": [0.5, 5e4]}
    mean, delta = (model.predict(as_=as_, **asked) for as_ in ("mean", "delta"))
    unbounded = delta.layers["control"].min() > 0 and (mean.X == 0).any()
    assert unbounded  # else the test asks nothing
    np.testing.assert_allclose(delta.X + delta.layers["control"], mean.X, atol=1e-6)
    pair = {"drug": [tuple(model.drugs[:2])], "dose": [(50.0, 50.0)]}
    for as_ in ("cells", "samples", "mean"):
        for found in (
            model.predict(as_=as_, **asked),
            model.predict(as_=as_, **pair),
            model.do({"G0000": -30}, as_=as_),
        ):
            assert found.X.min() >= 0
            assert all(found.layers[name].min() >= 0 for name in found.layers)
    model.annotate()
    assert adata.obsm["scgim_pred"].min() >= -1e-6
