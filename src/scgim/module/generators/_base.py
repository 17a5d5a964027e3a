from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scgim.module._treatment_inputs import TreatmentInputs

DoseResponse = Literal["hill", "free", "none"]

FEW = 3.0  # conditions, whose spread says little
NOT_TARGETED = -30.0  # logit: probability 1e-13, and nothing overflows


class Generator(nn.Module, ABC):
    r"""From what is known of a treatment to which mechanisms it touches (logits) and how (psi).

    Parameters
    ----------
    n_features, n_genes, n_drugs, n_lines
        Sizes; drugs and lines are those of the training data.
    dosed
        Whether conditions have a dose.
    baseline
        Whether psi has an offset per gene that needs no feature and no dose: hard interventions set a gene to psi, so its
        zero is not special.
    dose_response
        Key of :data:`~scgim.module.generators.DOSE_RESPONSES`.
    log_doses
        Distinct training log doses.
    """

    pools_drugs = True  # says something of drugs that were never measured
    needs_features = True  # has no answer without drug features
    by_gradient = True  # learns by descending the likelihood; otherwise by `solve`
    pays_full_penalty = (
        True  # its logits spare few genes: in a measured condition, what they call has yet to pay for itself
    )

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

    @abstractmethod
    def forward(self, inputs: TreatmentInputs) -> tuple[Tensor, Tensor]:
        """Logits and psi of rows, ``(rows, genes)`` each."""

    def penalty(self, logits: Tensor, psi: Tensor) -> Tensor:
        """Nats charged for the parameters, given what they said of the training conditions."""
        return torch.zeros((), dtype=torch.float64)

    def prune(self) -> None:
        """Drop what is too small to be believed. Called once, late in training."""

    def reset(self) -> None:
        """Start over."""
        self.spread.zero_()

    def solve(
        self, inputs: TreatmentInputs, residual: Tensor, probability: Tensor, n: Tensor, variance: Tensor
    ) -> None:
        """Learn in closed form from what the training conditions show.

        Parameters
        ----------
        conditions
            Of the training conditions.
        residual
            Observed shift of every gene (for hard interventions: its value), ``(conditions, genes)``.
        probability
            Posterior probability that the gene is touched, ``(conditions, genes)``.
        n
            Cells, ``(conditions, 1)``.
        variance
            Noise variance of a cell, ``(genes,)``.
        """

    @torch.no_grad()
    def calibrate(
        self, inputs: TreatmentInputs, residual: Tensor, probability: Tensor, n: Tensor, variance: Tensor
    ) -> None:
        r"""Learn how far true shifts lie from psi; arguments as in :meth:`solve`.

        By moments over conditions: :math:`\tau_j^2 = \sum_k p_{kj}\,((r_{kj} - \psi_{kj})^2 - \sigma_j^2 / n_k) / \sum_k p_{kj}`; a gene
        that is touched in fewer than three conditions takes the value of all genes.
        """
        psi = self(inputs)[1]
        excess, touched = (probability * ((residual - psi) ** 2 - variance / n)).sum(0), probability.sum(0)
        pooled = excess.sum() / touched.sum().clamp(min=1.0)
        own = torch.where(touched >= FEW, excess / touched.clamp(min=FEW), pooled)
        self.spread.copy_(own.clamp(min=0).sqrt())

    @torch.no_grad()
    def uncertainty(self, inputs: TreatmentInputs) -> Tensor:
        """Standard deviation of psi given that the mechanism is touched, ``(rows, genes)``: what :meth:`calibrate` found."""
        return self.spread.expand(len(inputs.drug), -1)

    def at_dose_zero(self, logits: Tensor, log_dose: Tensor) -> Tensor:
        """The logits, but where hard interventions leave a mechanism alone because there is no drug.

        A shift of 0 leaves it alone at any logit.
        """
        return torch.where((log_dose == -torch.inf)[:, None], NOT_TARGETED, logits) if self.baseline else logits
