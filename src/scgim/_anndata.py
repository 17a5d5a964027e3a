"""The type of the data: one AnnData whose tables are in memory."""

from __future__ import annotations

from typing import Any


def require_anndata(adata: Any, what: str = "an AnnData", hint: str = "") -> None:
    """Raise TypeError for other types than an AnnData with ``obs`` and ``var`` in memory. The message has the line that makes one.

    Parameters
    ----------
    adata
        Any object.
    what, hint
        What is needed, and a further sentence, for the message.
    """
    from anndata import AnnData

    if not isinstance(adata, AnnData):
        raise TypeError(f"adata must be {what}, not {_article(type(adata).__name__)}.{_fix(adata)}{hint}")
    lazy = [table for table in ("obs", "var") if hasattr(getattr(adata, table), "to_memory")]
    if lazy:
        lines = "; ".join(f"adata.{table} = adata.{table}.to_memory()" for table in lazy)
        raise TypeError(
            f"{' and '.join(lazy)} of adata are lazy tables ({type(getattr(adata, lazy[0])).__name__}), as read_lazy gives them. Read them, "
            f"and leave the matrix on disk: {lines}."
        )


def refuse_view(adata: Any) -> None:
    """Raise TypeError for other types than AnnData, and ValueError for a view: results written to a view never reach its parent."""
    require_anndata(adata)
    if adata.is_view:
        raise ValueError(
            "adata is a view of another AnnData, which would not get the result. Pass a copy: adata = adata.copy()."
        )


def in_memory(table: Any) -> Any:
    """A table of ``.uns`` as a DataFrame, if it is lazy."""
    return table.to_memory() if hasattr(table, "to_memory") and hasattr(table, "columns") else table


def _article(kind: str) -> str:
    return f"{'an' if kind[0] in 'AEIOUaeiou' else 'a'} {kind}"


def _fix(adata: Any) -> str:
    """What makes an AnnData of an object, as a sentence."""
    kind = type(adata).__name__
    if kind.startswith("MuData"):
        names = ", ".join(map(repr, adata.mod))
        first = next(iter(adata.mod), "rna")
        return (
            f" Pass one modality (there is {names}), with the columns of obs that it needs: mdata.push_obs(); "
            f"adata = mdata.mod[{first!r}]."
        )
    if kind.startswith("AnnCollection"):
        return " Make one of it: adata = collection.to_adata(), or anndata.experimental.concat_on_disk for files."
    if kind == "SpatialData":
        return " Pass one of its tables: adata = sdata.tables[...]."
    if isinstance(adata, str) or hasattr(adata, "__fspath__"):
        return f" Read it: adata = anndata.read_h5ad({str(adata)!r})."
    if hasattr(adata, "columns") and hasattr(adata, "index"):
        return " Make one: anndata.AnnData(X, obs=obs)."
    return ""
