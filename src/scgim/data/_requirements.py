"""What a model needs of the cells."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DataRequirements:
    """What a model needs of the cells besides means and pooled scatter."""

    own: bool = False  # every condition's own scatter
    cells: bool = False  # cells themselves, and the statistics of a nonlinear basis
    means: bool = False  # the conditions' means with their errors, which the graph is then learned from
