"""Interventions of drugs and of combinations of drugs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from scgim.data._design import ScreenDesign
    from scgim.module import GIMModule, TreatmentInputs


class InterventionDistribution(NamedTuple):
    """Distribution of the interventions of every row, ``(rows, genes)`` each."""

    probability: np.ndarray  # probability of a target
    psi: np.ndarray  # effect, given that the gene is a target
    error: np.ndarray  # SD of psi
    noise: np.ndarray  # factor of the noise, given that the gene is a target

    def row(self, i: int) -> InterventionDistribution:
        """Select a row, ``(genes,)`` each."""
        return InterventionDistribution(*(a[i] for a in self))


@torch.no_grad()
def intervention_distribution(
    module: GIMModule, inputs: TreatmentInputs, row: np.ndarray, n_rows: int, certain: np.ndarray | None = None
) -> InterventionDistribution:
    r"""Distribution of interventions of rows with one or several drugs.

    Drugs act independently: a gene is a target of a combination if it is a target of any of its drugs (noisy or). The psi of shifts
    add. The values of hard interventions are averaged. For drugs :math:`a` of a row,

    .. math:: p_j = 1 - \prod_a (1 - p_{aj}), \qquad p_j \psi_j = \sum_a p_{aj} \psi_{aj} \text{ (shift)}, \qquad
        \psi_j = \frac{\sum_a p_{aj} \psi_{aj}}{\sum_a p_{aj}} \text{ (hard)}

    Parameters
    ----------
    module
        The trained module.
    inputs
        Inputs of every drug of every row.
    row
        Row of every drug, ``(parts,)`` int, ascending.
    n_rows
        Number of rows.
    certain
        1 for known and 0 for excluded targets of every drug of every row, NaN for other genes, ``(parts, genes)``. They replace the
        probabilities of the generator.
    """
    one = _of_drugs(module, inputs)
    if certain is not None:
        one = one._replace(probability=np.where(np.isnan(certain), one.probability, certain))
    if len(row) == n_rows:
        return one
    p, psi, error, noise = one
    total = lambda values: np.add.reduceat(values, np.searchsorted(row, np.arange(n_rows)), axis=0)
    any_of = 1 - np.exp(total(np.log1p(-np.minimum(p, 1 - 1e-16))))
    if certain is not None:  # the logarithm above rounds a probability of 1
        any_of = np.where(total(certain == 1) > 0, 1.0, any_of)
    summed = np.maximum(total(p), 1e-300)
    by = any_of if module.intervention.keeps_parents else summed
    mixed = InterventionDistribution(
        any_of,
        total(p * psi) / np.maximum(by, 1e-300),
        np.sqrt(total((p * error) ** 2)) / np.maximum(by, 1e-300),
        np.exp(total(p * np.log(noise)) / summed),
    )
    # Rows with a single drug take their values without the operations above, so that they are bitwise independent of other rows.
    single = np.bincount(row, minlength=n_rows) == 1
    first = np.searchsorted(row, np.arange(n_rows))
    return InterventionDistribution(*(np.where(single[:, None], a[first], b) for a, b in zip(one, mixed, strict=True)))


def measured_distribution(
    module: GIMModule,
    design: ScreenDesign,
    inputs: TreatmentInputs,
    certain_of: Callable[[np.ndarray], np.ndarray | None],
) -> InterventionDistribution:
    """Distribution of the interventions of the measured conditions; ``certain_of`` gives certain targets of drugs by their names."""
    n = len(inputs.drug)
    parts, of = inputs.parts()
    order = torch.argsort(of, stable=True)
    certain = certain_of(design.drugs[parts.drug[order].numpy()])
    if certain is None:
        return intervention_distribution(module, inputs, np.arange(n), n)
    return intervention_distribution(module, parts.take(order), of[order].numpy(), n, certain)


def _of_drugs(module: GIMModule, inputs: TreatmentInputs) -> InterventionDistribution:
    """Distribution of the interventions of single drugs; no targets for drugs that the generator does not know."""
    known = module.generator.knows(inputs)
    asked = inputs.take(known)
    logits, psi = module.generator(asked)
    scale = torch.zeros_like(psi) if module.scale_map is None else module.scale_map(asked)
    found = torch.sigmoid(logits), psi, module.generator.uncertainty(asked), torch.exp(scale)
    whole = [torch.full((len(known), psi.shape[1]), value, dtype=psi.dtype) for value in (0.0, 0.0, 0.0, 1.0)]
    for each, part in zip(whole, found, strict=True):
        each[known] = part
    return InterventionDistribution(*(each.numpy() for each in whole))
