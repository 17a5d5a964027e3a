from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .generator import GENERATORS
from .likelihood import complete, mixture, scatter_loss, shift_evidence
from .mechanisms import MECHANISMS


class Contexts(NamedTuple):
    """What training sees of the treated contexts, in the order of the registry."""

    n: Tensor  # (contexts, 1) cells
    mean: Tensor  # (contexts, genes) standardised
    features: Tensor  # (contexts, features)
    drug: Tensor  # (contexts,) int
    log_dose: Tensor  # (contexts,)


class Controls(NamedTuple):
    """Size and mean of the controls, and the scatter within all contexts, theirs included."""

    n: Tensor  # ()
    mean: Tensor  # (1, genes)
    scatter: Tensor  # (genes, genes)


class GIMModule(nn.Module):
    """The generative intervention model: mechanisms on a graph, and a generator of interventions on them.

    Parameters
    ----------
    n_genes, n_features, n_drugs
        Sizes.
    dosed
        Whether drugs have doses.
    mechanism, generator
        Keys of :data:`~scgim.module.MECHANISMS` and :data:`~scgim.module.GENERATORS`.
    charge
        Occam charge in nats for every target.
    """

    def __init__(
        self,
        n_genes: int,
        n_features: int,
        n_drugs: int,
        *,
        dosed: bool,
        mechanism: str = "linear",
        generator: str = "hill",
        charge: float = 5.0,
    ) -> None:
        super().__init__()
        self.mechanism = MECHANISMS[mechanism](n_genes)
        self.generator = GENERATORS[generator](n_features, n_genes, n_drugs=n_drugs, dosed=dosed)
        self.charge = charge

    def interventions(self, contexts: Contexts) -> tuple[Tensor, Tensor]:
        """Logits and shifts that the generator gives contexts, ``(contexts, genes)`` each."""
        return self.generator(contexts.features, contexts.drug, contexts.log_dose)

    def evidence(self, contexts: Contexts, residual: Tensor) -> Tensor:
        """Log likelihood of the contexts' mean residuals, exact over unknown targets; ``(contexts, genes)``."""
        logits, shift = self.interventions(contexts)
        return mixture(logits, *shift_evidence(residual, shift, contexts.n, self.mechanism.variance), self.charge)

    def generator_loss(
        self, contexts: Contexts, residual: Tensor, targets: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Minus log likelihood of the contexts' mean residuals, and the generator's penalty; nats.

        ``targets``, ``(contexts, genes)`` bool, forces them instead of summing over the unknown ones.
        """
        logits, shift = self.interventions(contexts)
        touched, untouched = shift_evidence(residual, shift, contexts.n, self.mechanism.variance)
        if targets is None:
            evidence = mixture(logits, touched, untouched, self.charge)
        else:
            evidence = complete(logits, touched, untouched, self.charge, targets)
        return -evidence.sum(), self.generator.penalty(logits, shift)

    def joint_loss(
        self, contexts: Contexts, controls: Controls, targets: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Minus log likelihood of all training cells from sufficient statistics, and the generator's penalty; nats."""
        residual, within = self.mechanism.moments(contexts.mean, controls.scatter)
        variance = self.mechanism.variance
        nll, penalty = self.generator_loss(contexts, residual, targets)
        noise = scatter_loss(within, variance, controls.n + contexts.n.sum())
        at_controls = controls.n * (controls.mean - self.mechanism(controls.mean)) ** 2 / (2 * variance)
        return nll + noise.sum() + at_controls.sum(), penalty

    @torch.no_grad()
    def posterior(self, contexts: Contexts, residual: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
        r"""Target probabilities and shifts of measured contexts: their own residuals and the generator's prior.

        With prior :math:`\psi_{kj} \sim N(\hat\psi_{kj}, \tau_j^2)` given that the mechanism is touched, and
        :math:`v = \sigma_j^2 / n_k`,

        .. math:: \log\frac{p(I=1 \mid r)}{p(I=0 \mid r)} = \ell_{kj} + \log\frac{N(r; \hat\psi_{kj}, \tau_j^2 + v)}{N(r; 0, v)} - c,
            \qquad E[\psi \mid r] = \frac{\tau_j^2\, r + v\, \hat\psi_{kj}}{\tau_j^2 + v}

        Parameters
        ----------
        residual
            Mean residuals :math:`r`, ``(contexts, genes)``.
        spread
            :math:`\tau_j^2`, ``(genes,)``.
        """
        logits, shift = self.interventions(contexts)
        v = self.mechanism.variance / contexts.n
        gain = residual**2 / v - (residual - shift) ** 2 / (spread + v) + torch.log(v / (spread + v))
        return torch.sigmoid(logits + gain / 2 - self.charge), (spread * residual + v * shift) / (spread + v)
