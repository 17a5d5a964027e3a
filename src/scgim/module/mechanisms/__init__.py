"""Mechanisms: how a gene follows from its parents. A new one is a class in a file here and an entry in :data:`MECHANISMS`."""

from ._families import parent_index
from ._linear import LinearMechanism
from ._network import NetworkMechanism

__all__ = ["MECHANISMS", "LinearMechanism", "NetworkMechanism", "parent_index"]

MECHANISMS = {"linear": LinearMechanism, "network": NetworkMechanism}
