"""Continuous relaxations of a DAG. A new relaxation is a class here and an entry in :data:`RELAXATIONS`."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from .acyclicity import log_det


class Relaxation(ABC):
    """Several graphs at once, as gates in [0, 1] on the allowed edges.

    Parameters
    ----------
    start
        Position of every gene in the topological order at the start, ``(graphs, genes)``.
    allowed, required
        ``(genes, genes)`` bool, row = source: edges that may exist, and edges whose gates are 1.
    generator
        Generator of random numbers, on the CPU, so that devices do not change the result.

    Attributes
    ----------
    rate
        Step size of the parameter.
    kick
        SD of the random displacement of genes at the start of a round: least number of ranks, and largest share of the genes.
    """

    rate: float
    kick: tuple[float, float]

    def __init__(self, start: Tensor, allowed: Tensor, required: Tensor, generator: torch.Generator) -> None:
        self.allowed, self.required, self.generator = allowed, required, generator
        self.parameter = self.begin(start).requires_grad_()

    @abstractmethod
    def begin(self, start: Tensor) -> Tensor:
        """The parameter at the start."""

    @abstractmethod
    def open(self, progress: float) -> Tensor:
        """Gates of all pairs, ``(graphs, genes, genes)``; ``progress`` is the share of steps done, from 0 to 1."""

    @abstractmethod
    def edges(self) -> Tensor:
        """Gates that would be open if cooling ended now, ``(graphs, genes, genes)`` bool."""

    def cycles(self) -> Tensor:
        """Penalty of the cycles (nats), ``(graphs,)``; called once per step."""
        return self.parameter.new_zeros(len(self.parameter))

    def gates(self, progress: float) -> Tensor:
        """Gates with the constraints: 1 on required edges, 0 on edges that are not allowed."""
        return self._known(self.open(progress))

    def hard(self) -> Tensor:
        """Open gates with the constraints: required edges included, edges that are not allowed left out."""
        return (self.edges() & self.allowed) | self.required

    def _known(self, gates: Tensor) -> Tensor:
        return torch.where(self.required, 1.0, gates * self.allowed)


class SmoothOrientation(Relaxation):
    r"""Every gene has a priority, and the gate of an edge opens as its target comes after its source (COSMO, Massidda et al. 2024).

    .. math:: A_{ij} = \operatorname{sigmoid}\frac{p_j + \epsilon_j - p_i - \epsilon_i}{t}, \qquad \epsilon \sim N(0, \tau^2)

    :math:`p` are the priorities, :math:`t` is the temperature and :math:`\epsilon` is noise, drawn anew in every step. As both
    fall, the gates become an order of the genes. A graph that follows an order has no cycle, so no acyclicity term is needed. The
    noise exposes the weights to other orders, and fewer descents end in poor ones.
    """

    rate, kick = 0.1, (4.0, 1.0)
    hot, cold, cooled = 1.0, 0.2, 0.8  # temperatures in ranks, and when the last one is reached
    noise = 2.0  # ranks, at the start

    def begin(self, start: Tensor) -> Tensor:
        """The priorities."""
        return start.clone()

    def open(self, progress: float) -> Tensor:
        """Sigmoids of the differences of priorities; temperature and noise fall with progress."""
        done = min(1.0, progress / self.cooled)
        draw = torch.randn(self.parameter.shape, generator=self.generator, dtype=torch.float64).to(self.parameter)
        p = self.parameter + (1 - done) * self.noise * draw
        return torch.sigmoid((p[:, None, :] - p[:, :, None]) / (self.hot * (self.cold / self.hot) ** done))

    def edges(self) -> Tensor:
        """Edges from lower to higher priority."""
        p = self.parameter.detach()
        return p[:, None, :] > p[:, :, None]


class GumbelEdges(Relaxation):
    r"""Every edge has a probability of its own, and cycles are penalized until there are none.

    .. math:: A_{ij} = \operatorname{sigmoid}\frac{\theta_{ij} + \epsilon}{t}, \qquad \epsilon \sim \mathrm{Logistic}

    The noise :math:`\epsilon` is drawn anew in every step; :math:`\theta` are log odds and :math:`t` is the temperature. The penalty on
    :func:`log_det` of the probabilities rises in every step, until the likely edges of a graph have no cycle, and then stays
    constant: a penalty that keeps growing drives every edge to zero (SDCD, Nazaret et al. 2024). The direction of an edge is
    settled early, by its start, so the random displacement of a round must be small.
    """

    rate, kick = 0.1, (0.5, 0.2)
    hot, cold = 1.0, 0.3
    ramp = 50.0  # nats per step by which the penalty of a cycle of two edges rises

    def begin(self, start: Tensor) -> Tensor:
        """The log odds of all edges, larger for edges along the order at the start."""
        self.price = start.new_zeros(len(start))
        self.scale = 1.0 + float(self.allowed.sum(1).max())
        return ((start[:, None, :] - start[:, :, None]) / 3).clamp(-2, 2)

    def open(self, progress: float) -> Tensor:
        """A draw of relaxed Bernoulli gates; the temperature falls with progress."""
        u = torch.rand(self.parameter.shape, generator=self.generator, dtype=torch.float64).clamp(1e-9, 1 - 1e-9)
        noise = torch.logit(u).to(self.parameter)
        return torch.sigmoid((self.parameter + noise) / (self.hot + (self.cold - self.hot) * progress))

    def edges(self) -> Tensor:
        """Edges that are more likely than not."""
        return self.parameter.detach() > 0

    def cycles(self) -> Tensor:
        """The penalty of cycles, raised first for graphs whose likely edges have a cycle."""
        likely = log_det(self.hard().to(self.parameter.dtype), self.scale) > 1e-9
        self.price = self.price + self.ramp * self.scale**2 * likely
        return self.price * log_det(self._known(torch.sigmoid(self.parameter)), self.scale)


RELAXATIONS = {"smooth": SmoothOrientation, "gumbel": GumbelEdges}
