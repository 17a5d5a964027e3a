from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class TreatmentInputs(NamedTuple):
    """Inputs of a generator: features and identity of the drug, dose, and cell line."""

    features: Tensor  # (rows, features) scaled
    drug: Tensor  # (rows,) int64, index among training drugs, -1: unseen
    # (rows,) log of the dose over the geometric mean of the training doses; 0 in a screen without doses, -inf for dose 0
    log_dose: Tensor
    line: Tensor  # (rows,) int64, index among training lines, -1: unseen
