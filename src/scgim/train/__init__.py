"""The schedule of training: phases, options, calibration, and the selection of a generator. Knows Lightning, and no model."""

from ._checkpoint import Checkpoint
from ._options import TrainingOptions

__all__ = ["Checkpoint", "TrainingOptions"]
