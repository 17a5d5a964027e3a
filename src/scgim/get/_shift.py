from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData

from scgim._gene_order import by_gene
from scgim._keys import SHIFT, TARGETS, UNS

from ._dendrogram import dendrogram
from ._require import require

if TYPE_CHECKING:
    from typing import Any


def shift_adata(adata: AnnData, *, key: str = SHIFT) -> AnnData:
    """The predicted shift as an AnnData of its own, for any scanpy plot.

    scanpy's plots read ``X`` and layers, never ``obsm``. The returned AnnData holds the predicted change of every cell in ``X``, so that
    :func:`scanpy.pl.matrixplot`, :func:`scanpy.pl.dotplot` and ``scanpy.pl.rank_genes_groups_matrixplot(shift, key="scgim_targets")``
    show changes. ``uns["log1p"]`` is not set, because a difference is not a logarithm of counts.

    Parameters
    ----------
    adata
        Annotated data.
    key
        Key in ``adata.obsm`` of the change, (cells, genes): an array of :meth:`scgim.GIM.annotate`, whose columns are matched to genes by
        name, a DataFrame, or another array with the columns of ``adata.var_names``.

    Returns
    -------
    A new AnnData (cells, genes) that shares no memory with `adata`, with the genes of `adata` that :meth:`scgim.GIM.annotate` wrote. ``X``
    is the change on the training scale, 0 for controls and NaN for cells that were not annotated. ``obs``,
    ``var``, the embeddings ``obsm["X_..."]``, the colors and scgim's entries of ``uns`` are copied.
    ``uns["dendrogram_<drug_key>"]`` is the dendrogram of the drugs' mean changes by Euclidean distance. scanpy's own dendrogram, by
    correlation, is undefined for a control without any change.

    Raises
    ------
    KeyError
        If there is no such key.
    ValueError
        If the columns cannot be matched to genes.

    Examples
    --------
    >>> import numpy as np
    >>> import scgim
    >>> from anndata import AnnData
    >>> adata = AnnData(np.ones((2, 3), dtype="float32"))
    >>> adata.obs["drug"] = ["DMSO", "Akti-1/2"]
    >>> adata.obsm["scgim_shift"] = np.array([[0, 0, 0], [0.5, 0, -1]], dtype="float32")
    >>> shift = scgim.get.shift_adata(adata)
    >>> shift[shift.obs["drug"] == "Akti-1/2"].X
    ArrayView([[ 0.5,  0. , -1. ]], dtype=float32)
    """
    change, genes = by_gene(adata, key, require(adata, "obsm", key))
    embeddings = {name: deepcopy(adata.obsm[name]) for name in adata.obsm if name.startswith("X_")}
    colors = [f"{column}_colors" for column in adata.obs]
    uns = {name: _plain(adata.uns[name]) for name in (UNS, TARGETS, *colors) if name in adata.uns}
    if TARGETS in uns:
        uns[TARGETS] = _of_genes(uns[TARGETS], set(genes))
    groupby = uns.get(TARGETS, {}).get("params", {}).get("groupby")
    if groupby in adata.obs and (tree := dendrogram(change, adata.obs[groupby])):
        uns[f"dendrogram_{groupby}"] = tree
    known = set(adata.var_names)
    var = adata.var.loc[genes] if all(gene in known for gene in genes) else pd.DataFrame(index=pd.Index(genes))
    return AnnData(change, obs=adata.obs.copy(), var=var.copy(), obsm=embeddings, uns=uns)


def _of_genes(targets: dict[str, Any], genes: set[str]) -> dict[str, Any]:
    """The ranking without other genes, for which scanpy's plots would look in vain. Every group ranks all genes once."""
    keep = {drug: np.isin(targets["names"][drug].astype(str), list(genes)) for drug in targets["names"].dtype.names}
    if all(each.all() for each in keep.values()) or len({int(each.sum()) for each in keep.values()}) > 1:
        return targets
    return {
        field: values
        if field == "params"
        else np.rec.fromarrays([values[drug][keep[drug]] for drug in keep], dtype=values.dtype)
        for field, values in targets.items()
    }


def _plain(value: Any) -> Any:
    # In the uns of a view, dicts are proxies that write to their parent, even after a copy.
    return {k: _plain(v) for k, v in value.items()} if hasattr(value, "items") else deepcopy(value)
