"""The demonstration on real cells: Sachs et al. 2005, from training to a held-out drug."""

from ._run import run

__all__ = ["run"]
