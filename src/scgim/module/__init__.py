"""The model in torch: mechanisms, interventions, generators, likelihood, posterior and structural equations."""

from ._module import GIMModule
from ._moments import CERTAIN, CellStore, Controls, FeatureEvidence, MeasuredConditions, Moments, cell_moments
from ._noise_scale import NoiseScale
from ._treatment_inputs import TreatmentInputs
from .generators import GENERATORS
from .interventions import INTERVENTIONS, Hard, Shift
from .likelihood import DOUBT, complete_log_likelihood, log_likelihoods, marginal_log_likelihood, noise_loss
from .mechanisms import MECHANISMS, LinearMechanism, NetworkMechanism
from .readout import Readout, ReadoutData, ReadoutReplicates
from .responses import Responses, Rows
from .scm import Action, abduct, counterfactual, draw_noise, propagate

__all__ = [
    "CERTAIN",
    "DOUBT",
    "GENERATORS",
    "INTERVENTIONS",
    "MECHANISMS",
    "Action",
    "CellStore",
    "TreatmentInputs",
    "TreatmentInputs",
    "Controls",
    "FeatureEvidence",
    "GIMModule",
    "Hard",
    "LinearMechanism",
    "MeasuredConditions",
    "Moments",
    "NetworkMechanism",
    "Readout",
    "ReadoutData",
    "ReadoutReplicates",
    "Responses",
    "Rows",
    "NoiseScale",
    "Shift",
    "abduct",
    "cell_moments",
    "complete_log_likelihood",
    "counterfactual",
    "draw_noise",
    "log_likelihoods",
    "marginal_log_likelihood",
    "noise_loss",
    "propagate",
]
