"""Tools that work on a whole screen."""

from ._cross_validate import cross_validate

__all__ = ["cross_validate"]
