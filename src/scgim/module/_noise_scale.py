from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from ._treatment_inputs import TreatmentInputs


class NoiseScale(nn.Module):
    r"""How far a touched mechanism's noise is scaled: :math:`s = F S + s_0` on the log scale, shrunk to no change.

    Parameters
    ----------
    n_features, n_genes
        Sizes. Without features every gene has one scale for all drugs.
    penalty
        L2 weight in nats.
    """

    def __init__(self, n_features: int, n_genes: int, penalty: float = 5.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_features, n_genes, dtype=torch.float64))
        self.base = nn.Parameter(torch.zeros(n_genes, dtype=torch.float64))
        self.strength = penalty

    def forward(self, inputs: TreatmentInputs) -> Tensor:
        """``(rows, genes)``, 0 at dose 0, within a factor of e^3 of no change: beyond that it is a gene that stands still."""
        there = (inputs.log_dose > -torch.inf)[:, None]
        return there * 3 * torch.tanh((inputs.features @ self.weight + self.base) / 3)

    def penalty(self) -> Tensor:
        """Nats charged for the map."""
        return self.strength * (self.weight**2).sum() + (self.base**2).sum()
