"""Tools that work on a whole screen."""

from scgim import _keywords

from ._cross_validate import cross_validate

__all__ = ["cross_validate"]

_keywords.spell_functions(globals(), __all__)
