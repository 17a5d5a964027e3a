"""Residuals of mechanisms that are linear in their basis functions, from sufficient statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from scgim.statistics import SufficientStatistics


class Residuals(NamedTuple):
    """Residuals of several graphs at once, by treated condition; ``pooled`` includes the controls."""

    mean: Tensor  # (graphs, conditions, genes)
    within: Tensor  # (graphs, conditions, genes) variance within the condition; 0 where `pooled` holds it
    pooled: Tensor  # (graphs, genes) sum of squares that does not depend on interventions


class Columns:
    """Statistics with the basis functions of each gene whitened: variance 1 and uncorrelated within conditions.

    All weights then have one scale, so gradient steps and penalties treat them alike. The sum of a parent's squared weights is the
    variance that the parent explains.

    Parameters
    ----------
    statistics
        Statistics on the standardized scale with the controls as condition 0; with ``own`` if interventions change the scatter.
    columns
        Number of basis functions of a gene, the first of which is its value.
    device
        Device of the tensors.
    """

    def __init__(self, statistics: SufficientStatistics, columns: int, device: torch.device | str = "cpu") -> None:
        self.columns, self.device = columns, device
        self.n = self._tensor(statistics.n)
        mean = statistics.mean - statistics.mean[0]
        self.turn = _whitening(statistics, columns)
        self.scatter = self._tensor(self.turn.T @ statistics.scatter @ self.turn)
        self.cross = self._tensor(statistics.scatter[::columns] @ self.turn)
        self.square = self._tensor(statistics.scatter.diagonal()[::columns])
        self.mean, self.value = self._tensor(mean @ self.turn), self._tensor(mean[:, ::columns])
        self.own = statistics.own

    def _tensor(self, a: np.ndarray) -> Tensor:
        return torch.tensor(np.ascontiguousarray(a), dtype=torch.float64, device=self.device)

    @property
    def cells(self) -> float:
        """Cells in all conditions."""
        return float(self.n.sum())

    def gather(self, parents: Tensor) -> None:
        """Keep the statistics of every gene and its candidate parents, ``(genes, most)`` int."""
        d, b = len(parents), self.columns
        index = (parents[:, :, None] * b + torch.arange(b, device=parents.device)).flatten(1)
        gene = torch.arange(d, device=parents.device)[:, None]
        self.linear = self.cross[gene, index]  # (genes, m)
        self.quadratic = self.scatter[index[:, :, None], index[:, None, :]]  # (genes, m, m)
        self.means = self.mean[:, index].transpose(0, 1).contiguous()  # (genes, conditions, m)
        if self.own is None:
            return
        at, blocks = index.cpu().numpy(), []
        # The loop runs gene by gene, because all whitened scatters at once would take twice the memory.
        for j, columns in enumerate(at):
            left = self.own @ self.turn[:, columns]
            blocks.append((left[:, j * b], self.turn[:, columns].T @ left))
        self.own_linear = self._tensor(np.stack([a for a, _ in blocks]))  # (genes, conditions, m)
        self.own_quadratic = self._tensor(np.stack([a for _, a in blocks]))  # (genes, conditions, m, m)
        self.own_square = self._tensor(self.own.diagonal(axis1=1, axis2=2)[:, ::b])

    def residuals(self, weight: Tensor, bias: Tensor, loose: Tensor) -> Residuals:
        """Residuals of mechanisms with ``weight`` ``(graphs, genes, m)`` and ``bias`` ``(graphs, genes)``.

        ``loose``, ``(graphs, genes)``, is the variance due to uncertain edges.
        """
        mean = self.value - bias[:, None] - torch.bmm(self.means, weight.permute(1, 2, 0)).permute(2, 1, 0)
        at_control = self.n[0] * mean[:, 0] ** 2
        if self.own is None:
            among = (torch.bmm(weight.transpose(0, 1), self.quadratic).transpose(0, 1) * weight).sum(-1)
            pooled = self.square - 2 * (self.linear * weight).sum(-1) + among + self.cells * loose + at_control
            return Residuals(mean[:, 1:], torch.zeros_like(mean[:, 1:]), pooled)
        w = weight.permute(1, 2, 0)  # (genes, m, graphs)
        genes, conditions, m = self.own_linear.shape
        left = torch.bmm(self.own_quadratic.view(genes, conditions * m, m), w).view(genes, conditions, m, -1)
        among = (left * w[:, None]).sum(2) - 2 * torch.bmm(self.own_linear, w)  # (genes, conditions, graphs)
        rss = (self.own_square + among.permute(2, 1, 0)).clamp(min=0) + self.n[:, None] * loose[:, None]
        return Residuals(mean[:, 1:], rss[:, 1:] / self.n[1:, None], rss[:, 0] + at_control)


def _whitening(statistics: SufficientStatistics, columns: int) -> np.ndarray:
    """Block-diagonal matrix that whitens the basis functions of every gene within conditions."""
    c = len(statistics.scatter)
    free, turn = max(statistics.n_cells - len(statistics.n), 1.0), np.zeros((c, c))
    for at in range(0, c, columns):
        block = slice(at, at + columns)
        own = statistics.scatter[block, block] / free
        # Basis functions of a gene with few distinct values may be collinear; the small ridge keeps the matrix invertible.
        value, vector = np.linalg.eigh(own + 1e-6 * np.trace(own) / columns * np.eye(columns))
        turn[block, block] = (vector / np.sqrt(value)) @ vector.T
    return turn
