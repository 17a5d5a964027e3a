"""Targets and effects averaged over an ensemble of graphs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from scgim.module import LinearMechanism
from scgim.structure import GraphEnsemble, levels, resample, search_dag

from ._stability import redraw
from ._targets import module_posterior

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scgim.module import GIMModule
    from scgim.statistics import Means, Statistics

    from ._design import Design
    from ._train import TrainingPlan

MEMBERS = 12
LEAST_BLOCKS = 10
ROUNDS, PATIENCE = 2, 1  # of the search on each draw, which starts from the graph found


@dataclass(frozen=True)
class Averaging:
    r"""Graphs found on draws of the data, and what they say of the measured conditions.

    Parameters
    ----------
    graphs
        One a draw; the graph found on the data itself is none of them.
    weight, bias
        Coefficient of every edge, and the intercepts ``(draws, genes)``; empty for mechanisms that are not linear.
    probability, psi, square
        Of the measured conditions, means over draws of the probability of a target, and of it times psi and times
        :math:`E[\psi^2]`; ``(conditions, genes)`` each, empty for mechanisms that are not linear.
    """

    graphs: GraphEnsemble
    weight: np.ndarray
    bias: np.ndarray
    probability: np.ndarray
    psi: np.ndarray
    square: np.ndarray

    @property
    def averages(self) -> bool:
        """Whether there are mechanisms to average over."""
        return len(self.bias) > 0

    def over(self, touch: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        r"""Probability, psi and its standard error of the graph found, averaged with those of the draws.

        With weight :math:`1 / (B + 1)` for each of :math:`B + 1` graphs, :math:`\bar p = E_b[p_b]`,
        :math:`\bar\psi = E_b[p_b \psi_b] / \bar p`, and the variance of :math:`\psi` by the law of total variance.
        """
        if not self.averages:
            return touch
        (p, psi, error), n = touch, self.graphs.n_members
        mean = lambda own, draws: (own + n * draws) / (n + 1)
        probability = mean(p, self.probability)
        least = np.maximum(probability, 1e-300)
        first, second = (
            mean(p * own, draws) / least for own, draws in ((psi, self.psi), (psi**2 + error**2, self.square))
        )
        known = probability > 1e-12  # what nothing touches keeps the values of the graph found
        first = np.where(known, first, psi)
        return probability, first, np.where(known, np.sqrt(np.maximum(second - first**2, 0)), error)

    def mechanisms(self, module: GIMModule) -> list[tuple[torch.nn.Module, list[torch.Tensor]]]:
        """Mechanisms to run, with the levels of their graph: the trained ones, and those of every draw."""
        found = module.mechanism.graph.numpy()
        out = [(module.mechanism, found)]
        if self.averages:
            for b, graph in enumerate(self.graphs.graphs()):
                own = self.graphs.member == b
                dense = np.zeros(graph.shape)
                dense[self.graphs.source[own], self.graphs.target[own]] = self.weight[own]
                out.append((_linear(graph, dense, self.bias[b], module.mechanism.log_sigma), graph))
        return [(mechanism, [torch.as_tensor(level) for level in levels(graph)]) for mechanism, graph in out]

    def state(self) -> dict[str, object]:
        """Plain arrays, for a file."""
        return {**vars(self), "graphs": self.graphs._asdict()}

    @classmethod
    def from_state(cls, state: dict) -> Averaging:
        """From what :meth:`state` gave."""
        return cls(**{**state, "graphs": GraphEnsemble(**state["graphs"])})


def draws(statistics: Statistics | Means, block: np.ndarray | None, n: int, seed: int) -> Iterator[Statistics | Means]:
    """Data as they might have been: other blocks of conditions (none: the same), and other cells of each."""
    rng = np.random.default_rng([seed, 0xB10C])
    for _ in range(n):
        drawn = statistics if block is None else resample(statistics, block, rng)
        yield next(redraw(drawn, 1, int(rng.integers(2**31))))


def _linear(graph: np.ndarray, weight: np.ndarray, bias: np.ndarray, log_sigma: torch.Tensor) -> LinearMechanism:
    mechanism = LinearMechanism(len(graph))
    mechanism.set_graph(torch.as_tensor(graph))
    mechanism.skip.data.copy_(mechanism._gather(torch.as_tensor(weight)))
    mechanism.bias.data.copy_(torch.as_tensor(bias))
    mechanism.log_sigma.data.copy_(log_sigma)
    return mechanism.requires_grad_(False)


def blocks(design: Design) -> np.ndarray | None:
    """Conditions that are drawn together, those of one drug in one line; ``None`` where there are too few to draw from."""
    _, block = np.unique(design.drug * len(design.lines) + design.line, return_inverse=True)
    return block if block.max() + 1 >= LEAST_BLOCKS else None


@torch.no_grad()
def average(plan: TrainingPlan, block: np.ndarray | None, *, n: int = MEMBERS, seed: int = 0) -> Averaging:
    """Search graphs on draws of a trained plan's data, and ask each what the measured conditions say.

    A gene with the parents that it has in the graph found keeps its trained mechanism; others are fitted by least squares on
    the data themselves, as behind the search's score.
    """
    module, found = plan.module, plan.module.mechanism
    graph = found.graph.numpy()
    options = plan.score | {"allowed": plan.allowed, "required": plan.required}
    options |= {"max_rounds": ROUNDS, "patience": PATIENCE, "start": graph}
    graphs = []
    for number, statistics in enumerate(draws(plan.data.search, block, n, seed)):
        *_, last = search_dag(statistics, seed=number, **options)
        graphs.append(last.graph)
    ensemble = GraphEnsemble.of(graphs)
    if not found.affine:
        nothing = np.zeros((0, len(graph)))
        return Averaging(ensemble, np.zeros(0), nothing, nothing, nothing, nothing)
    weights, biases, sums, asked = [], [], None, {}
    try:
        for member in graphs:
            key = member.tobytes()
            if key not in asked:
                module.mechanism, weight = _refit(plan, found, member)
                asked[key] = module.mechanism.bias.numpy().copy(), weight, _targets(plan)
            bias, weight, said = asked[key]
            biases.append(bias)
            weights.append(weight)
            sums = said if sums is None else [a + b for a, b in zip(sums, said, strict=True)]
    finally:
        module.mechanism = found
    return Averaging(ensemble, np.concatenate(weights), np.array(biases), *(a / n for a in sums))


def _refit(plan: TrainingPlan, found: LinearMechanism, graph: np.ndarray) -> tuple[LinearMechanism, np.ndarray]:
    """Mechanisms on another graph, and the coefficients of its edges in the order of ``np.nonzero``."""
    fit, same = plan._least_squares(graph), (graph == found.graph.numpy()).all(0)
    weight = np.where(same, found.coefficients.numpy(), fit.weight)
    bias = np.where(same, found.bias.numpy(), fit.intercept)
    log_sigma = torch.where(
        torch.as_tensor(same), found.log_sigma, 0.5 * torch.log(torch.as_tensor(fit.variance, dtype=torch.float64))
    )
    return _linear(graph, weight, bias, log_sigma), weight[np.nonzero(graph)]


def _targets(plan: TrainingPlan) -> list[np.ndarray]:
    """Probability of a target, and it times psi and its square, in every measured condition."""
    p, psi, error = module_posterior(plan.module, *plan.measured())
    return [p, p * psi, p * (psi**2 + error**2)]
