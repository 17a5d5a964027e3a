"""Mechanisms: how a gene follows from its parents. A new one is a class here and an entry in :data:`MECHANISMS`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from scgim.structure import LocalFit


class LinearMechanism(nn.Module):
    r"""Linear mechanisms :math:`f_j(x) = b_j + \sum_{i \in pa(j)} w_{ij} x_i` with Gaussian noise.

    Parameters
    ----------
    n_genes
        Genes, all on the standardised scale.
    """

    affine = True  # the mean cell moves as the cells do on average

    def __init__(self, n_genes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_genes, n_genes, dtype=torch.float64))
        self.bias = nn.Parameter(torch.zeros(n_genes, dtype=torch.float64))
        self.log_sigma = nn.Parameter(torch.zeros(n_genes, dtype=torch.float64))
        self.register_buffer("graph", torch.zeros(n_genes, n_genes, dtype=torch.bool))

    @property
    def variance(self) -> Tensor:
        """Noise variance, ``(genes,)``."""
        return torch.exp(2 * self.log_sigma)

    @property
    def coefficients(self) -> Tensor:
        """Weights on the graph and zero elsewhere, ``(genes, genes)``, row = source."""
        return self.weight * self.graph

    @torch.no_grad()
    def warm_start(self, graph: Tensor, fit: LocalFit) -> None:
        """Take a graph and the least-squares fit on it."""
        self.graph.copy_(graph)
        self.weight.copy_(torch.as_tensor(fit.weight))
        self.bias.copy_(torch.as_tensor(fit.intercept))
        self.log_sigma.copy_(0.5 * torch.log(torch.as_tensor(fit.variance)))

    def forward(self, x: Tensor, genes: Tensor | slice = slice(None)) -> Tensor:
        """The mechanisms of some genes at cells ``x``: ``(cells, genes)`` -> ``(cells, len(genes))``."""
        return x @ self.coefficients[:, genes] + self.bias[genes]

    def moments(self, mean: Tensor, scatter: Tensor) -> tuple[Tensor, Tensor]:
        """Mean residual of every context, and the residual sum of squares within contexts, from sufficient statistics.

        ``mean`` (contexts, genes) and ``scatter`` (genes, genes) -> ``(contexts, genes)`` and ``(genes,)``.
        """
        w = self.coefficients
        within = scatter.diagonal() - 2 * (w * scatter).sum(0) + (w * (scatter @ w)).sum(0)
        return mean - self(mean), within

    def weight_penalty(self) -> Tensor:
        """Sum of squared coefficients."""
        return (self.coefficients**2).sum()

    def effects(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean derivative of every mechanism by every parent over cells ``x``, and its sign; ``(genes, genes)`` each."""
        w = self.coefficients
        return w, torch.sign(w)

    def strength(self, x: Tensor) -> Tensor:
        r"""Nats per cell that an edge carries: :math:`E[(f_j(x) - f_j(x^{\pi i}))^2] / 2\sigma_j^2`.

        :math:`x^{\pi i}` has parent :math:`i` permuted over cells, so here it is :math:`w_{ij}^2 Var(x_i) / \sigma_j^2`.
        """
        return self.coefficients**2 * x.var(0, correction=0)[:, None] / self.variance


MECHANISMS = {"linear": LinearMechanism}
