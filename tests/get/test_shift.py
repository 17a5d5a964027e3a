from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scanpy as sc

from scgim.get import shift_adata

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from anndata import AnnData


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    plt.close("all")


def test_holds_the_shift(adata: AnnData):
    adata.obsm["X_umap"] = np.zeros((adata.n_obs, 2))
    shift = shift_adata(adata)
    np.testing.assert_array_equal(shift.X, adata.obsm["scgim_shift"])
    pd.testing.assert_frame_equal(shift.obs, adata.obs)
    pd.testing.assert_frame_equal(shift.var, adata.var)
    assert set(shift.uns) == {"scgim", "scgim_targets", "drug_colors", "dendrogram_drug"}
    assert list(shift.obsm) == ["X_umap"]
    assert shift.raw is None


def test_shares_nothing(adata: AnnData, unchanged: Callable):
    with unchanged(adata):
        shift = shift_adata(adata)
        shift.X[:] = 7
        shift.obs["drug"] = "x"
        shift.var["scgim_in_degree"] = 7
        shift.uns["scgim"]["settings"]["scale"] = "x"
        shift.uns["scgim_targets"]["scores"]["DMSO"][:] = 7
        shift.uns["drug_colors"][0] = "x"


def test_of_a_view_is_its_own(adata: AnnData, unchanged: Callable):
    with unchanged(adata):
        view = adata[adata.obs["drug"] != "Akti-1/2"]
        shift = shift_adata(view)
        assert view.is_view
        assert not shift.is_view
        shift.uns["scgim"]["settings"]["scale"] = "x"
    assert type(shift.uns["scgim"]["settings"]) is dict


@pytest.mark.parametrize(
    "draw",
    [
        pytest.param(lambda a: sc.pl.matrixplot(a, list(a.var_names), "drug", show=False), id="matrixplot"),
        pytest.param(lambda a: sc.pl.dotplot(a, list(a.var_names), "drug", show=False), id="dotplot"),
        pytest.param(
            lambda a: sc.pl.rank_genes_groups_matrixplot(a, key="scgim_targets", n_genes=3, show=False), id="targets"
        ),
        pytest.param(
            lambda a: sc.pl.rank_genes_groups_dotplot(a, key="scgim_targets", n_genes=3, dendrogram=False, show=False),
            id="targets without a tree",
        ),
    ],
)
@pytest.mark.parametrize("drugs", [["(+/-)-JQ1"], ["(+/-)-JQ1", "Akti-1/2", "Vorinostat"]], ids=["one", "three"])
def test_scanpy_draws_it(
    annotated: Callable[..., AnnData], draw: Callable, drugs: list[str], capsys: pytest.CaptureFixture
):
    shift = shift_adata(annotated(drugs=drugs))
    axes = draw(shift)
    rows = {label.get_text() for label in axes["mainplot_ax"].get_yticklabels()}
    assert rows == {"DMSO", *drugs}
    # scanpy logs there when it has to make a tree itself
    assert "WARNING" not in "".join(capsys.readouterr())


def test_scanpy_reads_the_targets(adata: AnnData):
    table = sc.get.rank_genes_groups_df(shift_adata(adata), group="(+/-)-JQ1", key="scgim_targets")
    assert len(table) == adata.n_vars
    assert table["pvals"].isna().all()


def test_matrixplot_shows_the_mean_shift(adata: AnnData):
    shift = shift_adata(adata)
    plot = sc.pl.matrixplot(shift, list(shift.var_names), "drug", return_fig=True)
    expected = pd.DataFrame(adata.obsm["scgim_shift"], columns=adata.var_names)
    expected = expected.groupby(adata.obs["drug"].to_numpy(), observed=True).mean().loc[plot.values_df.index]
    np.testing.assert_allclose(plot.values_df.to_numpy(), expected.to_numpy(), rtol=1e-5, atol=1e-7)


def test_tree_joins_the_nearest_drugs_first(adata: AnnData):
    tree = shift_adata(adata).uns["dendrogram_drug"]
    means = pd.DataFrame(adata.obsm["scgim_shift"]).groupby(adata.obs["drug"].to_numpy(), observed=True).mean()
    means = means.loc[adata.obs["drug"].cat.categories].to_numpy()
    distance = np.linalg.norm(means[:, None] - means[None], axis=2) + np.diag([np.inf] * len(means))
    assert set(tree["linkage"][0, :2].astype(int)) == set(np.unravel_index(distance.argmin(), distance.shape))
    assert sorted(tree["categories_ordered"]) == sorted(adata.obs["drug"].cat.categories)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda a: a[a.obs["drug"] == "DMSO"], id="only the control"),
        pytest.param(lambda a: a[:0], id="no cells"),
    ],
)
def test_no_tree_of_one_group(adata: AnnData, change: Callable):
    assert "dendrogram_drug" not in shift_adata(change(adata)).uns


def test_without_targets(adata: AnnData):
    del adata.uns["scgim_targets"]
    assert set(shift_adata(adata).uns) == {"scgim", "drug_colors"}


def test_drugs_as_strings(adata: AnnData):
    adata.obs["drug"] = adata.obs["drug"].astype(object)
    assert shift_adata(adata).uns["dendrogram_drug"]["groupby"] == ["drug"]


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_survives_writing(adata: AnnData, tmp_path: Path, kind: str):
    shift = shift_adata(adata)
    path = tmp_path / f"x.{kind}"
    getattr(shift, f"write_{kind}")(path)
    back = getattr(ad, f"read_{kind}")(path)
    np.testing.assert_array_equal(back.X, shift.X)
    sc.pl.rank_genes_groups_matrixplot(back, key="scgim_targets", n_genes=3, show=False)


def test_says_what_to_run_first(adata: AnnData):
    with pytest.raises(KeyError, match=r"`other` not found in adata\.obsm\. Run `model\.annotate\(\)` first\."):
        shift_adata(adata, key="other")
