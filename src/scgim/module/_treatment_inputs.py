from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class TreatmentInputs(NamedTuple):
    """What a generator is told of rows: a drug's features and identity, the dose, the cell line."""

    features: Tensor  # (rows, features) scaled
    drug: Tensor  # (rows,) int64, index among training drugs, -1 unseen
    log_dose: (
        Tensor  # (rows,) log of dose over the training doses' geometric mean, 0 where nothing is dosed, -inf for dose 0
    )
    line: Tensor  # (rows,) int64, index among training lines, -1 unseen
