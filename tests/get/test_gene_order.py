"""Columns of arrays in obsm are matched to genes by name, or refused: never another gene's values."""

from __future__ import annotations

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scanpy as sc

from scgim._gene_order import order_code
from scgim.get import shift_adata

REFUSED = r"cannot be matched to genes\. Write it anew: model\.annotate\(adata\)"


@pytest.fixture
def named(adata):
    """An annotated AnnData, in which the shift of a gene is its number, whatever the order of the genes."""
    adata.obsm["scgim_shift"] = np.tile(np.arange(adata.n_vars, dtype=np.float32), (adata.n_obs, 1))
    return adata


def number_of(adata, shift):
    """The number that every gene of a shift must have."""
    return [list(adata.var_names).index(gene) for gene in shift.var_names]


def assert_own_values(adata, shift):
    np.testing.assert_array_equal(shift.X, np.tile(number_of(adata, shift), (shift.n_obs, 1)))


@pytest.mark.parametrize("storage", ["memory", "h5ad", "zarr"])
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda a: a[:, ::-1], id="view, reversed"),
        pytest.param(lambda a: a[:, ::-1].copy(), id="reversed"),
        pytest.param(lambda a: a[:, ["JUN", "MYC", "FOS"]].copy(), id="subset"),
        pytest.param(lambda a: a[:, ["MYC"]].copy(), id="one gene"),
        pytest.param(lambda a: a[::2, np.argsort(a.var_names)].copy(), id="cells and sorted genes"),
        pytest.param(lambda a: a[a.obs_names[::-1], a.var_names[3:]].copy(), id="by names"),
    ],
)
def test_genes_may_move_after_annotation(named, change, storage, tmp_path):
    moved = change(named)
    if storage != "memory":
        getattr(moved.copy(), f"write_{storage}")(tmp_path / f"x.{storage}")
        moved = getattr(ad, f"read_{storage}")(tmp_path / f"x.{storage}")
    shift = shift_adata(moved)
    assert shift.var_names.tolist() == moved.var_names.tolist()
    assert_own_values(named, shift)


def again(named, genes):
    """The same screen with other genes or another order, annotated by itself."""
    other = named[:, genes].copy()
    other.obs_names = "second-" + other.obs_names
    number = [list(named.var_names).index(gene) for gene in genes]
    other.obsm["scgim_shift"] = np.tile(np.array(number, dtype=np.float32), (other.n_obs, 1))
    other.obsm["scgim_genes"] = np.full((other.n_obs, 1), float(order_code(genes)))
    other.uns["scgim"]["genes"] = {order_code(genes): np.array(genes, dtype=object)}
    return other


@pytest.mark.parametrize("uns_merge", ["first", "unique", "only"])
def test_a_concatenation_of_two_orders(named, uns_merge):
    both = ad.concat([named, again(named, list(named.var_names[::-1]))], uns_merge=uns_merge)
    shift = shift_adata(both)
    assert shift.n_vars == named.n_vars
    assert_own_values(named, shift)


@pytest.mark.parametrize("uns_merge", [None, "same"])
def test_a_concatenation_that_lost_the_names_is_refused(named, uns_merge):
    other = again(named, list(named.var_names[::-1]))
    with pytest.raises(ValueError, match=REFUSED):
        shift_adata(ad.concat([named, other], uns_merge=uns_merge))
    alike = again(named, list(named.var_names))  # the genes of the AnnData are the names
    assert_own_values(named, shift_adata(ad.concat([named, alike], uns_merge=uns_merge)))


@pytest.mark.parametrize("join", ["inner", "outer"])
def test_a_concatenation_of_different_genes_is_refused(named, join):
    # AnnData cuts the wider array, or pads the narrower one
    other = again(named, list(named.var_names[4:]))
    with pytest.raises(ValueError, match=REFUSED):
        shift_adata(ad.concat([named, other], join=join, uns_merge="first"))


def test_cells_that_were_not_annotated_are_missing(named):
    bare = ad.AnnData(named.X[:3], obs=pd.DataFrame(index=["x", "y", "z"]), var=named.var[[]])
    shift = shift_adata(ad.concat([named, bare], join="outer", uns_merge="first"))
    assert np.isnan(shift.X[-3:]).all()
    assert_own_values(named, shift[:-3])


def test_without_codes_the_names_count_if_they_are_the_only_ones(named):
    del named.obsm["scgim_genes"]
    assert_own_values(named, shift_adata(named))
    assert_own_values(named, shift_adata(named[:, ["JUN", "MYC"]].copy()))
    with pytest.raises(ValueError, match=REFUSED):  # the columns may be of either order
        shift_adata(named[:, ::-1].copy())


def test_other_genes_are_refused(named):
    named.var_names = [f"ENSG{i}" for i in range(named.n_vars)]
    with pytest.raises(ValueError, match=f"no column of a gene of adata, such as 'ENSG0'.*{REFUSED}"):
        shift_adata(named)


def test_a_frame_has_names_of_its_own(named):
    named.obsm["mine"] = pd.DataFrame(named.obsm["scgim_shift"], index=named.obs_names, columns=named.var_names)
    assert_own_values(named, shift_adata(named[:, ::-1].copy(), key="mine"))


def test_an_array_without_names_has_the_genes_of_the_anndata():
    adata = ad.AnnData(np.zeros((2, 3), dtype=np.float32))
    adata.obsm["mine"] = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(shift_adata(adata, key="mine").X, adata.obsm["mine"])
    with pytest.raises(ValueError, match=f"has 3 columns without names, and adata has 2 genes.*{REFUSED}"):
        shift_adata(adata[:, :2].copy(), key="mine")


def test_scanpy_plots_the_targets_of_a_subset(adata):
    shift = shift_adata(adata[:, ["JUN", "MYC", "FOS"]].copy())
    targets = shift.uns["scgim_targets"]
    whole = adata.uns["scgim_targets"]
    for drug in targets["names"].dtype.names:
        kept = np.isin(whole["names"][drug].astype(str), ["JUN", "MYC", "FOS"])
        for field in ("names", "scores", "doses"):
            np.testing.assert_array_equal(targets[field][drug], whole[field][drug][kept])
    axes = sc.pl.rank_genes_groups_matrixplot(shift, key="scgim_targets", n_genes=2, show=False)
    assert axes
    plt.close("all")
