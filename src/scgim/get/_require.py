from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

from scgim._anndata import require_anndata

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anndata import AnnData


def require(adata: AnnData, slot: Literal["obsm", "uns", "varp"], key: str) -> Any:
    """The entry `key` of `adata.<slot>`. If it is missing, the error names the call that writes it."""
    require_anndata(adata)
    entries = getattr(adata, slot)
    if key not in entries:
        raise KeyError(f"`{key}` not found in adata.{slot}. Run `model.annotate()` first.")
    return entries[key]


def unknown(kind: str, name: str, known: Iterable[str]) -> KeyError:
    """A KeyError for a name that is not among `known`, with the nearest known name."""
    known = [str(k) for k in known]
    # With difflib's default cutoff of 0.6, a short name would not find its long form, as in "JQ1" for "(+/-)-JQ1".
    nearest = get_close_matches(str(name), known, n=1, cutoff=0)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else " There is none."
    return KeyError(f"{kind} {name!r} not found.{hint}")
