"""The truth about conditions that are not in the data, computed from the structural model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ._graphs import descendants
from ._model import exact_noise

if TYPE_CHECKING:
    from ._chemistry import Drugs
    from ._model import Intervention, StructuralModel
    from ._observe import Continuous, Counts

_CELLS = 2000


class Oracle:
    """The true system, evaluated on the same cells in every condition.

    Genes that an intervention does not reach are unchanged, and are not computed again.

    Attributes
    ----------
    state, control
        The cells without drug, (n_genes, n_cells): in control SD, and on the training scale.
    """

    def __init__(
        self,
        model: StructuralModel,
        observation: Continuous | Counts,
        *,
        intervention: Intervention,
        rng: np.random.Generator,
    ):
        n_genes = len(model.graph)
        n_cells = max(_CELLS, 4 * n_genes)
        self.model, self.observation, self.intervention, self.rng = model, observation, intervention, rng
        self.noise, self.nuisance = exact_noise(n_genes, n_cells, rng), observation.nuisance(n_cells, rng)
        self.state = model.sample(self.noise, np.zeros((n_genes, 1)), intervention=intervention)
        self.measured = observation.measure(self.state, self.nuisance, rng)
        self.control = observation.training_scale(self.measured, self.nuisance)
        self._reach = descendants(model.graph) | np.eye(n_genes, dtype=bool)

    def means(self, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Means under one vector of shifts, (n_genes,): in control SD, and on the training scale."""
        reached = self._reach[shift != 0].any(axis=0)
        x, measured = self.state.copy(), self.measured.copy()
        genes = [j for j in self.model.order if reached[j]]
        self.model.resample(x, genes, self.noise, shift[:, None], intervention=self.intervention)
        nuisance = self.nuisance and self.nuisance._replace(gamma=self.nuisance.gamma[reached])
        measured[reached] = self.observation.take(reached).measure(x[reached], nuisance, self.rng)
        return x.mean(axis=1), self.observation.training_scale(measured, self.nuisance).mean(axis=1)

    def conditions(self, drugs: Drugs, doses: np.ndarray) -> dict[str, np.ndarray]:
        """Every drug at every dose, as arrays for ``.uns["truth"]``."""
        shift = drugs.shift(doses)
        means = np.array([self.means(row) for row in shift]).reshape(len(shift), 2, shift.shape[1])
        rows = np.repeat(np.arange(len(drugs.names)), len(doses))
        table = {
            "drug": drugs.names[rows],
            "dose": np.tile(doses, len(drugs.names)),
            "features": drugs.features[rows].astype(np.int8),
            "targets": (drugs.effect[rows] != 0).astype(np.int8),
            "shift": shift,
            "change": means[:, 0] - self.state.mean(axis=1),
            "mean": means[:, 1],
        }
        return table if drugs.smiles is None else table | {"smiles": drugs.smiles[rows]}
