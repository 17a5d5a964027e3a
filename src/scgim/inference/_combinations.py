"""Interventions of rows, and of combinations of drugs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

if TYPE_CHECKING:
    from scgim.module import GIMModule, TreatmentInputs


class InterventionDistribution(NamedTuple):
    """What is said of every row's every gene, ``(rows, genes)`` each."""

    probability: np.ndarray  # that its mechanism is touched
    psi: np.ndarray  # how, given that it is
    error: np.ndarray  # standard deviation of psi
    noise: np.ndarray  # what its noise is multiplied by, given that it is touched

    def row(self, i: int) -> InterventionDistribution:
        """One row, ``(genes,)`` each."""
        return InterventionDistribution(*(a[i] for a in self))


@torch.no_grad()
def intervention_distribution(
    module: GIMModule, inputs: TreatmentInputs, row: np.ndarray, n_rows: int
) -> InterventionDistribution:
    r"""Of rows that are one drug or several.

    Drugs act independently: a mechanism is touched if any of them touches it (noisy or), and their psi add if they shift;
    the values that hard interventions set are averaged:

    .. math:: p_j = 1 - \prod_a (1 - p_{aj}), \qquad p_j \psi_j = \sum_a p_{aj} \psi_{aj} \text{ (shift)}, \qquad
        \psi_j = \frac{\sum_a p_{aj} \psi_{aj}}{\sum_a p_{aj}} \text{ (hard)}

    Parameters
    ----------
    conditions
        Of every drug of every row.
    row
        Which row each belongs to, ``(parts,)`` int, ascending.
    n_rows
        Rows.
    """
    logits, psi = module.generator(inputs)
    scale = torch.zeros_like(psi) if module.scale_map is None else module.scale_map(inputs)
    one = InterventionDistribution(
        *(a.numpy() for a in (torch.sigmoid(logits), psi, module.generator.uncertainty(inputs), torch.exp(scale)))
    )
    if len(row) == n_rows:
        return one
    p, psi, error, noise = one
    total = lambda values: np.add.reduceat(values, np.searchsorted(row, np.arange(n_rows)), axis=0)
    any_of = 1 - np.exp(total(np.log1p(-np.minimum(p, 1 - 1e-16))))
    summed = np.maximum(total(p), 1e-300)
    by = any_of if module.intervention.keeps_parents else summed
    mixed = InterventionDistribution(
        any_of,
        total(p * psi) / np.maximum(by, 1e-300),
        np.sqrt(total((p * error) ** 2)) / np.maximum(by, 1e-300),
        np.exp(total(p * np.log(noise)) / summed),
    )
    # a single drug keeps its bits whatever else is asked
    single = np.bincount(row, minlength=n_rows) == 1
    first = np.searchsorted(row, np.arange(n_rows))
    return InterventionDistribution(*(np.where(single[:, None], a[first], b) for a, b in zip(one, mixed, strict=True)))
