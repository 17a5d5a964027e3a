"""Continuous stand-ins for a DAG. A new one is a class here and an entry in :data:`RELAXATIONS`."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from .acyclicity import log_det


class Relaxation(ABC):
    """Several graphs at once, as gates in [0, 1] on the edges that may exist.

    Parameters
    ----------
    start
        Where every gene stands in a causal order to begin with, ``(graphs, genes)``.
    allowed, required
        ``(genes, genes)`` bool, row = source: edges that may exist, and whose gates are 1.
    generator
        Of random numbers, on the CPU.

    Attributes
    ----------
    rate
        Step size of the parameter.
    kick
        How far a round throws the genes of the best order: ranks at least, and share of the genes at most.
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
        """Gates of all pairs, ``(graphs, genes, genes)``, when so much of the steps is done, from 0 to 1."""

    @abstractmethod
    def edges(self) -> Tensor:
        """Which gates will be open in the end, ``(graphs, genes, genes)`` bool."""

    def cycles(self) -> Tensor:
        """What the cycles cost in nats, ``(graphs,)``; asked once a step."""
        return self.parameter.new_zeros(len(self.parameter))

    def gates(self, progress: float) -> Tensor:
        """As in :meth:`open`, on what is known of the graph."""
        return self._known(self.open(progress))

    def hard(self) -> Tensor:
        """As in :meth:`edges`, on what is known of the graph."""
        return (self.edges() & self.allowed) | self.required

    def _known(self, gates: Tensor) -> Tensor:
        return torch.where(self.required, 1.0, gates * self.allowed)


class SmoothOrientation(Relaxation):
    r"""Every gene has a priority, and an edge is open as far as its target comes after its source (COSMO, Massidda et al. 2024).

    .. math:: A_{ij} = \operatorname{sigmoid}\frac{p_j + \epsilon_j - p_i - \epsilon_i}{t}, \qquad \epsilon \sim N(0, \tau^2)

    While the temperature :math:`t` and the noise, drawn anew in every step, fall, this becomes an order of the genes, which no
    graph of different priorities can contradict: it needs no acyclicity term. The noise shows the weights other orders, and with
    it fewer descents end in poor ones.
    """

    rate, kick = 0.1, (4.0, 1.0)
    hot, cold, cooled = 1.0, 0.2, 0.8  # temperatures in ranks, and when the last one is reached
    noise = 2.0  # ranks, at the start

    def begin(self, start: Tensor) -> Tensor:
        """As in the class above."""
        return start.clone()

    def open(self, progress: float) -> Tensor:
        """As in the class above."""
        done = min(1.0, progress / self.cooled)
        draw = torch.randn(self.parameter.shape, generator=self.generator, dtype=torch.float64).to(self.parameter)
        p = self.parameter + (1 - done) * self.noise * draw
        return torch.sigmoid((p[:, None, :] - p[:, :, None]) / (self.hot * (self.cold / self.hot) ** done))

    def edges(self) -> Tensor:
        """As in the class above."""
        p = self.parameter.detach()
        return p[:, None, :] > p[:, :, None]


class GumbelEdges(Relaxation):
    r"""Every edge is there with a probability of its own, and cycles are priced until there are none.

    .. math:: A_{ij} = \operatorname{sigmoid}\frac{\theta_{ij} + \epsilon}{t}, \qquad \epsilon \sim \mathrm{Logistic}

    is drawn anew in every step. The price of :func:`log_det` of the probabilities rises step by step, for every graph until its
    likely edges have no cycle, and stays there: a price that only grows drives every edge to zero (SDCD, Nazaret et al. 2024).
    Which of two directions is priced out is settled early, by where it started: an order thrown far is not found back.
    """

    rate, kick = 0.1, (0.5, 0.2)
    hot, cold = 1.0, 0.3
    ramp = 50.0  # nats that two edges in a circle cost more with every step

    def begin(self, start: Tensor) -> Tensor:
        """As in the class above."""
        self.price = start.new_zeros(len(start))
        self.scale = 1.0 + float(self.allowed.sum(1).max())
        return ((start[:, None, :] - start[:, :, None]) / 3).clamp(-2, 2)

    def open(self, progress: float) -> Tensor:
        """As in the class above."""
        u = torch.rand(self.parameter.shape, generator=self.generator, dtype=torch.float64).clamp(1e-9, 1 - 1e-9)
        noise = torch.logit(u).to(self.parameter)
        return torch.sigmoid((self.parameter + noise) / (self.hot + (self.cold - self.hot) * progress))

    def edges(self) -> Tensor:
        """As in the class above."""
        return self.parameter.detach() > 0

    def cycles(self) -> Tensor:
        """As in the class above."""
        likely = log_det(self.hard().to(self.parameter.dtype), self.scale) > 1e-9
        self.price = self.price + self.ramp * self.scale**2 * likely
        return self.price * log_det(self._known(torch.sigmoid(self.parameter)), self.scale)


RELAXATIONS = {"smooth": SmoothOrientation, "gumbel": GumbelEdges}
