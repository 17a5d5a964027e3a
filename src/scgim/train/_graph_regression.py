"""The least-squares fit on a graph, as in the score of the structure search."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from scgim.structure import fit_graph

if TYPE_CHECKING:
    from scgim.data._training_data import TrainingData
    from scgim.module import GIMModule
    from scgim.structure import LocalFit

    from ._options import TrainingOptions


@dataclass(frozen=True)
class GraphRegression:
    """Regressions of all genes on their parents, from the statistics of the structure search.

    Parameters
    ----------
    data
        Training data.
    columns, intervention, target_penalty, penalty
        Parameters of the score of :func:`~scgim.structure.search_dag`.
    """

    data: TrainingData
    columns: int
    intervention: str
    target_penalty: float | None
    penalty: float | None

    @classmethod
    def of(cls, module: GIMModule, data: TrainingData, options: TrainingOptions) -> GraphRegression:
        """The regression of a module's mechanisms and interventions."""
        score = options.search_target_penalty, options.search_penalty
        return cls(data, module.mechanism.columns, module.intervention.name, *score)

    @property
    def search_options(self) -> dict:
        """Parameters of the score as keyword arguments of :func:`~scgim.structure.search_dag`."""
        return {
            "columns": self.columns,
            "intervention": self.intervention,
            "target_penalty": self.target_penalty,
            "penalty": self.penalty,
        }

    def fit(self, graph: np.ndarray) -> LocalFit:
        """Weights, intercepts and errors on a graph, on the standardized scale."""
        means = self.data.means
        score = {"columns": self.columns, "intervention": self.intervention, "target_penalty": self.target_penalty}
        if means is None:
            return fit_graph(graph, self.data.search, **score)
        fit = means.fit(graph, self.data.summary.statistics, **score)
        weight = np.zeros((len(graph) * self.columns, len(graph)))
        weight[:: self.columns] = fit.weight  # the other basis functions cannot be estimated from means
        return replace(fit, weight=weight)
