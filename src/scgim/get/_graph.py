from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from scgim._keys import GRAPH

from ._require import require

if TYPE_CHECKING:
    import networkx as nx
    from anndata import AnnData


def graph_df(adata: AnnData, *, key: str = GRAPH) -> pd.DataFrame:
    """The causal graph between genes as a table of edges.

    decoupler takes the columns ``source``, ``target`` and ``weight`` as ``net``.

    Parameters
    ----------
    adata
        Annotated data.
    key
        Key in ``adata.varp`` of a matrix (genes, genes): row = source, column = target.

    Returns
    -------
    One row per edge, strongest first (equal weights by source, then target), with the index 0, ..., n - 1 and the columns

    - ``source``, ``target``: names of genes
    - ``weight``: change of the target for a change of the source by 1, both in control SD
    - ``sign``: sign of the weight, -1 or 1

    Raises
    ------
    KeyError
        If there is no such key.

    Examples
    --------
    >>> import numpy as np
    >>> import scgim
    >>> from anndata import AnnData
    >>> from scipy import sparse
    >>> adata = AnnData(np.zeros((3, 3), dtype="float32"))
    >>> adata.var_names = ["IRF1", "STAT1", "MYC"]
    >>> adata.varp["scgim_graph"] = sparse.csr_matrix([[0, 0, -0.2], [0.7, 0, 0], [0, 0, 0]])
    >>> scgim.get.graph_df(adata)
      source target  weight  sign
    0  STAT1   IRF1     0.7     1
    1   IRF1    MYC    -0.2    -1
    """
    graph = sparse.csr_array(require(adata, "varp", key)).tocoo()
    genes = adata.var_names.to_numpy(dtype=object)
    edges = pd.DataFrame(
        {"source": genes[graph.row], "target": genes[graph.col], "weight": graph.data.astype(np.float64)}
    )
    edges = edges[edges["weight"] != 0]
    edges["sign"] = np.sign(edges["weight"]).astype(int)
    order = edges.assign(strength=-edges["weight"].abs()).sort_values(["strength", "source", "target"]).index
    return edges.loc[order].reset_index(drop=True)


def graph_nx(adata: AnnData, *, key: str = GRAPH) -> nx.DiGraph:
    """The causal graph between genes as a :class:`networkx.DiGraph`.

    Parameters
    ----------
    adata
        Annotated data.
    key
        Key in ``adata.varp``.

    Returns
    -------
    A graph whose nodes are all genes, in the order of ``adata.var_names``. Edges carry the ``weight`` of :func:`graph_df`.

    Raises
    ------
    KeyError
        If there is no such key.

    Examples
    --------
    >>> import numpy as np
    >>> import scgim
    >>> from anndata import AnnData
    >>> from scipy import sparse
    >>> adata = AnnData(np.zeros((3, 3), dtype="float32"))
    >>> adata.var_names = ["IRF1", "STAT1", "MYC"]
    >>> adata.varp["scgim_graph"] = sparse.csr_matrix([[0, 0, 0], [0.7, 0, 0], [0, 0, 0]])
    >>> graph = scgim.get.graph_nx(adata)
    >>> list(graph), list(graph.edges(data="weight"))
    (['IRF1', 'STAT1', 'MYC'], [('STAT1', 'IRF1', 0.7)])
    """
    import networkx as nx

    edges = graph_df(adata, key=key)
    graph = nx.DiGraph()
    graph.add_nodes_from(adata.var_names)
    graph.add_weighted_edges_from(zip(edges["source"], edges["target"], edges["weight"], strict=True))
    return graph
