from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ._families import parent_index

if TYPE_CHECKING:
    from scgim.structure import LocalFit


# Least noise variance, in control variances. The copy of a gene, or the sum of others, has no noise of its own. Its likelihood would then
# grow without bound, and a deviation of 1e-6 control SD would outweigh all effects.
NOISE_FLOOR = 1e-3


class Mechanism(nn.Module):
    r"""Mechanisms of all genes given their parents, :math:`x_j = f_j(x_{pa(j)}) + \sigma_j \epsilon`, with Gaussian noise.

    Parameters are stored by gene and parent, so that work and memory grow with the edges of the graph and not with genes x genes. Every
    mechanism has an intercept, a linear coefficient for every parent and a noise variance.

    Parameters
    ----------
    n_genes
        Number of genes, all on the standardized scale.
    """

    affine: bool  # whether f is affine, so that `moments` needs only sufficient statistics
    graph: Tensor  # (genes, genes) bool, row = source
    columns: int  # basis functions of a parent in the score that finds the graph
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
        """Noise variance, ``(genes,)``, at least :data:`NOISE_FLOOR`."""
        return torch.exp(2 * self.log_sigma).clamp(min=NOISE_FLOOR)

    def without_noise(self) -> Tensor:
        """Genes whose parents determine them up to the floor of the noise variance, ``(genes,)`` bool."""
        return torch.exp(2 * self.log_sigma) < NOISE_FLOOR

    @torch.no_grad()
    def set_graph(self, graph: Tensor) -> None:
        """Set the graph. Weights of edges in both graphs are kept, the other weights are 0. Parameters are new objects."""
        parents, exists = self.parents, self.exists > 0
        old = {name: getattr(self, name).data for name in self.by_parent}
        self.graph.copy_(graph)
        self._index()
        self._resize(self.parents.shape[1])
        # Position of every parent among the gene's parents in the old graph.
        same = (self.parents[:, :, None] == parents[:, None, :]) & exists[:, None, :] & (self.exists > 0)[:, :, None]
        gene, new, before = same.nonzero(as_tuple=True)
        for name in self.by_parent:
            getattr(self, name).data[gene, new] = old[name][gene, before]

    def _resize(self, width: int) -> None:
        # New parameters are necessary, because autograd stores the shape of a parameter.
        for name in self.by_parent:
            old = getattr(self, name)
            shape = (len(old), width, *old.shape[2:])
            setattr(self, name, nn.Parameter(old.data.new_zeros(shape), requires_grad=old.requires_grad))

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: object) -> None:
        # The width of the parameters depends on the graph, which is stored with the weights.
        self._resize(state_dict[prefix + "skip"].shape[1])
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._index()

    @torch.no_grad()
    def warm_start(self, graph: Tensor, fit: LocalFit) -> None:
        """Set the graph and the parameters of the least-squares fit on it."""
        self.set_graph(graph)
        self.skip.copy_(self._gather(torch.as_tensor(fit.weight)[:: self.columns]))
        self.bias.copy_(torch.as_tensor(fit.intercept))
        self.log_sigma.copy_(0.5 * torch.log(torch.as_tensor(fit.variance)))

    def _gather(self, dense: Tensor) -> Tensor:
        """Convert ``(genes, genes)``, row = source, to ``(genes, most parents)``, padded with 0."""
        return dense[self.parents, torch.arange(len(self.parents))[:, None]] * self.exists

    def _dense(self, value: Tensor) -> Tensor:
        """Convert ``(genes, most parents)`` to ``(genes, genes)``, row = source."""
        gene, a = (self.exists > 0).nonzero(as_tuple=True)
        out = torch.zeros_like(self.graph, dtype=value.dtype)
        return out.index_put((self.parents[gene, a], gene), value[gene, a])
