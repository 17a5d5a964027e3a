"""Generators: from drug features, dose and cell line to a distribution over interventions.

A new generator is a class in a file of this folder and an entry in :data:`GENERATORS`. A new dose response is an entry in
:data:`DOSE_RESPONSES`.
"""

from ._base import Generator
from ._dose import DOSE_RESPONSES, FreeResponse, HillResponse, NoResponse
from ._hill import HillGenerator
from ._identity import IdentityGenerator
from ._kernel import KernelGenerator
from ._mean import MeanGenerator
from ._network import NetworkGenerator

# Ordered from simple to complex. Cross-validation takes the first of several generators that predict equally well.
GENERATORS: dict[str, type[Generator]] = {
    "mean": MeanGenerator,
    "kernel": KernelGenerator,
    "hill": HillGenerator,
    "network": NetworkGenerator,
    "identity": IdentityGenerator,
}

__all__ = [
    "DOSE_RESPONSES",
    "GENERATORS",
    "FreeResponse",
    "Generator",
    "HillGenerator",
    "HillResponse",
    "IdentityGenerator",
    "KernelGenerator",
    "MeanGenerator",
    "NetworkGenerator",
    "NoResponse",
]
