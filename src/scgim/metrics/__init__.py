"""Pure functions on arrays, the formula in the docstring."""

from ._graph import edge_precision_recall, shd

__all__ = ["edge_precision_recall", "shd"]
