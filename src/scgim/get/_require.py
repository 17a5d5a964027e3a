from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anndata import AnnData


def require(adata: AnnData, slot: Literal["obsm", "uns", "varp"], key: str) -> Any:
    """The entry `key` of `adata.<slot>`, or an error that names the call which writes it."""
    entries = getattr(adata, slot)
    if key not in entries:
        raise KeyError(f"`{key}` not found in adata.{slot}. Run `model.annotate()` first.")
    return entries[key]


def unknown(kind: str, name: str, known: Iterable[str]) -> KeyError:
    """An error for a name that is not among `known`, with the nearest one that is."""
    known = [str(k) for k in known]
    # difflib's cut-off of .6 hides a short name behind its salt form, as in "JQ1" for "(+/-)-JQ1"
    nearest = get_close_matches(str(name), known, n=1, cutoff=0)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else " There is none."
    return KeyError(f"{kind} {name!r} not found.{hint}")
