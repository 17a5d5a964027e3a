from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from rdkit.Chem import MolFromSmiles
from scipy.sparse import issparse

from scgim.datasets import sachs

BACKGROUNDS = ["cd3cd28", "icam2"]


@pytest.mark.parametrize(
    ("background", "n_cells", "control", "drugs"),
    [
        pytest.param(
            "cd3cd28",
            6564,
            "cd3cd28",
            {"AKT inhibitor", "Go6976", "LY294002", "psitectorigenin", "U0126", "PMA", "b2cAMP"},
            id="cd3cd28",
        ),
        pytest.param(
            "icam2",
            5108,
            "cd3cd28+icam2",
            {"AKT inhibitor", "Go6976", "LY294002", "psitectorigenin", "U0126"},
            id="icam2",
        ),
    ],
)
def test_cells_and_drugs(background, n_cells, control, drugs):
    adata = sachs(background=background)
    assert adata.shape == (n_cells, 11)
    assert set(adata.obs["drug"].cat.categories) == drugs | {control}
    assert adata.uns["control"] == adata.obs["drug"].cat.categories[0] == control
    assert adata.obs_names.is_unique
    assert set(sachs(background="cd3cd28").obs_names).isdisjoint(sachs(background="icam2").obs_names)


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_values(background):
    adata = sachs(background=background)
    raw = adata.layers["raw"]
    assert raw.dtype == adata.X.dtype == np.float32
    assert raw.min() >= 1
    np.testing.assert_array_equal(adata.X, np.log(raw))


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_annotation_agrees_with_itself(background):
    adata = sachs(background=background)
    obs, known = adata.obs, adata.uns["known_targets"].set_index("drug")
    assert list(adata.uns["known_targets"].index) == [str(i) for i in range(len(known))]
    for drug, rows in obs.groupby("drug", observed=True):
        assert (
            len(rows[["smiles", "target", "target_sign", "mechanism", "condition", "stimulus"]].drop_duplicates()) == 1
        )
        first = rows.iloc[0]
        if drug == adata.uns["control"]:
            assert (first["smiles"], first["target"], first["target_sign"]) == ("", "none", 0)
        else:
            assert MolFromSmiles(first["smiles"]) is not None
            assert first["target"] in adata.var_names
            assert [first["target"], first["target_sign"], first["mechanism"]] == list(known.loc[drug])
    assert {"source", "citation", "licence", "units", "notes"} <= set(adata.uns)


def test_published_graphs():
    adata = sachs()
    n_edges = {"graph17_sachs_inferred": 17, "graph18_conventional_semgraph": 18, "graph20_consensus": 20}
    assert set(adata.varp) == set(n_edges)
    for name, n in n_edges.items():
        graph = adata.varp[name]
        assert issparse(graph)
        assert graph.nnz == n
        assert set(graph.data) == {1}
        edges = {(adata.var_names[i], adata.var_names[j]) for i, j in zip(*graph.nonzero(), strict=True)}
        assert {("Raf", "Mek"), ("Mek", "Erk"), ("PKA", "Akt")} <= edges, "row is source, column is target"
    graph = nx.from_scipy_sparse_array(adata.varp["graph17_sachs_inferred"], create_using=nx.DiGraph)
    assert nx.is_directed_acyclic_graph(graph)


def test_published_effects_are_in_the_cells():
    adata = sachs()
    mean = adata.to_df().groupby(adata.obs["drug"], observed=True).mean()
    change = mean - mean.loc["cd3cd28"]
    assert change.loc["U0126", "Mek"] > 2
    assert change.loc["U0126", "Erk"] < -1


def test_fresh_at_every_call(assert_same):
    first = sachs()
    first.X[:] = 0
    first.layers["raw"][:] = 0
    first.uns["known_targets"].loc[:, "drug"] = "spoilt"
    first.varp["graph20_consensus"].data[:] = 5
    assert_same(sachs(), sachs())
    assert sachs().X.max() > 1
    assert sachs().layers["raw"].max() > 1
    assert "spoilt" not in set(sachs().uns["known_targets"]["drug"])
    assert sachs().varp["graph20_consensus"].max() == 1


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_round_trip(written_and_read, assert_same, background):
    adata = sachs(background=background)
    assert_same(adata, written_and_read(adata.copy()))


def test_unknown_background_names_the_nearest():
    with pytest.raises(ValueError, match="'ICAM-2' does not exist. Did you mean 'icam2'"):
        sachs(background="ICAM-2")
