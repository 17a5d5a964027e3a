"""Dose responses: the factor of psi as a function of the dose."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_KNOTS = 8


class NoResponse(nn.Module):
    """A constant response: 1 at every dose above 0, and 0 at dose 0.

    Parameters
    ----------
    n_inputs
        Length of the encoding of a drug.
    log_doses
        Distinct training log doses.
    """

    def __init__(self, n_inputs: int, log_doses: Sequence[float] = ()) -> None:
        super().__init__()

    def forward(self, encoding: Tensor, log_dose: Tensor, row: Tensor | None = None) -> Tensor:
        """Factor of psi, ``(rows, 1)``, from the drugs' encodings ``(rows, inputs)`` and log doses ``(rows,)``.

        With ``row``, ``(rows,)``, encodings are those of distinct drugs, and it is the drug of every row.
        """
        return (log_dose > -torch.inf).to(log_dose.dtype)[:, None]

    def penalty(self) -> Tensor:
        """Penalty on the parameters in nats."""
        return torch.zeros((), dtype=torch.float64)

    @torch.no_grad()
    def reset(self) -> None:
        """Set all parameters to 0."""
        for parameter in self.parameters():
            parameter.zero_()


class HillResponse(NoResponse):
    r"""Hill's dose response, with a half-maximal dose for every drug: :math:`c / (c + e^{F k + k_0})`.

    :math:`c` is the dose, :math:`F` the encoding of the drug. All targets of a drug have the same response. An L2 penalty of 1 nat per
    squared unit keeps the half-maximal dose close to the measured doses.
    """

    def __init__(self, n_inputs: int, log_doses: Sequence[float] = ()) -> None:
        super().__init__(n_inputs, log_doses)
        self.log_ec50 = nn.Parameter(torch.zeros(n_inputs, dtype=torch.float64))
        self.log_ec50_0 = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, encoding: Tensor, log_dose: Tensor, row: Tensor | None = None) -> Tensor:
        """Factor of psi, ``(rows, 1)``, from the drugs' encodings ``(rows, inputs)`` and log doses ``(rows,)``.

        With ``row``, ``(rows,)``, encodings are those of distinct drugs, and it is the drug of every row.
        """
        half = encoding @ self.log_ec50
        return torch.sigmoid(log_dose - (half if row is None else half[row]) - self.log_ec50_0)[:, None]

    def penalty(self) -> Tensor:
        """L2 penalty on the map to log half-maximal doses in nats."""
        return (self.log_ec50**2).sum() + self.log_ec50_0**2


class FreeResponse(NoResponse):
    r"""A curve of free shape, the same for all drugs, with values in (0, 1].

    The curve is linear in log dose between training doses, or between eight quantiles of more than eight doses. It is constant outside
    the training doses and 0 at dose 0. The penalty :math:`\sum_i (h_{i+1} - h_i)^2` in nats on the log heights :math:`h_i` at the knots
    keeps the curve smooth.
    """

    def __init__(self, n_inputs: int, log_doses: Sequence[float] = ()) -> None:
        super().__init__(n_inputs, log_doses)
        knots = choose_knots(log_doses)
        self.register_buffer("knots", knots)
        self.log_height = nn.Parameter(torch.zeros_like(knots))

    def forward(self, encoding: Tensor, log_dose: Tensor, row: Tensor | None = None) -> Tensor:
        """Factor of psi, ``(rows, 1)``, from the drugs' encodings ``(rows, inputs)`` and log doses ``(rows,)``.

        With ``row``, ``(rows,)``, encodings are those of distinct drugs, and it is the drug of every row.
        """
        # The curve is relative to its maximum. Otherwise a higher curve with smaller effects would evade their L1 penalty.
        height = torch.exp(self.log_height - self.log_height.max())
        return interpolation(log_dose, self.knots) @ height[:, None] * super().forward(encoding, log_dose, row)

    def penalty(self) -> Tensor:
        """Penalty on differences between the log heights in nats, and a small L2 penalty to determine their level."""
        return (self.log_height.diff() ** 2).sum() + 1e-6 * (self.log_height**2).sum()


def choose_knots(log_doses: Sequence[float]) -> Tensor:
    """Distinct finite log doses, or eight quantiles of more than eight doses; the single knot 0 without doses."""
    doses = np.unique(np.asarray(log_doses, dtype=np.float64))
    doses = doses[np.isfinite(doses)]
    if len(doses) > MOST_KNOTS:
        doses = np.quantile(doses, np.linspace(0, 1, MOST_KNOTS))
    return torch.as_tensor(doses if len(doses) else np.zeros(1))


def interpolation(at: Tensor, knots: Tensor) -> Tensor:
    """Weights of the knots' values in a curve that is linear between knots and constant outside, ``(rows, knots)``."""
    if len(knots) == 1:
        return torch.ones(len(at), 1, dtype=knots.dtype)
    at = at.clamp(knots[0], knots[-1])
    right = torch.searchsorted(knots, at.contiguous()).clamp(1, len(knots) - 1)
    share = (at - knots[right - 1]) / (knots[right] - knots[right - 1])
    one_hot = torch.eye(len(knots), dtype=knots.dtype, device=knots.device)
    return (1 - share)[:, None] * one_hot[right - 1] + share[:, None] * one_hot[right]


DOSE_RESPONSES = {"hill": HillResponse, "free": FreeResponse, "none": NoResponse}
