from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from torch import Tensor


class TreatmentInputs(NamedTuple):
    """Inputs of a generator: features and identity of the drug, dose, and cell line."""

    features: Tensor  # (rows, features) scaled; NaN for a drug without features among drugs with features
    drug: Tensor  # (rows,) int64, index among training drugs, -1: unseen
    # (rows,) log of the dose over the geometric mean of the training doses; 0 in a screen without doses, -inf for dose 0
    log_dose: Tensor
    line: Tensor  # (rows,) int64, index among training lines, -1: unseen

    @property
    def featured(self) -> Tensor:
        """Rows of drugs with features, ``(rows,)`` bool; all rows in a screen without features."""
        return ~self.features.isnan().any(1)

    def take(self, rows: Tensor) -> Self:
        """Select rows."""
        return type(self)(*(each[rows] for each in self))
