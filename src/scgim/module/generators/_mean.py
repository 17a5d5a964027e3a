from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ._base import DoseResponse, Generator
from ._combinations import sum_by_row
from ._dose import choose_knots, interpolation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scgim.module._treatment_inputs import TreatmentInputs

LEAST_PROBABILITY = 1e-4
ROUNDS = 50  # of EM for combinations


class MeanGenerator(Generator):
    r"""The mean effect of the training drugs per dose and line, the same for all drugs.

    Let :math:`\overline{\,\cdot\,}` be the mean over training conditions, weighted by their effective cells. For a shift,

    .. math:: p_j = \overline{p_{kj}}, \qquad \psi_j = \overline{r_{kj}} \,/\, p_j

    The expected shift :math:`p_j \psi_j` is then the mean observed shift, even if no single condition is significant. :math:`p_j` is
    raised where :math:`\psi_j` would exceed the largest observed shift of the gene. For hard interventions the mean is
    :math:`\overline{p_{kj} r_{kj}}`, because the value of a gene that is not a target is no estimate of the value that the drug sets.

    Both means are linear in log dose between training doses and constant outside. Eight quantiles represent more than eight doses. Dose
    0 has no effect. A new line has the mean of all lines, and so has a line without conditions at a dose. A dose without conditions has
    the mean of all doses. Doses are pooled where most drugs were measured at a single dose: differences between doses would then be
    differences between drugs. The dose response option is ignored, because the table contains the dose response.

    A combination is the sum of its drugs, whose deviations from the mean are independent and of equal variance. EM fits this model: every
    drug of a combination has its expected share of the observed shift, which is its mean plus an equal share of the residual of the sum,
    and its expected share of the targets, :math:`p_{kj}\, p_{aj} / (1 - \prod_b (1 - p_{bj}))`.

    Parameters
    ----------
    n_features, n_genes, n_drugs, n_lines, dosed, baseline, dose_response, log_doses
        Parameters of :class:`Generator`.
    """

    needs_features = by_gradient = False

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
        # The last line of the tables is the mean of all lines. A new line has index -1 and therefore reads this mean.
        shape = (len(self.knots), n_lines + 1, n_genes)
        self.register_buffer("expected", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("probability", torch.full(shape, 0.5, dtype=torch.float64))
        self.register_buffer("largest", torch.zeros(n_genes, dtype=torch.float64))  # largest observed |residual|

    def reset(self) -> None:
        """Return to the untrained state."""
        super().reset()
        self.expected.zero_()
        self.probability.fill_(0.5)
        self.largest.zero_()

    @torch.no_grad()
    def solve(
        self, inputs: TreatmentInputs, residual: Tensor, probability: Tensor, n: Tensor, variance: Tensor
    ) -> None:
        """Fit the tables of expected shifts and probabilities. :meth:`Generator.solve` describes the arguments."""
        if inputs.more is None:
            self._fill(inputs, residual, probability, n)
        else:
            self._solve_combinations(inputs, residual, probability, n)
        self.largest.copy_(residual.abs().amax(0))
        self.calibrate(inputs, residual, probability, n, variance)

    def _fill(self, inputs: TreatmentInputs, residual: Tensor, probability: Tensor, n: Tensor) -> None:
        """Fill the tables with means over rows of single drugs."""
        self.expected.copy_(self._table(inputs, self.share(probability) * residual, n))
        self.probability.copy_(self._table(inputs, probability, n))

    def _solve_combinations(self, inputs: TreatmentInputs, residual: Tensor, probability: Tensor, n: Tensor) -> None:
        """Fill the tables by EM over the unknown shares of the drugs of combinations."""
        drugs, row = inputs.parts()
        size = torch.bincount(row).to(residual)[row, None]
        of_drug, p = residual[row] / size, 1 - (1 - probability[row]) ** (1 / size)
        for _ in range(ROUNDS):
            self._fill(drugs, of_drug, p, n[row])
            mean, of_mean = self.means(drugs)
            of_drug = mean + (residual - sum_by_row(mean, row, len(residual)))[row] / size
            any_of = 1 - torch.exp(sum_by_row(torch.log1p(-of_mean.clamp(max=1 - 1e-12)), row, len(residual)))
            p = probability[row] * of_mean / torch.maximum(any_of[row], of_mean).clamp(min=1e-300)

    def share(self, probability: Tensor) -> Tensor:
        """Share of a condition's residual that counts as expected shift: 1 for shifts, the probability for hard interventions."""
        return probability if self.baseline else torch.ones_like(probability)

    def _table(self, inputs: TreatmentInputs, values: Tensor, n: Tensor) -> Tensor:
        """Means by dose, line and gene, with gaps filled by coarser means."""
        line = torch.nn.functional.one_hot(inputs.line % (self.n_lines + 1), self.n_lines + 1).to(torch.float64)
        line[:, -1] = 1.0
        n = torch.where(inputs.log_dose > -torch.inf, n.mean(1), 0.0)
        dose = self._doses(inputs)
        weight = torch.einsum("k,kc,kl->cl", n, dose, line)[..., None]
        total = torch.einsum("k,kc,kl,kj->clj", n, dose, line, values)
        # A gap takes the mean of all lines at its dose. If no line was measured at the dose, it takes the mean of all doses.
        for axis in (1, 0):
            all_weight = weight[:, -1:] if axis else weight.sum(0, keepdim=True)
            all_total = total[:, -1:] if axis else total.sum(0, keepdim=True)
            total, weight = torch.where(weight > 0, total, all_total), torch.where(weight > 0, weight, all_weight)
        return total / weight.clamp(min=1e-300)

    def _doses(self, inputs: TreatmentInputs) -> Tensor:
        """Nearest knot of every condition, one-hot ``(conditions, knots)``; all knots where doses are pooled."""
        # Doses are pooled unless more than half of the drugs were measured at several doses. Otherwise a contrast of doses would mix
        # the effect of the dose with the differences between the drugs at each dose.
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

    def of_drugs(self, inputs: TreatmentInputs) -> tuple[Tensor, Tensor]:
        """Logits and psi of rows of single drugs, ``(rows, genes)`` each."""
        return self.as_intervention(*self.means(inputs), inputs.log_dose)

    def as_intervention(self, expected: Tensor, probability: Tensor, log_dose: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and psi of an expected shift, the product of probability and psi."""
        # psi is extrapolation where it exceeds all observed residuals of the gene. A larger probability keeps the product unchanged.
        p = torch.maximum(probability, expected.abs() / self.largest.clamp(min=1e-300))
        p = p.clamp(LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
        return self.at_dose_zero(torch.logit(p), log_dose), expected / p
