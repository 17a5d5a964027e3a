"""Data sets: shipped (`sachs`, `sciplex3_drugs`) and simulated with known truth (`simulate_screen`)."""

from scgim import _keywords

from ._sachs import sachs
from ._sciplex import sciplex3_drugs
from ._simulate import simulate_screen

__all__ = ["sachs", "sciplex3_drugs", "simulate_screen"]

_keywords.spell_functions(globals(), __all__)
