from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from scgim.module._moments import Moments

from ._base import Mechanism

if TYPE_CHECKING:
    from scgim.module._moments import Controls, MeasuredConditions


class Families(NamedTuple):
    """Scatter of every condition, gathered for each gene and its parents."""

    cross: Tensor  # (conditions, genes, most parents) gene x parent
    among: Tensor  # (conditions, genes, most parents, most parents) parent x parent
    size: Tensor  # (conditions, 1) cells


class LinearMechanism(Mechanism):
    r"""Linear mechanisms :math:`f_j(x) = b_j + \sum_{i \in pa(j)} w_{ij} x_i` with Gaussian noise.

    Parameters
    ----------
    n_genes
        Number of genes, all on the standardized scale.
    """

    affine = True
    columns = 1

    @property
    def coefficients(self) -> Tensor:
        """Weights, ``(genes, genes)``, row = source."""
        return self._dense(self.skip)

    def forward(self, x: Tensor, genes: Tensor | slice = slice(None)) -> Tensor:
        """The mechanisms of some genes at cells ``x``: ``(cells, genes)`` -> ``(cells, len(genes))``."""
        return x @ self.coefficients[:, genes] + self.bias[genes]

    @torch.no_grad()
    def families(self, own: Tensor, n: Tensor) -> Families:
        """Gather the scatter of every condition, ``(conditions, genes, genes)``, on the graph; ``n`` are cells, ``(conditions, 1)``."""
        gene, parents = torch.arange(len(self.parents))[:, None], self.parents
        return Families(own[:, gene, parents], own[:, parents[:, :, None], parents[:, None, :]], n)

    def moments(self, conditions: MeasuredConditions, controls: Controls) -> Moments:
        """Moments of the conditions, from the sufficient statistics of their cells."""
        w = self.skip * self.exists
        mean = torch.cat([controls.mean, conditions.mean])
        # The sum runs over edges, because a product with the dense coefficients would cost genes x genes.
        gene, a = (self.exists > 0).nonzero(as_tuple=True)
        flow = mean[:, self.parents[gene, a]] * self.skip[gene, a]
        residual = (mean - self.bias).index_add(1, gene, flow, alpha=-1)
        pooled = self.families(controls.scatter[None], controls.n)
        rss = controls.scatter.diagonal() + _explained(pooled, w)[0] + controls.n * residual[0] ** 2
        within = torch.zeros_like(conditions.mean)
        if conditions.own is not None:
            within = (conditions.spread + _explained(conditions.own, w) / conditions.own.size).clamp(min=0)
        return Moments(residual[1:], within, conditions.mean, conditions.spread, rss)

    def weight_penalty(self) -> Tensor:
        """Sum of squared coefficients."""
        return ((self.skip * self.exists) ** 2).sum()

    def prune(self, x: Tensor, keep: Tensor | None = None) -> None:
        """Keep every edge, because the search has penalized each of them."""

    def effects(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean derivative of every mechanism by every parent over cells ``x``, and its sign; ``(genes, genes)`` each."""
        w = self.coefficients
        return w, torch.sign(w)

    def strength(self, x: Tensor) -> Tensor:
        r"""Nats per cell that an edge carries: :math:`E[(f_j(x) - f_j(x^{\pi i}))^2] / 2\sigma_j^2`.

        :math:`x^{\pi i}` has parent :math:`i` permuted over cells. For linear mechanisms this is :math:`w_{ij}^2 Var(x_i) / \sigma_j^2`.
        """
        return self.coefficients**2 * x.var(0, correction=0)[:, None] / self.variance


def _explained(scatter: Families, w: Tensor) -> Tensor:
    """Residual sum of squares less the gene's sum of squares, ``(conditions, genes)``."""
    return torch.einsum("kjab,ja,jb->kj", scatter.among, w, w) - 2 * (w * scatter.cross).sum(-1)
