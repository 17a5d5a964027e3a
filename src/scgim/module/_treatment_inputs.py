from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Self

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


class TreatmentInputs(NamedTuple):
    """Inputs of a generator: features and identity of the drug, dose, and cell line."""

    features: Tensor  # (rows, features) scaled; NaN for a drug without features among drugs with features
    drug: Tensor  # (rows,) int64, index among training drugs, -1: unseen
    # (rows,) log of the dose over the geometric mean of the training doses; 0 in a screen without doses, -inf for dose 0
    log_dose: Tensor
    line: Tensor  # (rows,) int64, index among training lines, -1: unseen
    # Further drugs of combinations, in the same rows. A row without a further drug has the log dose -inf there.
    more: TreatmentInputs | None = None

    @property
    def featured(self) -> Tensor:
        """Rows whose drugs all have features, ``(rows,)`` bool; all rows in a screen without features."""
        own = ~self.features.isnan().any(1)
        return own if self.more is None else own & self.more.featured

    @property
    def single(self) -> Tensor:
        """Rows of single drugs, ``(rows,)`` bool."""
        return torch.ones_like(self.drug, dtype=torch.bool) if self.more is None else self.more.log_dose == -torch.inf

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Apply a function to every tensor."""
        more = None if self.more is None else self.more.map(function)
        return type(self)(*map(function, (self.features, self.drug, self.log_dose, self.line)), more)

    def take(self, rows: Tensor) -> Self:
        """Select rows."""
        return self.map(lambda each: each[rows])

    def parts(self) -> tuple[Self, Tensor]:
        """Inputs of every drug of every row, and the row of every drug, ``(parts,)`` int64."""
        rows = torch.arange(len(self.drug))
        if self.more is None:
            return self, rows
        slots, there = [self._replace(more=None)], [torch.ones_like(self.single)]
        more = self.more
        while more is not None:
            slots.append(more._replace(more=None))
            there.append(more.log_dose > -torch.inf)
            more = more.more
        drugs = [slot.take(use) for slot, use in zip(slots, there, strict=True)]
        joined = (torch.cat(each) for each in zip(*(drug[:4] for drug in drugs), strict=True))
        return type(self)(*joined), torch.cat([rows[use] for use in there])
