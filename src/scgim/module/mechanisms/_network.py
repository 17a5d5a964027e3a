from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from scgim.statistics import BASIS_CENTERS, BASIS_SLOPE

from ._base import Mechanism

if TYPE_CHECKING:
    from scgim.structure import LocalFit

_VALUES = 4_000_000  # most gene values in a summary over cells; more values change the summary by less than 1 %


class NetworkMechanism(Mechanism):
    r"""A small network for every gene, with a linear skip connection, on its parents.

    .. math:: f_j(x) = b_j + \sum_{i \in pa(j)} w_{ij} x_i
        + \sum_{u=1}^h v_{ju} \tanh\Big(a_{ju} + \sum_{i \in pa(j)} H_{jiu} x_i\Big)

    Parameters
    ----------
    n_genes
        Number of genes, all on the standardized scale.
    n_hidden
        :math:`h`, units of a gene's network.
    """

    affine = False
    columns = 1 + len(BASIS_CENTERS)
    by_parent = ("skip", "inner")

    def __init__(self, n_genes: int, n_hidden: int = 8) -> None:
        super().__init__(n_genes)
        zero = lambda *shape: nn.Parameter(torch.zeros(shape, dtype=torch.float64))
        self.inner, self.inner_bias = zero(n_genes, 1, n_hidden), zero(n_genes, n_hidden)
        self.outer = zero(n_genes, n_hidden)

    @torch.no_grad()
    def warm_start(self, graph: Tensor, fit: LocalFit) -> None:
        """Set the graph and the least-squares fit of the basis on it. The strongest basis functions become a gene's first units."""
        super().warm_start(graph, fit)
        (d, width), h, bends = self.parents.shape, self.outer.shape[1], self.columns - 1
        generator = torch.Generator().manual_seed(0)
        self.inner.copy_(torch.randn(d, width, h, generator=generator, dtype=torch.float64) / math.sqrt(width))
        self.inner.mul_(self.exists[:, :, None])
        self.inner_bias.copy_(torch.randn(d, h, generator=generator, dtype=torch.float64))
        self.outer.zero_()
        weight = torch.as_tensor(fit.weight)
        size = torch.stack([self._gather(weight[b :: self.columns]) for b in range(1, bends + 1)], dim=2).reshape(d, -1)
        used = min(h, size.shape[1])
        strongest = torch.argsort(-size.abs(), dim=1, stable=True)[:, :used]
        value = torch.gather(size, 1, strongest)
        gene, unit = (value != 0).nonzero(as_tuple=True)
        column = strongest[gene, unit]
        self.inner[gene, :, unit] = 0.0
        self.inner[gene, column // bends, unit] = BASIS_SLOPE
        center = torch.tensor(BASIS_CENTERS, dtype=torch.float64)[column % bends]
        self.inner_bias[gene, unit], self.outer[gene, unit] = -BASIS_SLOPE * center, value[gene, unit]

    def forward(self, x: Tensor, genes: Tensor | slice = slice(None)) -> Tensor:
        """The mechanisms of some genes at cells ``x``: ``(cells, genes)`` -> ``(cells, len(genes))``, in the precision of ``x``."""
        return self._of_parents(self._parents_at(x, genes), genes).T

    def _parents_at(self, x: Tensor, genes: Tensor | slice = slice(None)) -> Tensor:
        """Values of the parents, ``(len(genes), width, cells)``, contiguous over cells."""
        return x.T.contiguous()[self.parents[genes]]

    def _of_parents(self, z: Tensor, genes: Tensor | slice = slice(None)) -> Tensor:
        """The mechanisms from the parents' values, ``(len(genes), cells)``."""
        exists = self.exists[genes][:, :, None]
        # The linear part is an additional unit without tanh, so that one product serves both parts.
        weight = torch.cat([self.inner[genes], self.skip[genes][:, :, None]], dim=2) * exists
        inner_bias, outer, bias = (p[genes].to(z.dtype) for p in (self.inner_bias, self.outer, self.bias))
        signal = torch.bmm(weight.to(z.dtype).transpose(1, 2), z)
        unit = torch.tanh(signal[:, :-1] + inner_bias[:, :, None])
        return bias[:, None] + signal[:, -1] + torch.bmm(outer[:, None], unit)[:, 0]

    def weight_penalty(self) -> Tensor:
        """Sum of squared weights."""
        exists = self.exists
        inner = (self.inner * exists[:, :, None]) ** 2
        return ((self.skip * exists) ** 2).sum() + inner.sum() + (self.outer**2 * exists[:, :1]).sum()

    @torch.no_grad()
    def prune(self, x: Tensor, keep: Tensor | None = None, least: float = 0.003) -> None:
        """Remove edges with a :meth:`strength` over cells ``x`` below ``least`` nats per cell, except the edges in ``keep``."""
        strong = self.strength(x, n_permutations=1) >= least
        self.set_graph(self.graph & (strong if keep is None else strong | keep))

    @torch.no_grad()
    def effects(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean derivative of every mechanism by every parent over cells ``x``, and its sign, 0 where the sign differs between cells."""
        z, inner = self._parents_at(_some(x)), self.inner * self.exists[:, :, None]
        unit = torch.tanh(torch.bmm(inner.transpose(1, 2), z) + self.inner_bias[:, :, None])
        slope = torch.bmm(inner * self.outer[:, None], 1 - unit**2) + (self.skip * self.exists)[:, :, None]
        sign = (slope > 0).all(2).double() - (slope < 0).all(2).double()
        return self._dense(slope.mean(2)), self._dense(sign)

    @torch.no_grad()
    def strength(self, x: Tensor, n_permutations: int = 4) -> Tensor:
        r"""Nats per cell that an edge carries: :math:`E[(f_j(x) - f_j(x^{\pi i}))^2] / 2\sigma_j^2`.

        :math:`x^{\pi i}` has parent :math:`i` permuted over cells. The expectation is an average over a few fixed permutations.
        """
        z = self._parents_at(_some(x))
        f, total = self._of_parents(z), torch.zeros_like(self.skip)
        generator = torch.Generator().manual_seed(0)
        for order in [torch.randperm(z.shape[2], generator=generator) for _ in range(n_permutations)]:
            for a in range(z.shape[1]):
                permuted = z.clone()
                permuted[:, a] = z[:, a, order]
                total[:, a] += ((f - self._of_parents(permuted)) ** 2).mean(1) / n_permutations
        return self._dense(total / (2 * self.variance[:, None]))


def _some(x: Tensor) -> Tensor:
    """Evenly spaced cells, few enough for a fast summary."""
    return x[:: -(-x.numel() // _VALUES)] if x.numel() else x
