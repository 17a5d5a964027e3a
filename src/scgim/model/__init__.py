"""The model class. Only this folder imports scvi-tools."""

from ._gim import GIM

__all__ = ["GIM"]
