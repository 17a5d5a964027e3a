from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scgim.module._conditions import Conditions

DoseResponse = Literal["hill", "free", "none"]

FEW = 3.0  # contexts, whose spread says little
NOT_TOUCHED = -30.0  # logit: probability 1e-13, and nothing overflows


class Generator(nn.Module, ABC):
    r"""From what is known of a treatment to which mechanisms it touches (logits) and how (psi).

    Parameters
    ----------
    n_features, n_genes, n_drugs, n_lines
        Sizes; drugs and lines are those of the training data.
    dosed
        Whether contexts have a dose.
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
    owes_charge = True  # its logits spare few genes: in a measured context, what they call has yet to pay for itself

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
    def forward(self, inputs: Conditions) -> tuple[Tensor, Tensor]:
        """Logits and psi of rows, ``(rows, genes)`` each."""

    def penalty(self, logits: Tensor, psi: Tensor) -> Tensor:
        """Nats charged for the parameters, given what they said of the training contexts."""
        return torch.zeros((), dtype=torch.float64)

    def prune(self) -> None:
        """Drop what is too small to be believed. Called once, late in training."""

    def reset(self) -> None:
        """Start over."""
        self.spread.zero_()

    def solve(self, inputs: Conditions, residual: Tensor, probability: Tensor, n: Tensor, variance: Tensor) -> None:
        """Learn in closed form from what the training contexts show.

        Parameters
        ----------
        conditions
            Of the training contexts.
        residual
            Observed shift of every gene (for hard interventions: its value), ``(contexts, genes)``.
        probability
            Posterior probability that the gene is touched, ``(contexts, genes)``.
        n
            Cells, ``(contexts, 1)``.
        variance
            Noise variance of a cell, ``(genes,)``.
        """

    @torch.no_grad()
    def calibrate(
        self, inputs: Conditions, residual: Tensor, probability: Tensor, n: Tensor, variance: Tensor
    ) -> None:
        r"""Learn how far true shifts lie from psi; arguments as in :meth:`solve`.

        By moments over contexts: :math:`\tau_j^2 = \sum_k p_{kj}\,((r_{kj} - \psi_{kj})^2 - \sigma_j^2 / n_k) / \sum_k p_{kj}`; a gene
        that is touched in fewer than three contexts takes the value of all genes.
        """
        psi = self(inputs)[1]
        excess, touched = (probability * ((residual - psi) ** 2 - variance / n)).sum(0), probability.sum(0)
        pooled = excess.sum() / touched.sum().clamp(min=1.0)
        own = torch.where(touched >= FEW, excess / touched.clamp(min=FEW), pooled)
        self.spread.copy_(own.clamp(min=0).sqrt())

    @torch.no_grad()
    def uncertainty(self, inputs: Conditions) -> Tensor:
        """Standard deviation of psi given that the mechanism is touched, ``(rows, genes)``: what :meth:`calibrate` found."""
        return self.spread.expand(len(inputs.drug), -1)

    def at_dose_zero(self, logits: Tensor, log_dose: Tensor) -> Tensor:
        """The logits, but where hard interventions leave a mechanism alone because there is no drug.

        A shift of 0 leaves it alone at any logit.
        """
        return torch.where((log_dose == -torch.inf)[:, None], NOT_TOUCHED, logits) if self.baseline else logits
