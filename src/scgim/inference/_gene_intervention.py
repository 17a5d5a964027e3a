"""Interventions on genes, averaged over the possibility that the graph is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from scgim.module import DOUBT, Action, counterfactual

from ._counterfactuals import Blend, Intervention

if TYPE_CHECKING:
    from scgim.data._training_summary import TrainingSummary
    from scgim.module.mechanisms import Mechanism

MAX_CELLS = 1_000  # most cells for a mean total effect; each cell costs as much as a prediction


@dataclass(frozen=True)
class GeneIntervention:
    """Genes that are shifted or set by :meth:`scgim.GIM.do`; :meth:`on` is the intervention in a line.

    Parameters
    ----------
    summary
        Summary of the training data.
    values
        Gene, by index, to value in pooled control SD.
    kind
        ``"shift"`` or ``"set"``.
    label
        Name of the intervention.
    followers
        Genes that change if the graph is wrong, ``(genes,)`` bool; ``None`` if the graph is certain.
    """

    summary: TrainingSummary
    values: dict[int, float]
    kind: Literal["shift", "set"]
    label: str
    followers: np.ndarray | None

    def on(self, line: str) -> Intervention:
        """The intervention in a line."""
        # The values are in pooled control SD, and the standardized scale is in control SD of the line.
        unit = self.summary.relative_scale(self.summary.design.line_index(line))
        values = {gene: value / unit[gene] for gene, value in self.values.items()}
        shift, fixed = np.zeros(len(unit)), values
        if self.kind == "shift":
            shift[list(values)], fixed = list(values.values()), None
        chosen = Intervention((self.label,), Action(torch.as_tensor(shift)), fixed)
        if self.followers is not None:
            doubt = DOUBT * self.followers
            change = regressed_change(self.summary.statistics.scatter, values)
            chosen.blend = Blend(doubt * change * unit * self.summary.scale, 1 - doubt)
        return chosen


def regressed_change(scatter: np.ndarray, values: dict[int, float]) -> np.ndarray:
    r"""Change of all genes by the regression on the genes in ``values`` within conditions, ``(genes,)``.

    .. math:: v_S \, W_{SS}^{-1} W_{S\cdot}

    :math:`W` is the scatter within conditions, and :math:`v_S` are the values of the genes :math:`S`. This is the total effect in every
    graph with all edges in which the genes :math:`S` come first.
    """
    genes = list(values)
    inverse = np.linalg.pinv(scatter[np.ix_(genes, genes)], hermitian=True)
    return np.array(list(values.values())) @ inverse @ scatter[genes]


@torch.no_grad()
def total_effects(mechanism: Mechanism, levels: list[torch.Tensor], z: torch.Tensor) -> np.ndarray:
    """Mean change of every gene (column) under a shift of a gene (row) by 1, over cells ``z``; ``(genes, genes)``."""
    unit = torch.eye(z.shape[1], dtype=z.dtype)
    if mechanism.affine:
        zero = torch.zeros_like(unit)
        return (counterfactual(mechanism, levels, zero, Action(unit)) - zero).numpy()
    z = z[:: -(-len(z) // MAX_CELLS)]
    return np.array([(counterfactual(mechanism, levels, z, Action(e)) - z).mean(0).numpy() for e in unit])
