"""Mechanisms of genes given their parents. A new mechanism is a class in a file of this folder and an entry in :data:`MECHANISMS`."""

from ._base import NOISE_FLOOR, Mechanism
from ._families import parent_index
from ._linear import LinearMechanism
from ._network import NetworkMechanism

__all__ = ["MECHANISMS", "NOISE_FLOOR", "LinearMechanism", "Mechanism", "NetworkMechanism", "parent_index"]

MECHANISMS: dict[str, type[LinearMechanism] | type[NetworkMechanism]] = {
    "linear": LinearMechanism,
    "network": NetworkMechanism,
}
