"""Preparing a screen: drug structures, splits and checks. Needs neither torch nor scvi-tools."""

from ._check import check
from ._chemistry import StandardizedMolecule, standardize
from ._featurize import featurize_drugs
from ._fingerprints import fingerprints
from ._leaks import audit_split
from ._split import split

__all__ = ["StandardizedMolecule", "audit_split", "check", "featurize_drugs", "fingerprints", "split", "standardize"]
