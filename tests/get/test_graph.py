from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import networkx as nx
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scgim.get import graph_df, graph_nx

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anndata import AnnData


def test_table_holds_the_matrix(adata: AnnData):
    table = graph_df(adata)
    dense = adata.varp["scgim_graph"].toarray()
    back = table.pivot_table(index="source", columns="target", values="weight")
    back = back.reindex(index=adata.var_names, columns=adata.var_names, fill_value=0).fillna(0)
    np.testing.assert_array_equal(back, dense)
    assert list(table.columns) == ["source", "target", "weight", "sign"]
    assert list(table.index) == list(range(20))
    assert table["weight"].abs().is_monotonic_decreasing
    assert (table["sign"] == np.sign(table["weight"])).all()


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(sparse.csr_matrix, id="csr_matrix"),
        pytest.param(sparse.csc_matrix, id="csc_matrix"),
        pytest.param(sparse.csr_array, id="csr_array"),
        pytest.param(np.asarray, id="dense"),
        pytest.param(lambda x: sparse.csr_matrix(x.astype("float32")), id="float32"),
    ],
)
def test_any_matrix(adata: AnnData, form: Callable):
    expected = graph_df(adata)
    adata.varp["scgim_graph"] = form(adata.varp["scgim_graph"].toarray())
    pd.testing.assert_frame_equal(graph_df(adata), expected, rtol=1e-6)


def test_ties_go_by_name_and_stored_zeros_are_no_edges(adata: AnnData):
    n = adata.n_vars
    graph = sparse.csr_matrix(([1.0, -1.0, 1.0, 0.0], ([2, 0, 0, 4], [3, 2, 1, 5])), shape=(n, n))
    adata.varp["scgim_graph"] = graph
    table = graph_df(adata)
    # GENES begin with STAT1, IRF1, MYC, BRD4
    assert list(zip(table["source"], table["target"], strict=True)) == [
        ("MYC", "BRD4"),
        ("STAT1", "IRF1"),
        ("STAT1", "MYC"),
    ]
    assert graph.nnz == 4


def test_no_edges(annotated: Callable[..., AnnData]):
    adata = annotated(n_edges=0)
    table = graph_df(adata)
    assert table.empty
    assert table["weight"].dtype == float
    assert graph_nx(adata).number_of_nodes() == adata.n_vars


def test_networkx_has_all_genes_and_the_degrees(adata: AnnData):
    graph = graph_nx(adata)
    assert isinstance(graph, nx.DiGraph)
    assert list(graph) == list(adata.var_names)
    assert nx.is_directed_acyclic_graph(graph)
    assert [graph.in_degree(gene) for gene in graph] == list(adata.var["scgim_in_degree"])
    assert [graph.out_degree(gene) for gene in graph] == list(adata.var["scgim_out_degree"])
    back = nx.to_numpy_array(graph, nodelist=list(adata.var_names))
    np.testing.assert_array_equal(back, adata.varp["scgim_graph"].toarray())


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_survives_writing(adata: AnnData, tmp_path: Path, kind: str):
    path = tmp_path / f"x.{kind}"
    getattr(adata, f"write_{kind}")(path)
    pd.testing.assert_frame_equal(graph_df(getattr(ad, f"read_{kind}")(path)), graph_df(adata))


@pytest.mark.parametrize("get", [graph_df, graph_nx])
def test_says_what_to_run_first(adata: AnnData, get: Callable):
    with pytest.raises(KeyError, match=r"`other` not found in adata\.varp\. Run `model\.annotate\(\)` first\."):
        get(adata, key="other")


@pytest.mark.parametrize("get", [graph_df, graph_nx])
def test_leaves_adata_alone(adata: AnnData, unchanged: Callable, get: Callable):
    with unchanged(adata):
        get(adata)
