from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from ._treatment_inputs import TreatmentInputs


class NoiseScale(nn.Module):
    r"""Log scale of the noise of intervened-on genes, a bounded linear map of the drug's features.

    .. math:: s = 3 \tanh\left(\frac{F S + s_0}{3}\right)

    Here :math:`F` are the features, :math:`S` the weights and :math:`s_0` the intercepts. An L2 penalty shrinks :math:`s` towards 0. The
    bound keeps the noise within a factor of :math:`e^3`. A drug without features has the intercepts alone.

    Parameters
    ----------
    n_features, n_genes
        Number of features and genes. Without features every gene has the same scale for all drugs.
    penalty
        L2 weight of :math:`S` in nats.
    """

    def __init__(self, n_features: int, n_genes: int, penalty: float = 5.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_features, n_genes, dtype=torch.float64))
        self.base = nn.Parameter(torch.zeros(n_genes, dtype=torch.float64))
        self.strength = penalty

    def forward(self, inputs: TreatmentInputs) -> Tensor:
        """Log scale of the noise, ``(rows, genes)``; 0 at dose 0."""
        there = (inputs.log_dose > -torch.inf)[:, None]
        return there * 3 * torch.tanh((inputs.features.nan_to_num() @ self.weight + self.base) / 3)

    def penalty(self) -> Tensor:
        """Penalty on the weights and intercepts in nats."""
        return self.strength * (self.weight**2).sum() + (self.base**2).sum()
