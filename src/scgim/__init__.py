"""Which genes does a drug act on, and what will a drug nobody has tried do to these cells?"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from . import datasets, get, metrics, pl, pp, tl, train
    from .model import GIM

__all__ = ["GIM", "__version__", "datasets", "get", "metrics", "pl", "pp", "setup_anndata", "tl", "train"]


def __getattr__(name: str) -> Any:
    # importing scvi-tools takes seconds, so everything is loaded when it is first asked for
    if name == "setup_anndata":
        return import_module("scgim.model").GIM.setup_anndata
    if name == "GIM":
        return import_module("scgim.model").GIM
    if name in __all__:
        return import_module(f"scgim.{name}")
    raise AttributeError(f"module 'scgim' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
