from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from ._combinations import combine, sum_by_row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scgim.module._treatment_inputs import TreatmentInputs

DoseResponse = Literal["hill", "free", "none"]

MIN_CONDITIONS = (
    3.0  # a gene's own variance is estimated from at least this expected number of conditions with the gene as target
)
NOT_TARGETED = -30.0  # logit of a probability of 1e-13, without overflow


class Generator(nn.Module, ABC):
    r"""A map from the inputs of a treatment to the logits of its targets and to the effects psi on them.

    Parameters
    ----------
    n_features, n_genes, n_drugs, n_lines
        Number of features and genes, and of drugs and lines in the training data.
    dosed
        Whether conditions have a dose.
    baseline
        Whether psi has an offset per gene that does not depend on features and dose. Hard interventions set a gene to psi, so psi = 0
        does not mean the absence of an effect.
    dose_response
        Key of :data:`~scgim.module.generators.DOSE_RESPONSES`.
    log_doses
        Distinct training log doses.
    """

    pools_drugs = True  # predicts unmeasured drugs
    needs_features = True  # requires drug features
    by_gradient = True  # is trained by gradient steps on the likelihood, otherwise in closed form by `solve`

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
        super().__init__()
        self.n_features, self.n_genes, self.n_drugs, self.n_lines = n_features, n_genes, n_drugs, n_lines
        self.dosed, self.baseline = dosed, baseline
        self.register_buffer("spread", torch.zeros(n_genes, dtype=torch.float64))

    def forward(self, inputs: TreatmentInputs) -> tuple[Tensor, Tensor]:
        """Logits and psi of rows of single drugs or combinations, ``(rows, genes)`` each; :func:`combine` for combinations."""
        if inputs.more is None:
            return self.of_drugs(inputs)
        parts, row = inputs.parts()
        return combine(*self.of_drugs(parts), row, len(inputs.drug), add=not self.baseline)

    @abstractmethod
    def of_drugs(self, inputs: TreatmentInputs) -> tuple[Tensor, Tensor]:
        """Logits and psi of rows of single drugs, ``(rows, genes)`` each."""

    def knows(self, inputs: TreatmentInputs) -> Tensor:
        """Rows that the generator learns from and can predict, ``(rows,)`` bool: a map of features needs the drug's features."""
        return inputs.featured if self.pools_drugs else torch.ones_like(inputs.drug, dtype=torch.bool)

    def penalty(self, logits: Tensor, psi: Tensor) -> Tensor:
        """Penalty on the parameters in nats, given the logits and psi of the training conditions."""
        return torch.zeros((), dtype=torch.float64)

    def prune(self) -> None:
        """Remove small effects. Training calls it once, late in the last phase."""

    def release(self) -> None:
        """Drop what was kept between training steps; nothing by default."""

    def reset(self) -> None:
        """Return to the untrained state."""
        self.spread.zero_()

    def solve(
        self, inputs: TreatmentInputs, residual: Tensor, probability: Tensor, n: Tensor, variance: Tensor
    ) -> None:
        """Fit the generator in closed form to the training conditions.

        Parameters
        ----------
        inputs
            Inputs of the training conditions.
        residual
            Observed shift of every gene (for hard interventions: its value), ``(conditions, genes)``.
        probability
            Posterior probability that the gene is a target, ``(conditions, genes)``.
        n
            Effective cells, ``(conditions, 1)``.
        variance
            Noise variance of a cell, ``(genes,)``.
        """

    @torch.no_grad()
    def calibrate(
        self, inputs: TreatmentInputs, residual: Tensor, probability: Tensor, n: Tensor, variance: Tensor
    ) -> None:
        r"""Estimate the variance of true shifts around psi. The arguments are the arguments of :meth:`solve`.

        The estimate is by moments over conditions,
        :math:`\tau_j^2 = \sum_k p_{kj}\,((r_{kj} - \psi_{kj})^2 - \sigma_j^2 / n_k) / \sum_k p_{kj}`. The genes are pooled for a gene
        that is a target in fewer than three conditions.
        """
        psi = self(inputs)[1]
        excess, targeted = (probability * ((residual - psi) ** 2 - variance / n)).sum(0), probability.sum(0)
        pooled = excess.sum() / targeted.sum().clamp(min=1.0)
        own = torch.where(targeted >= MIN_CONDITIONS, excess / targeted.clamp(min=MIN_CONDITIONS), pooled)
        self.spread.copy_(own.clamp(min=0).sqrt())

    @torch.no_grad()
    def uncertainty(self, inputs: TreatmentInputs) -> Tensor:
        """SD of the true shift around psi, given that the gene is a target; ``(rows, genes)``. The shifts of drugs are independent."""
        if inputs.more is None:
            return self.uncertainty_of_drugs(inputs)
        parts, row = inputs.parts()
        variance = (torch.sigmoid(self.of_drugs(parts)[0]) * self.uncertainty_of_drugs(parts)) ** 2
        return sum_by_row(variance, row, len(inputs.drug)).sqrt() / torch.sigmoid(self(inputs)[0]).clamp(min=1e-300)

    @torch.no_grad()
    def uncertainty_of_drugs(self, inputs: TreatmentInputs) -> Tensor:
        """:meth:`uncertainty` of single drugs, from :meth:`calibrate`."""
        return self.spread.expand(len(inputs.drug), -1)

    def at_dose_zero(self, logits: Tensor, log_dose: Tensor) -> Tensor:
        """Logits without targets at dose 0 for hard interventions.

        Shifts need no change of the logits, because psi is 0 at dose 0.
        """
        return torch.where((log_dose == -torch.inf)[:, None], NOT_TARGETED, logits) if self.baseline else logits
