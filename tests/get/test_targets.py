from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc

from scgim.get import targets_df

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anndata import AnnData

DRUGS = ["(+/-)-JQ1", "Akti-1/2", "Vorinostat"]
COLUMNS = ["drug", "gene", "rank", "score", "probability", "effect", "direction", "dose", "cell_line"]


def test_every_drug_ranks_every_gene(adata: AnnData):
    table = targets_df(adata)
    assert list(table.columns) == COLUMNS
    assert list(table.index) == list(range(len(table)))
    assert list(table["drug"].unique()) == DRUGS
    for _, group in table.groupby("drug"):
        assert sorted(group["gene"]) == sorted(adata.var_names)
        assert list(group["rank"]) == list(range(1, adata.n_vars + 1))
        assert group["score"].is_monotonic_decreasing


def test_score_is_probability_times_absolute_effect(adata: AnnData):
    table = targets_df(adata)
    np.testing.assert_allclose(table["score"], table["probability"] * table["effect"].abs())
    assert set(table.loc[table["effect"] > 0, "direction"]) == {"up"}
    assert set(table.loc[table["effect"] < 0, "direction"]) == {"down"}


@pytest.mark.parametrize("drug", DRUGS)
def test_agrees_with_scanpy(adata: AnnData, drug: str):
    table = targets_df(adata, drug=drug)
    theirs = sc.get.rank_genes_groups_df(adata, group=drug, key="scgim_targets")
    assert list(table["gene"]) == list(theirs["names"])
    np.testing.assert_array_equal(table["score"], theirs["scores"])
    np.testing.assert_array_equal(table["effect"], theirs["logfoldchanges"])


def test_several_drugs_come_in_the_order_asked(adata: AnnData):
    table = targets_df(adata, drug=["Vorinostat", "(+/-)-JQ1"])
    assert list(table["drug"].unique()) == ["Vorinostat", "(+/-)-JQ1"]
    one = targets_df(adata, drug="(+/-)-JQ1")
    pd.testing.assert_frame_equal(table.iloc[adata.n_vars :].reset_index(drop=True), one)


@pytest.mark.parametrize(
    ("settings", "dose", "cell_line"),
    [
        pytest.param({}, {0.1, 1.0, 10.0}, {""}, id="doses"),
        pytest.param({"doses": []}, set(), {""}, id="neither"),
        pytest.param({"cell_lines": ["A549", "K562"]}, {0.1, 1.0, 10.0}, {"A549", "K562"}, id="both"),
    ],
)
def test_context_of_the_best_score(annotated: Callable[..., AnnData], settings: dict, dose: set, cell_line: set):
    table = targets_df(annotated(**settings))
    assert set(table["dose"].dropna()) == dose
    assert set(table["cell_line"]) == cell_line
    assert table["dose"].dtype == float


@pytest.mark.parametrize("missing", ["doses", "cell_lines"])
def test_contexts_may_be_absent(annotated: Callable[..., AnnData], missing: str):
    adata = annotated(cell_lines=["A549", "K562"])
    del adata.uns["scgim_targets"][missing]
    table = targets_df(adata)
    assert list(table.columns) == COLUMNS
    assert table["dose"].isna().all() if missing == "doses" else (table["cell_line"] == "").all()


def test_only_a_control_gives_an_empty_table(annotated: Callable[..., AnnData]):
    table = targets_df(annotated(drugs=[]))
    assert list(table.columns) == COLUMNS
    assert table.empty


@pytest.mark.parametrize(("kind", "lines"), list(product(["h5ad", "zarr"], [[""], ["A549", "K562"]])))
def test_survives_writing(annotated: Callable[..., AnnData], tmp_path: Path, kind: str, lines: list[str]):
    adata = annotated(cell_lines=lines)
    path = tmp_path / f"x.{kind}"
    getattr(adata, f"write_{kind}")(path)
    pd.testing.assert_frame_equal(targets_df(getattr(ad, f"read_{kind}")(path)), targets_df(adata))


@pytest.mark.parametrize(
    ("drug", "message"),
    [
        pytest.param("JQ1", r"drug 'JQ1' not found\. Did you mean '\(\+/-\)-JQ1'", id="near"),
        pytest.param("vorinostat", "Did you mean 'Vorinostat'", id="case"),
        pytest.param(["Vorinostat", "Akti"], "'Akti' not found. Did you mean 'Akti-1/2'", id="one of several"),
        pytest.param("DMSO", "'DMSO' is the control", id="control"),
        pytest.param("", "drug '' not found", id="empty"),
    ],
)
def test_unknown_drug(adata: AnnData, drug: str | list[str], message: str):
    with pytest.raises(KeyError, match=message):
        targets_df(adata, drug=drug)


def test_says_what_to_run_first(adata: AnnData):
    with pytest.raises(KeyError, match=r"`other` not found in adata\.uns\. Run `model\.annotate\(\)` first\."):
        targets_df(adata, key="other")


def test_refuses_a_test_of_scanpy(adata: AnnData):
    del adata.uns["scgim_targets"]["probabilities"]
    with pytest.raises(KeyError, match="has no \\['probabilities'\\]"):
        targets_df(adata)


def test_leaves_adata_alone(adata: AnnData, unchanged: Callable):
    with unchanged(adata):
        table = targets_df(adata)
        table["score"] = -1.0
        table["gene"] = "x"


def test_a_view_is_fine(adata: AnnData):
    pd.testing.assert_frame_equal(targets_df(adata[:10]), targets_df(adata))
