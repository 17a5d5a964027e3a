"""Figures of the results of scgim. Every function draws on `ax` and returns it."""

from __future__ import annotations

from scgim import _keywords

from ._dose_response import dose_response
from ._graph import graph
from ._history import history
from ._shift import shift
from ._targets import targets

__all__ = ["dose_response", "graph", "history", "shift", "targets"]

_keywords.spell_functions(globals(), __all__)
