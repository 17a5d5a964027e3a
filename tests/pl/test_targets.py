from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes

from scgim.get import targets_df
from scgim.pl import targets

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData


def labels(ax: Axes) -> list[str]:
    return [label.get_text() for label in ax.get_yticklabels()]


@pytest.mark.parametrize("n_genes", [1, 5, 12, 99])
def test_bars_are_the_effects_of_the_first_genes(annotated: Callable[..., AnnData], n_genes: int):
    adata = annotated(doses=[1.0])
    ax = targets(adata, drug="Akti-1/2", n_genes=n_genes)
    table = targets_df(adata, drug="Akti-1/2").head(n_genes)
    assert isinstance(ax, Axes)
    assert labels(ax) == list(table["gene"])
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches], table["effect"])
    colors = mpl.colormaps["viridis_r"](table["probability"].to_numpy())
    np.testing.assert_allclose([bar.get_facecolor() for bar in ax.patches], colors)
    # the first gene is on top
    assert ax.yaxis_inverted()


@pytest.mark.parametrize(
    ("settings", "title", "dose"),
    [
        pytest.param({"doses": [1.0]}, "Targets of (+/-)-JQ1, 1 uM", "", id="one dose"),
        pytest.param({"doses": []}, "Targets of (+/-)-JQ1", "", id="none"),
        pytest.param({}, "Targets of (+/-)-JQ1", " (1 uM)", id="doses"),
    ],
)
def test_says_the_context_once(annotated: Callable[..., AnnData], settings: dict, title: str, dose: str):
    adata = annotated(**settings)
    ax = targets(adata, drug="(+/-)-JQ1")
    assert ax.get_title() == title
    assert labels(ax)[0] == targets_df(adata, drug="(+/-)-JQ1")["gene"][0] + dose
    assert "control SD" in ax.get_xlabel()


def test_names_the_cell_lines(annotated: Callable[..., AnnData]):
    ax = targets(annotated(cell_lines=["A549", "K562"], doses=[]), drug="Vorinostat")
    assert {label.split(" ")[1] for label in labels(ax)} == {"(A549)", "(K562)"}


def test_names_no_unit_where_there_is_none(adata: AnnData):
    del adata.uns["scgim"]
    assert labels(targets(adata, drug="(+/-)-JQ1"))[0] == "BRD4 (1)"


def test_draws_where_it_is_told(adata: AnnData, shown: list[int]):
    figure, ax = plt.subplots()
    assert targets(adata, drug="Vorinostat", ax=ax, show=False) is ax
    assert plt.get_fignums() == [figure.number]
    assert shown == []


def test_shows(adata: AnnData, shown: list[int]):
    assert targets(adata, drug="Vorinostat", show=True) is None
    assert shown == [1]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        pytest.param({"drug": "JQ1"}, KeyError, r"Did you mean '\(\+/-\)-JQ1'", id="drug"),
        pytest.param({"drug": "DMSO"}, KeyError, "'DMSO' is the control", id="control"),
        pytest.param({"drug": "Vorinostat", "key": "x"}, KeyError, "`x` not found in adata.uns", id="key"),
        pytest.param({"drug": "Vorinostat", "n_genes": 0}, ValueError, "n_genes is 0", id="no genes"),
        pytest.param({"drug": "Vorinostat", "n_genes": -1}, ValueError, "n_genes is -1", id="negative"),
    ],
)
def test_errors_open_no_figure(adata: AnnData, options: dict, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        targets(adata, **options)
    assert plt.get_fignums() == []


def test_leaves_adata_alone(adata: AnnData, unchanged: Callable):
    with unchanged(adata):
        targets(adata, drug="Vorinostat")
