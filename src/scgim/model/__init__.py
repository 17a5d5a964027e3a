"""The model class and its verbs; the one place that knows scvi-tools."""

from ._gim import GIM

__all__ = ["GIM"]
