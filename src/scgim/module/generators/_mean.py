from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ._base import DoseResponse, Generator
from ._dose import choose_knots, interpolation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scgim.module._treatment_inputs import TreatmentInputs

LEAST_PROBABILITY = 1e-4


class MeanGenerator(Generator):
    r"""What the training drugs do on average, per dose and line: nothing of a drug enters.

    With :math:`\overline{\,\cdot\,}` the mean over training conditions, weighted by their cells,

    .. math:: p_j = \overline{p_{kj}}, \qquad \psi_j = \overline{r_{kj}} \,/\, p_j

    so that the expected shift :math:`p_j \psi_j` is the mean of what was seen, however weak it is in every single condition (where
    psi would exceed all that was seen of the gene, p is raised). The value that a hard intervention sets says nothing where
    there was none: there it is :math:`\overline{p_{kj} r_{kj}}`. Both means are linear in log dose
    between training doses and constant outside (of more than eight doses, their quantiles stand for all); dose 0 has
    no effect. A line without conditions at a dose takes all lines' mean there, and so does a new line; a dose without conditions
    takes all doses'. Where most drugs were measured at one dose, each at its own, doses are not told apart: their
    differences would be the drugs'. The dose response option is ignored: this table is one.

    Parameters
    ----------
    n_features, n_genes, n_drugs, n_lines, dosed, baseline, dose_response, log_doses
        See :class:`Generator`.
    """

    needs_features = by_gradient = False
    pays_full_penalty = False  # its probabilities are means of such as have paid

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
    ) -> None:
        super().__init__(n_features, n_genes, n_drugs=n_drugs, n_lines=n_lines, dosed=dosed, baseline=baseline)
        self.register_buffer("knots", choose_knots(log_doses if dosed else ()))
        # the last line is all of them, so that a new one, whose index is -1, finds it
        shape = (len(self.knots), n_lines + 1, n_genes)
        self.register_buffer("expected", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("probability", torch.full(shape, 0.5, dtype=torch.float64))
        self.register_buffer("largest", torch.zeros(n_genes, dtype=torch.float64))  # residual seen

    def reset(self) -> None:
        """Start over."""
        super().reset()
        self.expected.zero_()
        self.probability.fill_(0.5)
        self.largest.zero_()

    @torch.no_grad()
    def solve(
        self, inputs: TreatmentInputs, residual: Tensor, probability: Tensor, n: Tensor, variance: Tensor
    ) -> None:
        """As in the class above."""
        self.expected.copy_(self._table(inputs, self.share(probability) * residual, n))
        self.probability.copy_(self._table(inputs, probability, n))
        self.largest.copy_(residual.abs().amax(0))
        self.calibrate(inputs, residual, probability, n, variance)

    def share(self, probability: Tensor) -> Tensor:
        """Of a condition's residual, what is taken for the expected shift."""
        return probability if self.baseline else torch.ones_like(probability)

    def _table(self, inputs: TreatmentInputs, values: Tensor, n: Tensor) -> Tensor:
        """Means by dose, line and gene, the gaps filled."""
        line = torch.nn.functional.one_hot(inputs.line % (self.n_lines + 1), self.n_lines + 1).to(torch.float64)
        line[:, -1] = 1.0
        n = torch.where(inputs.log_dose > -torch.inf, n.mean(1), 0.0)
        dose = self._doses(inputs)
        weight = torch.einsum("k,kc,kl->cl", n, dose, line)[..., None]
        total = torch.einsum("k,kc,kl,kj->clj", n, dose, line, values)
        for axis in (1, 0):  # all lines at this dose, then all doses
            all_weight = weight[:, -1:] if axis else weight.sum(0, keepdim=True)
            all_total = total[:, -1:] if axis else total.sum(0, keepdim=True)
            total, weight = torch.where(weight > 0, total, all_total), torch.where(weight > 0, weight, all_weight)
        return total / weight.clamp(min=1e-300)

    def _doses(self, inputs: TreatmentInputs) -> Tensor:
        """The training dose that a condition stands for, one-hot ``(conditions, knots)``; all of them where doses are not compared."""
        pairs = torch.unique(torch.stack([inputs.drug.to(torch.float64), inputs.log_dose]), dim=1)
        if (torch.unique(pairs[0], return_counts=True)[1] > 1).to(torch.float64).mean() <= 0.5:
            return torch.ones(len(inputs.drug), len(self.knots), dtype=torch.float64)
        distance = (inputs.log_dose.clamp(self.knots[0], self.knots[-1])[:, None] - self.knots).abs()
        return torch.nn.functional.one_hot(distance.argmin(1), len(self.knots)).to(torch.float64)

    def means(self, inputs: TreatmentInputs) -> tuple[Tensor, Tensor]:
        """Expected shift and probability of rows, ``(rows, genes)`` each."""
        weight = interpolation(inputs.log_dose, self.knots)
        there = (inputs.log_dose > -torch.inf)[:, None]
        tables = (table[:, inputs.line] for table in (self.expected, self.probability))
        expected, probability = (torch.einsum("rc,crj->rj", weight, table) for table in tables)
        return torch.where(there, expected, 0.0), probability

    def forward(self, inputs: TreatmentInputs) -> tuple[Tensor, Tensor]:
        """As in the class above."""
        return self.as_intervention(*self.means(inputs), inputs.log_dose)

    def as_intervention(self, expected: Tensor, probability: Tensor, log_dose: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and psi with this expected shift, ``probability * psi``."""
        p = torch.maximum(probability, expected.abs() / self.largest.clamp(min=1e-300))
        p = p.clamp(LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
        return self.at_dose_zero(torch.logit(p), log_dose), expected / p
