from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

import scgim
from scgim.structure import GraphEnsemble
from scgim.train._graph_averaging import Averaging


@pytest.fixture(scope="module")
def counts() -> scgim.GIM:
    """Of few cells a condition, so that draws find other graphs."""
    adata = scgim.datasets.simulate_screen(
        n_genes=12, n_drugs=14, doses=(1.0,), n_cells=(20, 60), observation="counts", seed=5
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sizes for scale='counts'")
        scgim.setup_anndata(adata, drug_key="drug", control="DMSO", scale="counts")
    model = scgim.GIM(adata)
    model.train(max_epochs=20, enable_progress_bar=False)
    return model


def swapped(model: scgim.GIM, averaging: Averaging | None, ask):
    """What the model answers with another averaging in place of its own."""
    own, model.averaging_ = model.averaging_, averaging
    try:
        return ask(model)
    finally:
        model.averaging_ = own


def test_draws_that_all_agree_change_nothing(counts: scgim.GIM) -> None:
    mechanism, own = counts.module.mechanism, counts.averaging_
    graph = mechanism.graph.numpy()
    same = Averaging(
        GraphEnsemble.of([graph]),
        mechanism.coefficients.numpy()[np.nonzero(graph)],
        mechanism.bias.numpy()[None],
    )
    gene = str(counts.summary_.genes[0])
    ask = lambda m: m.do({gene: -1.0}, as_="delta").X
    alone, averaged = (swapped(counts, each, ask) for each in (None, same))
    np.testing.assert_allclose(averaged, alone, atol=1e-6)
    assert np.abs(swapped(counts, own, ask) - alone).max() > 1e-3  # here draws do differ


def test_predicted_changes_are_means_over_the_graphs(counts: scgim.GIM) -> None:
    own, gene = counts.averaging_, str(counts.summary_.genes[1])
    ask = lambda m: m.do({gene: 1.0}, kind="set", as_="delta").X
    n = own.graphs.n_members
    parts = [swapped(counts, None, ask)]
    for b, graph in enumerate(own.graphs.graphs()):
        at = own.graphs.member == b
        one = replace(own, graphs=GraphEnsemble.of([graph]), weight=own.weight[at], bias=own.bias[b : b + 1])
        parts.append(2 * swapped(counts, one, ask) - parts[0])
    np.testing.assert_allclose(ask(counts), sum(parts) / (n + 1), atol=1e-5)


def test_a_loaded_model_gives_the_same_bits(counts: scgim.GIM, tmp_path) -> None:
    counts.save(tmp_path / "m")
    again = scgim.GIM.load(tmp_path / "m")
    pd.testing.assert_frame_equal(again.rank_targets(), counts.rank_targets(), check_exact=True)
    gene = str(counts.summary_.genes[0])
    a, b = (m.do({gene: -1.0}, as_="delta").X for m in (counts, again))
    np.testing.assert_array_equal(a, b)


def test_calls_name_an_edge_of_their_gene_and_how_likely_its_direction_is(counts: scgim.GIM) -> None:
    table = counts.rank_targets()
    rests = table[table["rests_on"] != ""]
    assert 0 < len(rests)
    edges = {f"{r.source} -> {r.target}" for r in counts.get_graph().itertuples()}
    assert set(rests["rests_on"]) <= edges
    assert all(r.gene in r.rests_on.split(" -> ") for r in rests.itertuples())
    assert rests["direction_probability"].between(0, 1).all()
    assert table.loc[table["rests_on"] == "", "direction_probability"].isna().all()


def test_predictions_from_features_hang_on_no_edge(model: scgim.GIM) -> None:
    table = model.rank_targets(evidence="features")
    assert (table["rests_on"] == "").all()
    assert table["direction_probability"].isna().all()


@pytest.mark.parametrize("options", [{"mechanism": "network"}, {"structure": "none"}, {"intervention": "hard"}])
def test_every_kind_of_model_says_what_calls_hang_on(screen, fit, options: dict) -> None:
    model = fit(screen(), gim=options)
    table = model.rank_targets()
    known = table["rests_on"] != ""
    assert known.any() == bool(model.module.mechanism.graph.any())
    assert table.loc[known, "direction_probability"].between(0, 1).all()


def test_a_direction_that_no_drug_shows_is_open() -> None:
    rng = np.random.default_rng(0)
    label = np.repeat(["control", "a", "b", "c", "d", "e"], [300, *[60] * 5])
    x = rng.normal(size=(len(label), 4))
    x[np.isin(label, ["a", "b", "c"]), 2] += 3
    x[:, 3] += x[:, 2]  # these drugs show this direction
    x[np.isin(label, ["d", "e"]), 3] += 2
    x[:, 1] += x[:, 0]  # and none this one
    rows = pd.DataFrame({"drug": label})
    rows.index = rows.index.astype(str)
    adata = AnnData(x.astype(np.float32), obs=rows, var=pd.DataFrame(index=list("wxyz")))
    scgim.setup_anndata(adata, drug_key="drug", control="control", scale="continuous")
    model = scgim.GIM(adata)
    model.train(max_epochs=30, enable_progress_bar=False)
    shown, opened = model.averaging_.graphs.direction_probability(np.array([2, 0]), np.array([3, 1]))
    assert shown > 0.9
    assert 0.2 < opened < 0.8


def test_the_order_of_genes_does_not_matter_and_the_seed_does_not_vary(screen, fit) -> None:
    adata = screen()
    order = np.random.default_rng(0).permutation(adata.n_vars)
    one, two = fit(adata), fit(adata[:, order].copy())
    pd.testing.assert_frame_equal(one.rank_targets(), two.rank_targets(), check_exact=True)
    for name in ("source", "target", "member"):
        np.testing.assert_array_equal(getattr(one.averaging_.graphs, name), getattr(two.averaging_.graphs, name))


def test_blocks_are_drugs_in_lines(in_lines, fit) -> None:
    model = fit(in_lines(0.0), cell_line_key="line")
    design = model.summary_.design
    block, drug = design.resampling_blocks()
    np.testing.assert_array_equal(drug, design.drug)
    assert len(np.unique(block)) == len(np.unique(np.stack([design.drug, design.line]), axis=1).T)
    assert replace(design, lines=design.lines[:1]).resampling_blocks() is None  # of one line there is nothing to draw


def test_torch_is_left_without_gradients(counts: scgim.GIM) -> None:
    assert all(
        not p.requires_grad
        for mechanism, _ in counts.averaging_.mechanisms(counts.module)
        for p in mechanism.parameters()
    )
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("of", ["cells", "means"])
def test_drugs_are_averaged_over_graphs_of_means_only(model: scgim.GIM, counts: scgim.GIM, of: str) -> None:
    which = {"cells": model, "means": counts}[of]
    ask = lambda m: m.predict(as_="delta", evidence="features").X
    alone, averaged = (swapped(which, each, ask) for each in (None, which.averaging_))
    assert (np.abs(alone - averaged).max() > 1e-6) == (of == "means")
