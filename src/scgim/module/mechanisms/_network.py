from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from scgim.statistics import BASIS_CENTRES, BASIS_SLOPE

from ._families import parent_index

if TYPE_CHECKING:
    from scgim.structure import LocalFit

_VALUES = 4_000_000  # gene values that a summary over cells looks at; more change it by less than a per cent


class NetworkMechanism(nn.Module):
    r"""A small network for every gene, with a linear skip, on its parents alone.

    .. math:: f_j(x) = b_j + \sum_{i \in pa(j)} w_{ij} x_i
        + \sum_{u=1}^h v_{ju} \tanh\Big(a_{ju} + \sum_{i \in pa(j)} H_{jiu} x_i\Big)

    Parents are gathered side by side, so that work and memory grow with the edges of the graph, not with genes x genes.

    Parameters
    ----------
    n_genes
        Genes, all on the standardised scale.
    n_hidden
        Units of a gene's network, :math:`h`.
    """

    affine = False  # a mean cell does not move as the cells do on average
    columns = 1 + len(BASIS_CENTRES)  # of a parent in the score that finds its graph

    def __init__(self, n_genes: int, n_hidden: int = 8) -> None:
        super().__init__()
        self.n_hidden = n_hidden
        zero = lambda *shape: nn.Parameter(torch.zeros(shape, dtype=torch.float64))
        self.bias, self.log_sigma = zero(n_genes), zero(n_genes)
        self.skip, self.inner = zero(n_genes, 1), zero(n_genes, 1, n_hidden)  # one column a parent
        self.inner_bias, self.outer = zero(n_genes, n_hidden), zero(n_genes, n_hidden)
        self.register_buffer("graph", torch.zeros(n_genes, n_genes, dtype=torch.bool))
        self._index()

    def _index(self) -> None:
        self.parents, exists = parent_index(self.graph)
        self.exists = exists.to(self.bias.dtype)

    @torch.no_grad()
    def set_graph(self, graph: Tensor) -> None:
        """Take a graph; weights of edges that are in both graphs stay, others start at zero. Parameters are new objects."""
        old = self.parents, self.exists > 0, self.skip.data, self.inner.data
        self.graph.copy_(graph)
        self._index()
        self._resize(self.parents.shape[1])
        for j, parents in enumerate(self.parents.tolist()):
            place = {i: a for a, i in enumerate(old[0][j].tolist()) if old[1][j, a]}
            for a, i in enumerate(parents):
                if i in place and self.exists[j, a]:
                    self.skip[j, a], self.inner[j, a] = old[2][j, place[i]], old[3][j, place[i]]

    def _resize(self, width: int) -> None:
        d, h = self.inner_bias.shape
        # new parameters: autograd remembers the shape of old ones
        for name, shape in (("skip", (d, width)), ("inner", (d, width, h))):
            old = getattr(self, name)
            setattr(self, name, nn.Parameter(old.data.new_zeros(shape), requires_grad=old.requires_grad))

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: object) -> None:
        # how many columns parents take depends on the graph, which comes with the weights
        self._resize(state_dict[prefix + "skip"].shape[1])
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._index()

    @property
    def variance(self) -> Tensor:
        """Noise variance, ``(genes,)``."""
        return torch.exp(2 * self.log_sigma)

    @torch.no_grad()
    def warm_start(self, graph: Tensor, fit: LocalFit) -> None:
        """Take a graph and the least-squares fit of the basis on it: its strongest columns become a gene's first units."""
        self.graph.copy_(graph)
        self._index()
        d, width = self.parents.shape
        self._resize(width)
        h, b = self.n_hidden, self.columns
        generator = torch.Generator().manual_seed(0)
        self.inner.copy_(torch.randn(d, width, h, generator=generator, dtype=torch.float64) / math.sqrt(width))
        self.inner.mul_(self.exists[:, :, None])
        self.inner_bias.copy_(torch.randn(d, h, generator=generator, dtype=torch.float64))
        self.outer.zero_()
        weight = torch.as_tensor(fit.weight).reshape(d, b, d)
        own = weight[self.parents, :, torch.arange(d)[:, None]] * self.exists[:, :, None]  # (genes, width, columns)
        self.skip.copy_(own[:, :, 0])
        bends = own[:, :, 1:].reshape(d, -1)
        used = min(h, bends.shape[1])
        strongest = torch.argsort(-bends.abs(), dim=1, stable=True)[:, :used]
        gene, unit = torch.arange(d)[:, None].expand(d, used), torch.arange(used).expand(d, used)
        value = torch.gather(bends, 1, strongest)
        live = value != 0
        gene, unit, column, value = gene[live], unit[live], strongest[live], value[live]
        centre = torch.tensor(BASIS_CENTRES, dtype=torch.float64)[column % (b - 1)]
        self.inner[gene, :, unit] = 0.0
        self.inner[gene, column // (b - 1), unit] = BASIS_SLOPE
        self.inner_bias[gene, unit], self.outer[gene, unit] = -BASIS_SLOPE * centre, value
        self.bias.copy_(torch.as_tensor(fit.intercept))
        self.log_sigma.copy_(0.5 * torch.log(torch.as_tensor(fit.variance)))

    def forward(self, x: Tensor, genes: Tensor | slice = slice(None)) -> Tensor:
        """The mechanisms of some genes at cells ``x``: ``(cells, genes)`` -> ``(cells, len(genes))``."""
        return self._of_parents(x[:, self.parents[genes]], genes)

    def _of_parents(self, z: Tensor, genes: Tensor | slice = slice(None)) -> Tensor:
        """The same from the parents' values, ``(cells, len(genes), width)``."""
        exists = self.exists[genes]
        skip, inner = self.skip[genes] * exists, self.inner[genes] * exists[:, :, None]
        unit = torch.tanh(torch.baddbmm(self.inner_bias[genes][:, None], z.transpose(0, 1), inner))  # (genes, cells, h)
        return self.bias[genes] + (z * skip).sum(-1) + torch.einsum("jch,jh->cj", unit, self.outer[genes])

    def weight_penalty(self) -> Tensor:
        """Sum of squared weights."""
        exists = self.exists
        inner = (self.inner * exists[:, :, None]) ** 2
        return ((self.skip * exists) ** 2).sum() + inner.sum() + (self.outer**2 * exists[:, :1]).sum()

    @torch.no_grad()
    def prune(self, x: Tensor, least: float = 0.003) -> None:
        """Drop edges whose :meth:`strength` over cells ``x`` is less than ``least`` nats per cell."""
        self.set_graph(self.graph & (self.strength(x) >= least))

    @torch.no_grad()
    def effects(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean derivative of every mechanism by every parent over cells ``x``, and its sign, 0 where that changes."""
        z = _some(x)[:, self.parents]
        inner = self.inner * self.exists[:, :, None]
        unit = torch.tanh(torch.baddbmm(self.inner_bias[:, None], z.transpose(0, 1), inner))
        slope = torch.einsum("jch,jh,jah->cja", 1 - unit**2, self.outer, inner) + self.skip * self.exists
        sign = (slope > 0).all(0).double() - (slope < 0).all(0).double()
        return self._dense(slope.mean(0)), self._dense(sign)

    @torch.no_grad()
    def strength(self, x: Tensor) -> Tensor:
        r"""Nats per cell that an edge carries: :math:`E[(f_j(x) - f_j(x^{\pi i}))^2] / 2\sigma_j^2`.

        :math:`x^{\pi i}` has parent :math:`i` permuted over cells; four fixed permutations are averaged.
        """
        z = _some(x)[:, self.parents]
        f, total = self._of_parents(z), torch.zeros_like(self.skip)
        generator = torch.Generator().manual_seed(0)
        orders = [torch.randperm(len(z), generator=generator) for _ in range(4)]
        for a in range(z.shape[2]):
            for order in orders:
                moved = z.clone()
                moved[:, :, a] = z[order][:, :, a]
                total[:, a] += ((f - self._of_parents(moved)) ** 2).mean(0) / len(orders)
        return self._dense(total / (2 * self.variance[:, None]))

    def _dense(self, value: Tensor) -> Tensor:
        """``(genes, width)`` by parent -> ``(genes, genes)``, row = source."""
        out = torch.zeros_like(self.graph, dtype=value.dtype)
        gene, a = (self.exists > 0).nonzero(as_tuple=True)
        out[self.parents[gene, a], gene] = value[gene, a]
        return out


def _some(x: Tensor) -> Tensor:
    """At most so many cells that a summary stays cheap, evenly spaced."""
    return x[:: -(-x.numel() // _VALUES)] if x.numel() else x
