"""One pass over the cells: everything that linear training needs to know about them."""

from ._statistics import Statistics, accumulate

__all__ = ["Statistics", "accumulate"]
