"""Effects averaged over an ensemble of graphs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from scgim.module import LinearMechanism
from scgim.structure import GraphEnsemble, drop_unsupported_edges, levels, search_dag, turn_edges
from scgim.structure.bootstrap import draws

if TYPE_CHECKING:
    from scgim.module import GIMModule
    from scgim.module.mechanisms import Mechanism

    from ._edge_constraints import EdgeConstraints
    from ._graph_regression import GraphRegression

MEMBERS, LEAST_MEMBERS = 12, 3
LARGE = 200_000  # conditions x genes above which there are fewer members, because each member requires a search
TOO_LARGE = 800_000  # conditions x genes above which there is no ensemble
ROUNDS, PATIENCE = 2, 1  # of the search on each draw, which starts from the graph of the data


@dataclass(frozen=True)
class Averaging:
    """Graphs found on draws of the data, with mechanisms on each graph.

    Parameters
    ----------
    graphs
        One graph per draw, without the graph of the data.
    weight, bias
        Coefficient of every edge, and intercepts ``(draws, genes)``; empty for nonlinear mechanisms.
    """

    graphs: GraphEnsemble
    weight: np.ndarray
    bias: np.ndarray

    def mechanisms(self, module: GIMModule) -> list[tuple[torch.nn.Module, list[torch.Tensor]]]:
        """Mechanisms with the topological generations of their graph: the trained mechanisms, and the mechanisms of every draw."""
        found = module.mechanism.graph.numpy()
        out = [(module.mechanism, found)]
        if len(self.bias):
            for b, graph in enumerate(self.graphs.graphs()):
                own = self.graphs.member == b
                dense = np.zeros(graph.shape)
                dense[self.graphs.source[own], self.graphs.target[own]] = self.weight[own]
                out.append((_linear(graph, dense, self.bias[b], module.mechanism.log_sigma), graph))
        return [(mechanism, [torch.as_tensor(level) for level in levels(graph)]) for mechanism, graph in out]

    def state(self) -> dict[str, object]:
        """Plain arrays for a file."""
        return {**vars(self), "graphs": self.graphs._asdict()}

    @classmethod
    def from_state(cls, state: dict) -> Averaging:
        """Restore the ensemble from the values of :meth:`state`."""
        return cls(**{**state, "graphs": GraphEnsemble(**state["graphs"])})


def _linear(graph: np.ndarray, weight: np.ndarray, bias: np.ndarray, log_sigma: torch.Tensor) -> LinearMechanism:
    mechanism = LinearMechanism(len(graph))
    mechanism.set_graph(torch.as_tensor(graph))
    mechanism.skip.data.copy_(mechanism._gather(torch.as_tensor(weight)))
    mechanism.bias.data.copy_(torch.as_tensor(bias))
    mechanism.log_sigma.data.copy_(log_sigma)
    return mechanism.requires_grad_(False)


@torch.no_grad()
def average(
    mechanism: Mechanism,
    regression: GraphRegression,
    constraints: EdgeConstraints,
    block: tuple[np.ndarray, np.ndarray] | None,
    *,
    n: int | None = None,
    seed: int = 0,
) -> Averaging:
    """Search graphs on ``n`` draws of the data, by default twelve and down to three on large screens, and fit mechanisms on each graph.

    A gene keeps its trained mechanism if it has the same parents as in the graph of the data. The other mechanisms are fitted by least
    squares on the data, as in the score of the search.
    """
    graph, statistics = mechanism.graph.numpy(), regression.data.search
    if n is None:
        n = int(np.clip(MEMBERS * LARGE / (len(graph) * len(statistics.n)), LEAST_MEMBERS, MEMBERS))
    options = regression.search_options | constraints.asdict()
    graphs = []
    for number, drawn in enumerate(draws(statistics, block, n, seed)):
        *_, last = search_dag(drawn, seed=number, start=graph, max_rounds=ROUNDS, patience=PATIENCE, **options)
        supported = drop_unsupported_edges(last.graph, drawn, **options)
        graphs.append(turn_edges(supported, drawn, seed=number, **options))
    ensemble = GraphEnsemble.of(graphs)
    if not mechanism.affine:
        return Averaging(ensemble, np.zeros(0), np.zeros((0, len(graph))))
    weights, biases = [], []
    for member in graphs:
        fit, same = regression.fit(member), (member == graph).all(0)
        weights.append(np.where(same, mechanism.coefficients.numpy(), fit.weight)[np.nonzero(member)])
        biases.append(np.where(same, mechanism.bias.numpy(), fit.intercept))
    return Averaging(ensemble, np.concatenate(weights), np.array(biases))
