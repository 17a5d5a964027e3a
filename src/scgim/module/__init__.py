"""The model in torch: mechanisms, generators, the likelihood that joins them, and the causal model at work."""

from ._module import Contexts, Controls, GIMModule
from .generator import GENERATORS, HillGenerator, IdentityGenerator
from .likelihood import complete, mixture, scatter_loss, shift_evidence
from .mechanisms import MECHANISMS, LinearMechanism
from .scm import abduct, counterfactual, draw_noise, propagate

__all__ = [
    "GENERATORS",
    "MECHANISMS",
    "Contexts",
    "Controls",
    "GIMModule",
    "HillGenerator",
    "IdentityGenerator",
    "LinearMechanism",
    "abduct",
    "complete",
    "counterfactual",
    "draw_noise",
    "mixture",
    "propagate",
    "scatter_loss",
    "shift_evidence",
]
