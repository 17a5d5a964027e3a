from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ._base import DoseResponse, Generator
from ._dose import DOSE_RESPONSES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scgim.module._treatment_inputs import TreatmentInputs


class NetworkGenerator(Generator):
    r"""A network from features, log dose and cell line to logits and psi.

    The network has two hidden layers of tanh units and a linear output. The log dose is an input, in SD of the distinct training log
    doses, so psi is a free function of the dose. The cell line is an input if there are several lines. Dose 0 has no effect, except
    for the offset of ``baseline``.

    Weights are :math:`w / \sqrt{\text{inputs}}` with a standard normal prior on :math:`w`, so the penalty is :math:`w^2 / 2` nats. With
    this scaling, layers of any width are trained with the same step size. A separate seed determines the initial weights.

    Parameters
    ----------
    n_features, n_genes, n_drugs, n_lines, dosed, baseline, dose_response, log_doses
        Parameters of :class:`Generator`. A dose response multiplies psi in addition to the input of the dose.
    n_hidden
        Number of units per hidden layer.
    seed
        Seed of the initial weights.
    """

    def __init__(
        self,
        n_features: int,
        n_genes: int,
        *,
        n_drugs: int,
        n_lines: int = 1,
        dosed: bool,
        baseline: bool = False,
        dose_response: DoseResponse = "none",
        log_doses: Sequence[float] = (),
        n_hidden: int = 32,
        seed: int = 0,
    ) -> None:
        super().__init__(n_features, n_genes, n_drugs=n_drugs, n_lines=n_lines, dosed=dosed, baseline=baseline)
        self.seed = seed
        self.lines = n_lines if n_lines > 1 else 0
        sizes = [n_features + dosed + self.lines, n_hidden, n_hidden, 2 * n_genes]
        pairs = list(zip(sizes[:-1], sizes[1:], strict=True))
        self.weights = nn.ParameterList(torch.empty(pair, dtype=torch.float64) for pair in pairs)
        self.biases = nn.ParameterList(torch.empty(out, dtype=torch.float64) for _, out in pairs)
        self.offset = nn.Parameter(torch.empty(n_genes, dtype=torch.float64)) if baseline else None
        self.dose_response = DOSE_RESPONSES[dose_response if dosed else "none"](n_features, log_doses)
        doses = np.asarray(log_doses, dtype=np.float64)
        doses = doses[np.isfinite(doses)]
        center, scale = (doses.mean(), doses.std()) if len(doses) > 1 else (0.0, 1.0)
        self.register_buffer("dose_centre", torch.tensor(float(center), dtype=torch.float64))
        self.register_buffer("dose_scale", torch.tensor(float(scale), dtype=torch.float64))
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """Draw the hidden layers and set the outputs to 0."""
        super().reset()
        generator = torch.Generator().manual_seed(self.seed)
        for parameter in self.parameters():
            parameter.zero_()
        for weight in self.weights[:-1]:
            weight.copy_(torch.randn(weight.shape, dtype=torch.float64, generator=generator))

    def of_drugs(self, inputs: TreatmentInputs) -> tuple[Tensor, Tensor]:
        """Logits and psi of rows of single drugs, ``(rows, genes)`` each."""
        x = inputs.features
        if self.dosed:
            there = inputs.log_dose > -torch.inf
            dose = torch.where(there, (inputs.log_dose - self.dose_centre) / self.dose_scale, 0.0)
            x = torch.cat([x, dose[:, None]], dim=1)
        if self.lines:  # the one-hot code of an unseen line is 0
            x = torch.cat([x, (inputs.line[:, None] == torch.arange(self.lines, device=x.device)).to(x.dtype)], dim=1)
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = (x if i == 0 else torch.tanh(x)) @ weight / max(len(weight), 1) ** 0.5 + bias
        logits, psi = x.chunk(2, dim=1)
        psi = psi * self.dose_response(inputs.features, inputs.log_dose)
        psi = psi if self.offset is None else psi + self.offset
        return self.at_dose_zero(logits, inputs.log_dose), psi

    def penalty(self, logits: Tensor, psi: Tensor) -> Tensor:
        """Penalty in nats on the weights, and on psi of genes that are not targets, which the likelihood does not restrict."""
        by_features = psi if self.offset is None else psi - self.offset
        idle = ((1 - torch.sigmoid(logits.detach())) * by_features**2).sum()
        return idle + sum((weight**2).sum() for weight in self.weights) / 2 + self.dose_response.penalty()
