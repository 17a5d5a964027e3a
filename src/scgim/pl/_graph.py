from __future__ import annotations

from typing import TYPE_CHECKING

import networkx as nx
import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from scgim._keys import GRAPH
from scgim.get import graph_df, targets_df

from ._draw import WIDTH, draw_edge, draw_gene, font_size
from ._layers import layers
from ._style import DOWN, UP, finish, new_axes, positive

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes

NEUTRAL, UP_FILL, DOWN_FILL = "#f2f2f2", "#f4a582", "#92c5de"


def graph(
    adata: AnnData,
    *,
    n_edges: int = 50,
    drug: str | None = None,
    n_targets: int = 10,
    key: str = GRAPH,
    ax: Axes | None = None,
    show: bool | None = None,
) -> Axes | None:
    """Draw the strongest edges of the causal graph in topological generations, causes left, effects right.

    Parameters
    ----------
    adata
        Annotated data.
    n_edges
        Largest number of edges, chosen by absolute weight. Genes without a drawn edge are left out.
    drug
        Drug whose targets are highlighted: red if the drug raises the gene, blue if it lowers it.
    n_targets
        Largest number of targets: the first genes by rank with a probability above 0.5.
    key
        Key in ``adata.varp``.
    ax
        Axes to draw on; by default a new figure, large enough for the names.
    show
        Show the figure and return nothing.

    Returns
    -------
    The axes. Every edge is one :class:`~matplotlib.patches.FancyArrowPatch`. Its width shows the absolute weight: the change of the
    target for a change of the source by 1, both in control SD.

    Raises
    ------
    KeyError
        If there is no such key or drug.
    ValueError
        If the edges to draw form a cycle.

    Examples
    --------
    >>> import numpy as np
    >>> import scgim
    >>> from anndata import AnnData
    >>> from scipy import sparse
    >>> adata = AnnData(np.zeros((3, 3), dtype="float32"))
    >>> adata.var_names = ["IRF1", "STAT1", "MYC"]
    >>> adata.varp["scgim_graph"] = sparse.csr_matrix([[0, 0, -0.2], [0.7, 0, 0], [0, 0, 0]])
    >>> ax = scgim.pl.graph(adata)
    >>> sorted(text.get_text() for text in ax.texts)
    ['IRF1', 'MYC', 'STAT1']
    """
    edges = graph_df(adata, key=key)
    drawn = edges.head(positive("n_edges", n_edges))
    fills = {} if drug is None else _target_fills(adata, drug, positive("n_targets", n_targets))
    dag = nx.DiGraph()
    dag.add_nodes_from(fills)
    dag.add_edges_from(zip(drawn["source"], drawn["target"], strict=True))
    plan = layers(dag)

    bends = [point for way in plan.edges.values() for point in way]
    xy = np.array([*plan.nodes.values(), *bends] or [(0.0, 0.0)])
    low, high = xy.min(axis=0) - 0.5, xy.max(axis=0) + 0.5
    longest = max((len(gene) for gene in dag), default=1)
    if ax is None:
        per_level = max(1.5, (0.085 * longest + 0.1) / WIDTH)
        ax = new_axes(max(5.0, per_level * (high - low)[0]), max(2.5, 1.4 + 0.26 * (high - low)[1]))
    ax.set_xlim(low[0], high[0])
    ax.set_ylim(high[1], low[1])
    ax.set_axis_off()
    ax.set_title(_title(len(drawn), len(edges), drug), fontsize="medium")

    strongest = drawn["weight"].abs().max()
    for source, target, weight in drawn[["source", "target", "weight"]].itertuples(index=False):
        draw_edge(ax, plan.edges[source, target], weight, abs(weight) / strongest)
    _legend(ax, drawn, fills)
    size = font_size(ax, longest)
    for gene, (x, y) in plan.nodes.items():
        draw_gene(ax, gene, x, y, fills.get(gene, NEUTRAL), size)
    return finish(ax, show)


def _target_fills(adata: AnnData, drug: str, n: int) -> dict[str, str]:
    table = targets_df(adata, drug=drug)
    table = table[table["probability"] > 0.5].head(n)
    return {
        gene: UP_FILL if way == "up" else DOWN_FILL for gene, way in zip(table["gene"], table["direction"], strict=True)
    }


def _title(n_drawn: int, n_all: int, drug: str | None) -> str:
    what = f"{n_drawn} strongest of {n_all} edges" if n_drawn < n_all else f"{n_all} edges"
    whose = "" if drug is None else f", targets of {drug}"
    return f"Causal graph: {what}{whose}"


def _legend(ax: Axes, drawn: pd.DataFrame, fills: dict[str, str]) -> None:
    entries = [
        Line2D([], [], color=UP, label="raises") if (drawn["weight"] > 0).any() else None,
        Line2D([], [], color=DOWN, label="lowers") if (drawn["weight"] < 0).any() else None,
        Patch(facecolor=UP_FILL, edgecolor="#666666", label="target, up") if UP_FILL in fills.values() else None,
        Patch(facecolor=DOWN_FILL, edgecolor="#666666", label="target, down") if DOWN_FILL in fills.values() else None,
    ]
    if handles := [entry for entry in entries if entry]:
        ax.legend(
            handles=handles,
            ncols=2,
            title="width: change of target per\nchange of source, in control SD",
            alignment="left",
            loc="upper center",
            bbox_to_anchor=(0.5, 0),
            frameon=False,
            fontsize="small",
            title_fontsize="small",
        )
