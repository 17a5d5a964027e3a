"""The first phase of training: a graph, by search or by descent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from scgim.structure import orient_equivalent_edges, refine_dag, search_dag
from scgim.structure.gradient import descend_dag

from ._joint_likelihood import JointLikelihood

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from scgim.data._training_data import TrainingData
    from scgim.module import GIMModule, MeasuredConditions
    from scgim.structure import SearchState

    from ._edge_constraints import EdgeConstraints
    from ._graph_regression import GraphRegression
    from ._options import TrainingOptions


class StructurePhase:
    """Finds the graph of a module's mechanisms, and warm-starts them by least squares.

    Parameters
    ----------
    module, data
        What is trained, and on what.
    structure
        ``"search"``, ``"gradient"``, or ``"none"`` (no edges but required ones).
    constraints
        Edges that may exist and that must.
    regression
        Behind the search's score.
    options, seed
        Of training.
    """

    name = "structure"

    def __init__(
        self,
        module: GIMModule,
        data: TrainingData,
        *,
        structure: str,
        constraints: EdgeConstraints,
        regression: GraphRegression,
        options: TrainingOptions,
        seed: int,
    ) -> None:
        self.module, self.data, self.structure, self.seed = module, data, structure, seed
        self.constraints, self.regression, self.options = constraints.asdict(), regression, options

    def run(self, batch: tuple, optimizers: list, start: int = 0) -> Iterator[dict[str, float]]:
        """One round of the search or descent a step."""
        mechanism = self.module.mechanism
        graph = mechanism.graph.cpu().numpy()
        if self.constraints["required"] is not None:
            graph = graph | self.constraints["required"]
        for state in self._rounds(graph, batch[0]):
            graph = state.graph
            mechanism.set_graph(torch.as_tensor(graph))
            # without gradients a no-op, but it advances the global step, without which nothing is checkpointed
            optimizers[0].step()
            yield {"structure_score": state.score}
        if self.data.means is None:  # among hubs that a few nats tell apart, that prior would choose worse than they
            graph = orient_equivalent_edges(
                graph, self.data.search, **self.regression.search_options, **self.constraints
            )
        if self.data.store is not None and self.data.means is None and self.structure != "none":
            graph = self._refined(graph)
        mechanism.warm_start(torch.as_tensor(graph), self.regression.fit(graph))

    def _rounds(self, start: np.ndarray, conditions: MeasuredConditions) -> Iterator[SearchState]:
        """Better and better graphs."""
        options, score = self.options, self.regression.search_options
        patience = options.patience(self.structure, self.module.mechanism.affine)
        climb = {"max_rounds": options.search_rounds, "patience": patience, "seed": self.seed, "start": start}
        if self.structure == "search":
            return search_dag(self.data.search, **score, **climb, **self.constraints)
        if self.structure == "none":
            return iter(())
        names = [name for name, _ in self.module.named_parameters() if "mechanism." not in name]
        rates = dict.fromkeys(names, options.generator_lr) | {"mechanism.log_sigma": options.gradient_lr}
        return descend_dag(
            self.data.search,
            JointLikelihood(self.module, conditions, self.data.search, rates),
            columns=score["columns"],
            penalty=score["penalty"],
            orientation=options.orientation,
            steps=options.gradient_steps,
            lr=options.gradient_lr,
            graphs=options.gradient_graphs,
            **climb,
            **self.constraints,
        )

    def _refined(self, graph: np.ndarray) -> np.ndarray:
        """The graph after a second climb, by a score in which the parents of a gene may interact."""
        store = self.data.store
        score = {name: v for name, v in self.regression.search_options.items() if name != "columns"}
        moved = self.regression.fit(graph).moved
        return refine_dag(graph, store.x.numpy(), store.size.numpy(), moved, **score, **self.constraints)
