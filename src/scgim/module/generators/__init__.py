"""Generators: from drug features, dose and cell line to a distribution over interventions.

A new generator is a class in a file here and an entry in :data:`GENERATORS`; a new dose response an entry in
:data:`DOSE_RESPONSES`.
"""

from ._base import Generator
from ._dose import DOSE_RESPONSES, FreeResponse, HillResponse, NoResponse
from ._hill import HillGenerator
from ._identity import IdentityGenerator
from ._kernel import KernelGenerator
from ._mean import MeanGenerator
from ._network import NetworkGenerator

# from simple to complex: of two that predict equally well, `scgim.model` takes the first
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
