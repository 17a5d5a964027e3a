from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from scgim.module._moments import Contexts, Controls, Moments

from ._families import parent_index

if TYPE_CHECKING:
    from scgim.structure import LocalFit


class Families(NamedTuple):
    """Every context's own scatter, gathered for each gene and its parents."""

    parents: Tensor  # (genes, most parents), padded
    exists: Tensor  # (genes, most parents) bool
    cross: Tensor  # (contexts, genes, most parents) gene x parent
    among: Tensor  # (contexts, genes, most parents, most parents) parent x parent
    size: Tensor  # (contexts, 1) cells


class LinearMechanism(nn.Module):
    r"""Linear mechanisms :math:`f_j(x) = b_j + \sum_{i \in pa(j)} w_{ij} x_i` with Gaussian noise.

    Parameters
    ----------
    n_genes
        Genes, all on the standardised scale.
    """

    affine = True  # the mean cell moves as the cells do on average, and moments come from sufficient statistics
    columns = 1  # of a parent in the score that finds its graph

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

    @torch.no_grad()
    def families(self, own: Tensor, n: Tensor) -> Families:
        """Gather every context's own scatter ``(contexts, genes, genes)`` on the graph; ``n`` (contexts, 1) cells."""
        parents, exists = parent_index(self.graph)
        gene = torch.arange(len(parents))[:, None]
        return Families(parents, exists, own[:, gene, parents], own[:, parents[:, :, None], parents[:, None, :]], n)

    def moments(self, contexts: Contexts, controls: Controls) -> Moments:
        """What the likelihood needs of all cells, from their sufficient statistics."""
        w = self.coefficients
        rss = controls.scatter.diagonal() - 2 * (w * controls.scatter).sum(0) + (w * (controls.scatter @ w)).sum(0)
        at_controls = controls.n * (controls.mean - self(controls.mean))[0] ** 2
        within = torch.zeros_like(contexts.mean) if contexts.own is None else self._within(contexts)
        return Moments(contexts.mean - self(contexts.mean), within, contexts.mean, contexts.spread, rss + at_controls)

    def _within(self, contexts: Contexts) -> Tensor:
        """Variance of the residual within every context, ``(contexts, genes)``."""
        f = contexts.own
        w = torch.where(f.exists, self.weight[f.parents, torch.arange(len(f.parents))[:, None]], 0.0)
        explained = -2 * (w * f.cross).sum(-1) + torch.einsum("kjab,ja,jb->kj", f.among, w, w)
        return (contexts.spread + explained / f.size).clamp(min=0)

    def weight_penalty(self) -> Tensor:
        """Sum of squared coefficients."""
        return (self.coefficients**2).sum()

    def prune(self, x: Tensor) -> None:
        """Keep every edge: the search has paid for each of them."""

    def effects(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean derivative of every mechanism by every parent over cells ``x``, and its sign; ``(genes, genes)`` each."""
        w = self.coefficients
        return w, torch.sign(w)

    def strength(self, x: Tensor) -> Tensor:
        r"""Nats per cell that an edge carries: :math:`E[(f_j(x) - f_j(x^{\pi i}))^2] / 2\sigma_j^2`.

        :math:`x^{\pi i}` has parent :math:`i` permuted over cells, so here it is :math:`w_{ij}^2 Var(x_i) / \sigma_j^2`.
        """
        return self.coefficients**2 * x.var(0, correction=0)[:, None] / self.variance
