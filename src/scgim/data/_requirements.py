"""Data requirements of a model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DataRequirements:
    """Data requirements of a model in addition to means and pooled scatter."""

    own: bool = False  # scatter of every condition
    cells: bool = False  # sampled cells, and statistics of a nonlinear basis
    means: bool = False  # condition means with their errors, for a graph learned from means
    readout: bool = False  # statistics of the readout genes
