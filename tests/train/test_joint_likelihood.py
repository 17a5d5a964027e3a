from __future__ import annotations

from contextlib import nullcontext

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch

import scgim
from scgim.module import LinearMechanism
from scgim.structure.gradient import Residuals
from scgim.train._joint_likelihood import JointLikelihood

PLAN = {
    "search_rounds": 1,
    "gradient_steps": 40,
    "gradient_graphs": 3,
    "mechanism_steps": 20,
    "generator_steps": 20,
}
TRAIN = {"max_epochs": None, "plan_kwargs": PLAN}
GRADIENT = {"structure": "gradient", "generator": "hill"}


@pytest.mark.parametrize("orientation", ["smooth", "gumbel"])
@pytest.mark.parametrize("mechanism", ["linear", "network"])
@pytest.mark.parametrize("intervention", ["shift", "hard"])
def test_every_kind_of_model(screen, fit, mechanism, intervention, orientation):
    plan = PLAN | {"orientation": orientation}
    gim = GRADIENT | {"mechanism": mechanism, "intervention": intervention}
    model = fit(screen(), gim=gim, train={"max_epochs": None, "plan_kwargs": plan})
    assert list(model.history) == ["structure_score", "mechanisms_nll", "generator_nll"]
    score = model.history["structure_score"]["structure_score"].astype(float)
    assert len(score) == 2
    assert (score.diff().dropna() <= 0).all()
    graph = model.module.mechanism.graph.numpy()
    assert nx.is_directed_acyclic_graph(nx.from_numpy_array(graph, create_using=nx.DiGraph))
    assert np.isfinite(model.predict(drug=model.drugs[0], as_="mean").X).all()


@pytest.mark.parametrize("mechanism", ["linear", "network"])
def test_the_noise_may_be_scaled(screen, fit, mechanism):
    model = fit(screen(), gim=GRADIENT | {"mechanism": mechanism, "scale_shift": True}, train=TRAIN)
    assert np.isfinite(model.history["structure_score"]["structure_score"].astype(float)).all()


def test_finds_most_edges_and_none_too_many(screen, fit):
    adata = screen(degree=1, n_drugs=20, n_control=400)
    plan = PLAN | {"search_rounds": 2, "gradient_steps": 120}
    model = fit(adata, gim=GRADIENT, train={"max_epochs": None, "plan_kwargs": plan})
    truth = adata.varp["true_graph"].toarray() > 0
    found = np.zeros_like(truth)
    edges = model.get_graph()
    index = {gene: j for j, gene in enumerate(adata.var_names)}
    found[[index[g] for g in edges["source"]], [index[g] for g in edges["target"]]] = True
    assert scgim.metrics.shd(truth, found) <= 1


def test_same_seed_same_bits_and_genes_in_any_order(screen, fit, assert_same_bits):
    adata, seed = screen(), {"seed": 3}
    one, again = (fit(screen(), gim=GRADIENT, train=TRAIN | seed) for _ in range(2))
    assert_same_bits(one, again)
    other = fit(adata[:, ::-1].copy(), gim=GRADIENT, train=TRAIN | seed)
    np.testing.assert_array_equal(one.module.mechanism.graph, other.module.mechanism.graph)


def test_obeys_the_prior(screen, fit):
    genes = list(screen().var_names)
    prior = pd.DataFrame(
        {"source": [genes[0], genes[1]], "target": [genes[5], genes[2]], "kind": ["required", "forbidden"]}
    )
    model = fit(screen(), gim=GRADIENT | {"prior_graph": prior, "regulators": genes[:4]}, train=TRAIN)
    edges = set(model.get_graph()[["source", "target"]].itertuples(index=False, name=None))
    assert (genes[0], genes[5]) in edges
    assert (genes[1], genes[2]) not in edges
    assert {source for source, _ in edges} <= set(genes[:4])


def test_save_and_load(screen, fit, tmp_path, assert_same_bits):
    model = fit(screen(), gim=GRADIENT, train=TRAIN)
    model.save(tmp_path / "model")
    loaded = scgim.GIM.load(tmp_path / "model")
    assert_same_bits(model, loaded)
    assert "gradient" in repr(loaded)


def test_joint_likelihood_is_that_of_the_module(screen, fit):
    """On a graph that is certain it must be what the mechanisms' phase descends."""
    model = fit(screen(), gim=GRADIENT, train=TRAIN)
    module, data = model.module, model._read(0)
    assert isinstance(module.mechanism, LinearMechanism)
    moments = module.mechanism.moments(data.conditions, data.controls)
    joint = JointLikelihood(module, data.conditions, data.search, {"mechanism.log_sigma": 0.1})
    found = joint(*Residuals(moments.residual, moments.within, moments.pooled), False)
    expected = module.joint_loss(data.conditions, moments, data.n_cells)
    for a, b in zip(found[:2], expected, strict=True):
        torch.testing.assert_close(a, b)


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setup", "options", "message"),
    [
        pytest.param({}, {"likelihood": "means"}, r"likelihood='means', scale='continuous'", id="means"),
        pytest.param({"scale": "counts"}, {}, r"likelihood='auto', scale='counts'.*structure='search'", id="counts"),
    ],
)
def test_it_needs_cells(screen, setup_kwargs, setup, options, message):
    adata = screen()
    if setup:
        adata.X = np.random.default_rng(0).poisson(50, adata.shape).astype(np.float32)
    with pytest.warns(UserWarning, match="only 6 genes") if setup else nullcontext():
        scgim.setup_anndata(adata, **(setup_kwargs | setup))
    with pytest.raises(ValueError, match=message):
        scgim.GIM(adata, structure="gradient", **options)


def test_unknown_orientation(screen, setup_kwargs):
    scgim.setup_anndata(adata := screen(), **setup_kwargs)
    with pytest.raises(ValueError, match="orientation='gumbl' does not exist. Did you mean 'gumbel'"):
        scgim.GIM(adata, structure="gradient").train(plan_kwargs={"orientation": "gumbl"}, enable_progress_bar=False)
