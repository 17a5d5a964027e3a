"""The first phase of training: a graph, by search or by descent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from scgim.structure import drop_unsupported_edges, orient_equivalent_edges, refine_dag, search_dag
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
    """Finds the graph of a module's mechanisms, and initializes the mechanisms by least squares.

    Parameters
    ----------
    module, data
        The trained module and the training data.
    structure
        ``"search"``, ``"gradient"``, or ``"none"`` (only required edges).
    constraints
        Allowed, required and likely edges.
    regression
        Regression of the score of the search.
    options, seed
        Options and seed of training.
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

    def run(self, batch: tuple, optimizers: list, start: int, memory: dict[str, Any]) -> Iterator[dict[str, float]]:
        """Yield after every round of the search or descent. ``memory["progress"]`` is the progress of the search."""
        mechanism = self.module.mechanism
        graph = mechanism.graph.cpu().numpy()
        if self.constraints["required"] is not None:
            graph = graph | self.constraints["required"]
        for state in self._rounds(graph, batch[0], memory.get("progress")):
            memory["progress"] = state.progress
            graph = state.graph
            mechanism.set_graph(torch.as_tensor(graph))
            # The step changes nothing without gradients. It advances the global step, which Lightning's checkpoints require.
            optimizers[0].step()
            yield {"structure_score": state.score}
        score = {"statistics": self.data.search, **self.regression.search_options, **self.constraints}
        graph = drop_unsupported_edges(graph, **score)
        # The score of means already distinguishes between hubs by a few nats, and the prior of this step would override it.
        if self.data.means is None:
            graph = orient_equivalent_edges(graph, **score)
        if self.data.store is not None and self.data.means is None and self.structure != "none":
            graph = self._refined(graph)
        mechanism.warm_start(torch.as_tensor(graph), self.regression.fit(graph))

    def _rounds(
        self, start: np.ndarray, conditions: MeasuredConditions, progress: dict[str, Any] | None
    ) -> Iterator[SearchState]:
        """Graphs of increasing score, after ``progress`` if training is resumed."""
        options, score = self.options, self.regression.search_options
        patience = options.patience(self.structure, self.module.mechanism.affine)
        climb = {"max_rounds": options.search_rounds, "patience": patience, "seed": self.seed}
        climb |= {"start": start, "resume": progress}
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
        """The graph after a second search, with a score that allows interactions between the parents of a gene."""
        store = self.data.store
        score = {name: v for name, v in self.regression.search_options.items() if name != "columns"}
        moved = self.regression.fit(graph).moved
        score["target_log_odds"] = self.data.search.target_log_odds
        return refine_dag(graph, store.x.numpy(), store.size.numpy(), moved, **score, **self.constraints)
