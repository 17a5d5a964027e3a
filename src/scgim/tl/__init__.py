"""Tools that work on a whole screen."""

from scgim._keywords import spell_functions

from ._cross_validate import cross_validate

__all__ = ["cross_validate"]

spell_functions(globals(), __all__)
