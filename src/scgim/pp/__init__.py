"""Preparation of a screen: drug structures, splits and checks. Needs neither torch nor scvi-tools.

``standardise`` is an alias of ``standardize``.
"""

from scgim import _keywords

from ._check import check
from ._chemistry import StandardizedMolecule, standardize
from ._featurize import featurize_drugs
from ._fingerprints import fingerprints
from ._leaks import audit_split
from ._split import split

__all__ = ["StandardizedMolecule", "audit_split", "check", "featurize_drugs", "fingerprints", "split", "standardize"]

_keywords.spell_functions(globals(), __all__)


def __getattr__(name: str) -> object:
    # The alias is resolved here, so that the documented names are those of __all__.
    if name == "standardise":
        return standardize
    raise AttributeError(f"module 'scgim.pp' has no attribute {name!r}; it has {', '.join(__all__)}.")
