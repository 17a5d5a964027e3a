"""Panel and readout genes of an AnnData."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scgim._genes import GeneColumns, JoinedColumns


def small() -> ad.AnnData:
    adata = ad.AnnData(np.arange(12.0).reshape(3, 4), var=pd.DataFrame(index=list("dbca")))
    adata.var["leaf"] = [True, False, True, False]
    adata.obsm["rest"] = pd.DataFrame({"x": [1, 2, 3], "y": [0.5, 0, 1]}, index=adata.obs_names)
    return adata


def test_a_column_of_var_tells_panel_and_readout_apart():
    genes = GeneColumns.read(small(), "leaf")
    assert genes.names.tolist() == ["d", "b", "c", "a"]
    assert genes.panel.tolist() == ["b", "a"]
    assert genes.readout.tolist() == ["d", "c"]


def test_a_frame_of_obsm_comes_after_var_names():
    genes = GeneColumns.read(small(), "rest")
    assert genes.panel.tolist() == ["d", "b", "c", "a"]
    assert genes.readout.tolist() == ["x", "y"]


def test_without_a_readout_all_genes_are_the_panel():
    genes = GeneColumns.read(small(), None)
    assert genes.panel.tolist() == ["d", "b", "c", "a"]
    assert not len(genes.readout)


def var(values):
    return lambda a: a.var.__setitem__("leaf", values)


def rest(change):
    return lambda a: a.obsm.__setitem__("rest", change(a.obsm["rest"]))


@pytest.mark.parametrize(
    ("spoil", "key", "error", "message"),
    [
        pytest.param(
            None, "leaves", KeyError, "neither a column of var nor a key of obsm. Nearest: 'leaf'", id="unknown"
        ),
        pytest.param(var([1, 0, 1, 0]), "leaf", TypeError, r"must be bool.*int64.*astype\(bool\)", id="numbers"),
        pytest.param(var(["yes", "no", "no", "no"]), "leaf", TypeError, "must be bool", id="words"),
        pytest.param(var([True] * 4), "leaf", ValueError, "no gene in the panel", id="no panel"),
        pytest.param(var([False] * 4), "leaf", ValueError, "no gene in the readout", id="no readout"),
        pytest.param(lambda a: a.var.__setitem__("rest", True), "rest", ValueError, "Rename one", id="both"),
        pytest.param(rest(lambda f: f.to_numpy()), "rest", TypeError, "ndarray without gene names", id="array"),
        pytest.param(rest(lambda f: f.rename(columns={"x": "a"})), "rest", ValueError, "'a'.*Drop them", id="twice"),
        pytest.param(rest(lambda f: f.assign(z="word")), "rest", TypeError, "must hold numbers.*'z'", id="text"),
    ],
)
def test_wrong_readouts_are_named(spoil, key, error, message):
    adata = small()
    if spoil is not None:
        spoil(adata)
    with pytest.raises(error, match=message):
        GeneColumns.read(adata, key)


@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix], ids=["dense", "sparse"])
@pytest.mark.parametrize("sparse", [False, True], ids=["frame", "sparse frame"])
def test_joined_rows_are_those_of_both(form, sparse):
    adata = small()
    frame = adata.obsm["rest"].astype("Sparse[float]") if sparse else adata.obsm["rest"]
    joined = JoinedColumns.of(form(adata.X), frame)
    whole = np.hstack([adata.X, adata.obsm["rest"].to_numpy()])
    assert joined.shape == whole.shape
    assert joined.dtype == np.float64
    np.testing.assert_array_equal(joined[0:3], whole)
    np.testing.assert_array_equal(joined[1:2], whole[1:2])


def test_a_frame_does_not_go_with_dask():
    array = pytest.importorskip("dask.array")
    with pytest.raises(TypeError, match="bool column of var"):
        JoinedColumns.of(array.from_array(small().X), small().obsm["rest"])
