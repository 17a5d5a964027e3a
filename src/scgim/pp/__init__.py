"""Preparing a screen: drug structures and splits. Needs neither torch nor scvi-tools."""

from ._chemistry import Structure, standardise
from ._featurize import featurize_drugs
from ._fingerprints import fingerprints
from ._split import split

__all__ = ["Structure", "featurize_drugs", "fingerprints", "split", "standardise"]
