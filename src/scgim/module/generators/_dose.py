"""How the effect of a drug grows with its dose."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_KNOTS = 8


class NoResponse(nn.Module):
    """1 at every dose but 0, which has no effect.

    Parameters
    ----------
    n_inputs
        Length of a drug's encoding.
    log_doses
        Distinct training log doses.
    """

    def __init__(self, n_inputs: int, log_doses: Sequence[float] = ()) -> None:
        super().__init__()

    def forward(self, encoding: Tensor, log_dose: Tensor) -> Tensor:
        """Factor of psi, ``(rows, 1)``, from drugs' encodings ``(rows, inputs)`` and log doses ``(rows,)``."""
        return (log_dose > -torch.inf).to(log_dose.dtype)[:, None]

    def penalty(self) -> Tensor:
        """Nats charged for its parameters."""
        return torch.zeros((), dtype=torch.float64)

    @torch.no_grad()
    def reset(self) -> None:
        """Start over: all parameters at zero."""
        for parameter in self.parameters():
            parameter.zero_()


class HillResponse(NoResponse):
    r"""Sigmoid in log dose with a half-maximal dose of its own for every drug: :math:`c / (c + e^{F k + k_0})`.

    One for all targets of the drug. An L2 penalty of a nat per squared unit keeps the half-maximal dose within reach.
    """

    def __init__(self, n_inputs: int, log_doses: Sequence[float] = ()) -> None:
        super().__init__(n_inputs, log_doses)
        self.log_ec50 = nn.Parameter(torch.zeros(n_inputs, dtype=torch.float64))
        self.log_ec50_0 = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, encoding: Tensor, log_dose: Tensor) -> Tensor:
        """As in the class above."""
        return torch.sigmoid(log_dose - encoding @ self.log_ec50 - self.log_ec50_0)[:, None]

    def penalty(self) -> Tensor:
        """As in the class above."""
        return (self.log_ec50**2).sum() + self.log_ec50_0**2


class FreeResponse(NoResponse):
    r"""One curve of any shape for all drugs, positive and at most 1.

    Linear in log dose between training doses (between eight quantiles of them where they are more), constant outside, 0
    at dose 0. The penalty, :math:`\sum_i (h_{i+1} - h_i)^2` nats on the log heights, keeps it smooth.
    """

    def __init__(self, n_inputs: int, log_doses: Sequence[float] = ()) -> None:
        super().__init__(n_inputs, log_doses)
        knots = choose_knots(log_doses)
        self.register_buffer("knots", knots)
        self.log_height = nn.Parameter(torch.zeros_like(knots))

    def forward(self, encoding: Tensor, log_dose: Tensor) -> Tensor:
        """As in the class above."""
        # relative to its peak: otherwise the curve could take the size of the effects, which the L1 penalty shrinks
        height = torch.exp(self.log_height - self.log_height.max())
        return interpolation(log_dose, self.knots) @ height[:, None] * super().forward(encoding, log_dose)

    def penalty(self) -> Tensor:
        """As in the class above, and a millionth to keep the height itself in place."""
        return (self.log_height.diff() ** 2).sum() + 1e-6 * (self.log_height**2).sum()


def choose_knots(log_doses: Sequence[float]) -> Tensor:
    """Distinct finite doses, or quantiles of them where they are many; one knot where there are none."""
    doses = np.unique(np.asarray(log_doses, dtype=np.float64))
    doses = doses[np.isfinite(doses)]
    if len(doses) > MOST_KNOTS:
        doses = np.quantile(doses, np.linspace(0, 1, MOST_KNOTS))
    return torch.as_tensor(doses if len(doses) else np.zeros(1))


def interpolation(at: Tensor, knots: Tensor) -> Tensor:
    """Weights of the knots' values in a piecewise linear curve that is constant outside, ``(rows, knots)``."""
    if len(knots) == 1:
        return torch.ones(len(at), 1, dtype=knots.dtype)
    at = at.clamp(knots[0], knots[-1])
    right = torch.searchsorted(knots, at.contiguous()).clamp(1, len(knots) - 1)
    share = (at - knots[right - 1]) / (knots[right] - knots[right - 1])
    one_hot = torch.eye(len(knots), dtype=knots.dtype, device=knots.device)
    return (1 - share)[:, None] * one_hot[right - 1] + share[:, None] * one_hot[right]


DOSE_RESPONSES = {"hill": HillResponse, "free": FreeResponse, "none": NoResponse}
