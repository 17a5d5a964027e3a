from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ._families import parent_index

if TYPE_CHECKING:
    from scgim.structure import LocalFit


class Mechanism(nn.Module):
    r"""How every gene follows from its parents, :math:`x_j = f_j(x_{pa(j)}) + \sigma_j \epsilon`, with Gaussian noise.

    Every gene's parents lie side by side, so that parameters, work and memory grow with the edges of the graph and not
    with genes x genes. What every mechanism has are an intercept, a linear coefficient for every parent and the noise.

    Parameters
    ----------
    n_genes
        Genes, all on the standardised scale.
    """

    affine: bool  # the mean cell moves as the cells do on average, and `moments` needs sufficient statistics alone
    graph: Tensor  # (genes, genes) bool, row = source
    columns: int  # of a parent in the score that finds the graph
    by_parent: tuple[str, ...] = ("skip",)  # parameters of shape (genes, most parents, ...)

    def __init__(self, n_genes: int) -> None:
        super().__init__()
        zero = lambda *shape: nn.Parameter(torch.zeros(shape, dtype=torch.float64))
        self.bias, self.log_sigma, self.skip = zero(n_genes), zero(n_genes), zero(n_genes, 1)
        self.register_buffer("graph", torch.zeros(n_genes, n_genes, dtype=torch.bool))
        self._index()

    def _index(self) -> None:
        self.parents, exists = parent_index(self.graph)
        self.exists = exists.to(self.bias.dtype)

    @property
    def variance(self) -> Tensor:
        """Noise variance, ``(genes,)``."""
        return torch.exp(2 * self.log_sigma)

    @torch.no_grad()
    def set_graph(self, graph: Tensor) -> None:
        """Take a graph; weights of edges that are in both graphs stay, others are zero. Parameters are new objects."""
        parents, exists = self.parents, self.exists > 0
        old = {name: getattr(self, name).data for name in self.by_parent}
        self.graph.copy_(graph)
        self._index()
        self._resize(self.parents.shape[1])
        # the place of every parent among the gene's old ones
        same = (self.parents[:, :, None] == parents[:, None, :]) & exists[:, None, :] & (self.exists > 0)[:, :, None]
        gene, new, before = same.nonzero(as_tuple=True)
        for name in self.by_parent:
            getattr(self, name).data[gene, new] = old[name][gene, before]

    def _resize(self, width: int) -> None:
        # new parameters: autograd remembers the shape of old ones
        for name in self.by_parent:
            old = getattr(self, name)
            shape = (len(old), width, *old.shape[2:])
            setattr(self, name, nn.Parameter(old.data.new_zeros(shape), requires_grad=old.requires_grad))

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: object) -> None:
        # how many columns parents take depends on the graph, which comes with the weights
        self._resize(state_dict[prefix + "skip"].shape[1])
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._index()

    @torch.no_grad()
    def warm_start(self, graph: Tensor, fit: LocalFit) -> None:
        """Take a graph and the least-squares fit on it."""
        self.set_graph(graph)
        self.skip.copy_(self._gather(torch.as_tensor(fit.weight)[:: self.columns]))
        self.bias.copy_(torch.as_tensor(fit.intercept))
        self.log_sigma.copy_(0.5 * torch.log(torch.as_tensor(fit.variance)))

    def _gather(self, dense: Tensor) -> Tensor:
        """``(genes, genes)``, row = source -> ``(genes, most parents)``, zero where there is no parent."""
        return dense[self.parents, torch.arange(len(self.parents))[:, None]] * self.exists

    def _dense(self, value: Tensor) -> Tensor:
        """``(genes, most parents)`` -> ``(genes, genes)``, row = source."""
        gene, a = (self.exists > 0).nonzero(as_tuple=True)
        out = torch.zeros_like(self.graph, dtype=value.dtype)
        return out.index_put((self.parents[gene, a], gene), value[gene, a])
