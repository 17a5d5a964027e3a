"""The model in torch: mechanisms, interventions, generators, the likelihood that joins them, and the causal model at work."""

from ._conditions import Conditions
from ._module import GIMModule
from ._moments import CellStore, Contexts, Controls, FeatureEvidence, Moments, cell_moments
from ._scale import ScaleMap
from .generators import GENERATORS
from .interventions import INTERVENTIONS, Hard, Shift
from .likelihood import complete, evidence, mixture, noise_loss
from .mechanisms import MECHANISMS, LinearMechanism, NetworkMechanism
from .responses import Responses, Rows
from .scm import Action, abduct, counterfactual, draw_noise, propagate

__all__ = [
    "GENERATORS",
    "INTERVENTIONS",
    "MECHANISMS",
    "Action",
    "CellStore",
    "Conditions",
    "Contexts",
    "Controls",
    "FeatureEvidence",
    "GIMModule",
    "Hard",
    "LinearMechanism",
    "Moments",
    "NetworkMechanism",
    "Responses",
    "Rows",
    "ScaleMap",
    "Shift",
    "abduct",
    "cell_moments",
    "complete",
    "counterfactual",
    "draw_noise",
    "evidence",
    "mixture",
    "noise_loss",
    "propagate",
]
