from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path

from scgim.get import graph_df, targets_df
from scgim.pl import graph
from scgim.pl._graph import DOWN_FILL, NEUTRAL, UP_FILL
from scgim.pl._style import DOWN, UP

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData


def arrows(ax: Axes) -> list[FancyArrowPatch]:
    return [patch for patch in ax.patches if isinstance(patch, FancyArrowPatch)]


def fills(ax: Axes) -> dict[str, tuple[float, float, float]]:
    boxes = [patch for patch in ax.patches if isinstance(patch, FancyBboxPatch)]
    names = [text.get_text() for text in ax.texts]
    return {name: to_rgb(box.get_facecolor()) for name, box in zip(names, boxes, strict=True)}


@pytest.mark.parametrize("n_edges", [1, 7, 20, 50])
def test_the_strongest_edges(adata: AnnData, n_edges: int):
    ax = graph(adata, n_edges=n_edges)
    table = graph_df(adata).head(n_edges)
    assert isinstance(ax, Axes)
    assert len(arrows(ax)) == len(table) == min(n_edges, 20)
    assert set(fills(ax)) == set(table["source"]) | set(table["target"])
    assert set(fills(ax).values()) == {to_rgb(NEUTRAL)}
    # drawn from the strongest on
    widths = [arrow.get_linewidth() for arrow in arrows(ax)]
    assert widths == sorted(widths, reverse=True)
    colors = [to_rgb(arrow.get_edgecolor()) for arrow in arrows(ax)]
    assert colors == [to_rgb(UP if weight > 0 else DOWN) for weight in table["weight"]]
    assert ax.get_title() == "Causal graph: " + (f"{n_edges} strongest of 20 edges" if n_edges < 20 else "20 edges")


@pytest.mark.parametrize("n_targets", [1, 3, 10])
def test_targets_are_highlighted(adata: AnnData, n_targets: int):
    ax = graph(adata, n_edges=3, drug="(+/-)-JQ1", n_targets=n_targets)
    table = targets_df(adata, drug="(+/-)-JQ1")
    table = table[table["probability"] > 0.5].head(n_targets)
    expected = {
        gene: to_rgb(UP_FILL if effect > 0 else DOWN_FILL)
        for gene, effect in zip(table["gene"], table["effect"], strict=True)
    }
    assert {gene: fill for gene, fill in fills(ax).items() if fill != to_rgb(NEUTRAL)} == expected
    assert "targets of (+/-)-JQ1" in ax.get_title()
    assert len(arrows(ax)) == 3


def test_names_fit_their_boxes_and_nothing_is_cut_off(annotated: Callable[..., AnnData]):
    adata = annotated(genes=[f"ENSG00000{i:06d}" for i in range(40)], n_edges=60)
    ax = graph(adata, n_edges=60, drug="Akti-1/2")
    ax.figure.draw_without_rendering()
    inside = ax.get_window_extent()
    boxes = [patch.get_window_extent() for patch in ax.patches if isinstance(patch, FancyBboxPatch)]
    for text, box in zip(ax.texts, boxes, strict=True):
        extent = text.get_window_extent()
        assert box.x0 <= extent.x0
        assert extent.x1 <= box.x1
        assert inside.x0 <= box.x0
        assert box.x1 <= inside.x1
        assert inside.y0 <= box.y0
        assert box.y1 <= inside.y1
    for box in boxes:
        assert box.count_overlaps(boxes) == 1
    low, high = sorted(ax.get_ylim())
    for arrow in arrows(ax):
        path = arrow.get_path()
        y = path.vertices[path.codes != Path.CLOSEPOLY, 1]
        assert low < y.min()
        assert y.max() < high


def test_no_edges(annotated: Callable[..., AnnData]):
    adata = annotated(n_edges=0)
    ax = graph(adata)
    assert ax.get_title() == "Causal graph: 0 edges"
    assert len(ax.patches) == 0
    assert ax.get_legend() is None
    assert len(fills(graph(adata, drug="Vorinostat"))) > 0


@pytest.mark.parametrize("nested", [False, True])
def test_draws_where_it_is_told(adata: AnnData, shown: list[int], nested: bool):
    figure = plt.figure(layout="constrained")
    ax = figure.subfigures(1, 2)[0].subplots() if nested else figure.subplots()
    assert graph(adata, ax=ax) is ax
    assert plt.get_fignums() == [figure.number]
    assert shown == []
    figure.draw_without_rendering()


def test_shows(adata: AnnData, shown: list[int]):
    assert graph(adata, show=True) is None
    assert shown == [1]


def test_legend_explains_the_colors(adata: AnnData):
    legend = graph(adata, drug="(+/-)-JQ1").get_legend()
    assert [t.get_text() for t in legend.get_texts()] == ["raises", "lowers", "target, up", "target, down"]
    assert "control SD" in legend.get_title().get_text()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        pytest.param({"drug": "Akti"}, KeyError, "Did you mean 'Akti-1/2'", id="drug"),
        pytest.param({"key": "x"}, KeyError, "`x` not found in adata.varp. Run `model.annotate", id="key"),
        pytest.param({"n_edges": 0}, ValueError, "n_edges is 0", id="no edges"),
        pytest.param({"drug": "Vorinostat", "n_targets": 0}, ValueError, "n_targets is 0", id="no targets"),
    ],
)
def test_errors_open_no_figure(adata: AnnData, options: dict, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        graph(adata, **options)
    assert plt.get_fignums() == []


def test_a_cycle_is_an_error(adata: AnnData):
    adata.varp["cyclic"] = np.ones((adata.n_vars, adata.n_vars)) - np.eye(adata.n_vars)
    with pytest.raises(ValueError, match="The graph has a cycle"):
        graph(adata, key="cyclic")


def test_leaves_adata_alone(adata: AnnData, unchanged: Callable):
    with unchanged(adata):
        graph(adata, drug="Vorinostat")
