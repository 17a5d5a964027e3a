"""Names of the columns of arrays in ``.obsm``, whose columns AnnData neither names nor moves with the genes.

A subset of the genes leaves the columns of ``.obsm`` as they are, and a concatenation stacks columns of different genes. The order of the
columns therefore has a code, which every cell carries, and the names of an order are stored by its code. Codes and names survive subsets,
files and :func:`anndata.concat`.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from scgim import _keys

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anndata import AnnData


def order_code(names: Iterable[str]) -> str:
    """Code of an order of genes, a whole number as text, below 2^48 and so exact in float64."""
    digest = hashlib.sha256("\n".join(map(str, names)).encode()).digest()
    return str(int.from_bytes(digest[:6], "big"))


def write_order(adata: AnnData, names: np.ndarray) -> dict[str, np.ndarray]:
    """Write the code of every cell, and return the names by code, for ``.uns["scgim"]["genes"]``."""
    code = order_code(names)
    adata.obsm[_keys.GENE_ORDER] = np.full((adata.n_obs, 1), float(code))
    return {code: names.astype(object)}


def orders(adata: AnnData) -> dict[str, np.ndarray]:
    """Names of columns by code, as far as they are known: those that were written, and those of the present genes."""
    about = adata.uns.get(_keys.UNS, {})
    known = about.get("genes", {}) if hasattr(about, "items") else {}
    known = (
        {str(code): np.array([*map(str, names)]) for code, names in known.items()} if hasattr(known, "items") else {}
    )
    present = adata.var_names.to_numpy(str)
    return {order_code(present): present, **known}


def by_gene(adata: AnnData, key: str, values: Any) -> tuple[np.ndarray, np.ndarray]:
    """Columns of an array of ``.obsm`` matched to genes by name.

    Parameters
    ----------
    adata, key
        The AnnData, and the key of the array in messages.
    values
        Array ``(cells, columns)``, or a DataFrame, whose columns are names.

    Returns
    -------
    Values ``(cells, genes)`` and names ``(genes,)``: genes of ``.var_names`` in their order, then readout genes of ``.obsm``. Cells without
    a code (of an AnnData that was not annotated before a concatenation) have NaN.

    Raises
    ------
    ValueError
        If it is not known which gene a column belongs to, or no gene of the AnnData has a column.
    """
    if hasattr(values, "columns"):
        return _arranged(
            adata, key, [(np.ones(adata.n_obs, dtype=bool), values.to_numpy(), values.columns.to_numpy(str))]
        )
    values, known = np.asarray(values.toarray() if hasattr(values, "toarray") else values), orders(adata)
    if _keys.GENE_ORDER not in adata.obsm:
        written = {code: names for code, names in known.items() if len(names) == values.shape[1]}
        if len(written) != 1 or (len(known) > 1 and order_code(adata.var_names) in written):
            raise _unmatched(key, f"has {values.shape[1]} columns without names, and adata has {adata.n_vars} genes")
        return _arranged(adata, key, [(np.ones(adata.n_obs, dtype=bool), values, next(iter(written.values())))])
    codes, parts = np.asarray(adata.obsm[_keys.GENE_ORDER], dtype=float)[:, 0], []
    for code in np.unique(codes[~np.isnan(codes)]):
        names = known.get(f"{code:.0f}")
        if names is None or len(names) != values.shape[1]:
            raise _unmatched(
                key, "has columns whose genes are not known, as after a concatenation without uns_merge='first'"
            )
        parts.append((codes == code, values[codes == code], names))
    return _arranged(adata, key, parts)


def _arranged(
    adata: AnnData, key: str, parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    """Values of parts of the cells, each ``(cells of the part, its values, names of its columns)``, in one order of genes."""
    present = adata.var_names.to_numpy(str)
    common = set.intersection(*(set(names) for _, _, names in parts)) if parts else set(present)
    genes = [gene for gene in [*present, *_readout(adata)] if gene in common]
    if not genes:
        raise _unmatched(
            key, f"has no column of a gene of adata, such as '{present[0]}'" if len(present) else "has no gene"
        )
    out = np.full((adata.n_obs, len(genes)), np.nan, dtype=np.result_type(np.float32, *(x.dtype for _, x, _ in parts)))
    for rows, values, names in parts:
        place = {name: i for i, name in enumerate(names)}
        out[rows] = values[:, [place[gene] for gene in genes]]
    return out, np.array(genes, dtype=object)


def _readout(adata: AnnData) -> list[str]:
    """Readout genes in a DataFrame of ``.obsm``, which are not among the genes."""
    settings = adata.uns.get(_keys.UNS, {}).get("settings", {})
    key = settings.get("readout") or None
    frame = adata.obsm[key] if key in adata.obsm else None
    return list(map(str, frame.columns)) if hasattr(frame, "columns") else []


def _unmatched(key: str, why: str) -> ValueError:
    return ValueError(
        f"adata.obsm[{key!r}] {why}, so its columns cannot be matched to genes. Write it anew: model.annotate(adata)."
    )
