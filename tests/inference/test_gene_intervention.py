"""do on graphs learned from means, where the graph may be wrong."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import scgim
from scgim.inference._gene_intervention import regressed_change
from scgim.module import DOUBT


@pytest.fixture(scope="module")
def train():
    adata = scgim.datasets.simulate_screen(
        n_genes=8, n_drugs=10, doses=(1.0,), n_cells=(20, 60), observation="counts", seed=5
    )

    def run(**options: object) -> scgim.GIM:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sizes for scale='counts'")
            scgim.setup_anndata(adata, drug_key="drug", control="DMSO", scale="counts")
        model = scgim.GIM(adata, generator="mean", **options)
        model.train(max_epochs=20, enable_progress_bar=False)
        return model

    return run


@pytest.fixture(scope="module")
def counts(train) -> scgim.GIM:
    return train()


def certain(model: scgim.GIM, monkeypatch: pytest.MonkeyPatch, *args: object, **kwargs: object) -> np.ndarray:
    """What ``do`` predicts if the graphs are taken for certain."""
    with monkeypatch.context() as patch:
        patch.setattr("scgim.inference._gene_intervention.DOUBT", 0.0)
        return model.do(*args, **kwargs).X


def test_the_regression_is_that_of_cells_and_of_the_complete_graph() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 5)) @ rng.normal(size=(5, 5))
    x -= x.mean(0)
    found = regressed_change(x.T @ x, {3: 1.5, 1: -2.0})
    slopes = np.linalg.lstsq(x[:, [3, 1]], x, rcond=None)[0]
    np.testing.assert_allclose(found, np.array([1.5, -2.0]) @ slopes, atol=1e-10)
    order, w = [3, 1, 0, 2, 4], np.zeros((5, 5))  # all edges, the two genes first
    for at, j in enumerate(order):
        w[order[:at], j] = np.linalg.lstsq(x[:, order[:at]], x[:, j], rcond=None)[0]
    w[3, 1] = 0.0  # both are set
    np.testing.assert_allclose(found, np.array([0, -2.0, 0, 1.5, 0]) @ np.linalg.inv(np.eye(5) - w), atol=1e-10)


@pytest.mark.parametrize("kind", ["shift", "set"])
@pytest.mark.parametrize("as_", ["cells", "samples", "delta"])
def test_graphs_learned_from_means_are_doubted(counts, monkeypatch, kind, as_) -> None:
    ask = ({"G0002": -1.5, "G0005": 1.0},), {"kind": kind, "as_": as_, "n_cells": 30}
    summary = counts.summary_
    i, j = np.searchsorted(summary.genes, ["G0002", "G0005"])
    regression = regressed_change(summary.statistics.scatter, {i: -1.5, j: 1.0}) * summary.scale
    own = counts.adata.var_names.isin(["G0002", "G0005"])
    regression = regression[np.searchsorted(summary.genes, counts.adata.var_names)]
    graphs, found = certain(counts, monkeypatch, *ask[0], **ask[1]), counts.do(*ask[0], **ask[1]).X
    moved = certain(counts, monkeypatch, *ask[0], kind=kind, as_="delta")
    expected = graphs + DOUBT * (regression - moved)
    inside = ~own & ((as_ == "delta") | ((found > 0) & (graphs > 0)))  # values below 0 become 0
    np.testing.assert_allclose(found[inside], expected[inside], atol=1e-5)
    np.testing.assert_array_equal(found[:, own], graphs[:, own])
    assert np.abs(found - graphs).max() > 1e-3


def test_what_is_known_of_the_graph_is_not_doubted(train) -> None:
    known = pd.DataFrame({"source": ["G0001"], "target": ["G0002"], "kind": ["required"]})
    model = train(regulators=["G0001", "G0002"], prior_graph=known)
    alone = model.do({"G0003": 2.0}, as_="delta")
    np.testing.assert_array_equal(alone.X[0, alone.var_names != "G0003"], 0)
    below = model.do({"G0002": 2.0}, as_="delta")
    assert below[:, "G0001"].X == 0
    assert (below[:, ["G0000", "G0003", "G0004"]].X != 0).all()


def test_a_graph_that_was_given_is_not_doubted(train) -> None:
    chain = pd.DataFrame({"source": ["G0001"], "target": ["G0002"], "kind": ["required"]})
    model = train(structure="none", prior_graph=chain)
    delta = model.do({"G0001": 2.0}, as_="delta")
    assert (delta.X[0] != 0).tolist() == delta.var_names.isin(["G0001", "G0002"]).tolist()
