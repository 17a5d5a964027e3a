"""Access to the results that `model.annotate()` wrote into an AnnData."""

from __future__ import annotations

from scgim import _keywords

from ._graph import graph_df, graph_nx
from ._shift import shift_adata
from ._targets import targets_df

__all__ = ["graph_df", "graph_nx", "shift_adata", "targets_df"]

_keywords.spell_functions(globals(), __all__)
