"""Combinations of drugs: targets by noisy or, and shifts that add."""

from __future__ import annotations

import torch
from torch import Tensor

TINY = 1e-37  # a number above 0 in single precision


def sum_by_row(values: Tensor, row: Tensor, n_rows: int) -> Tensor:
    """Sum of the values of every row's drugs, ``(rows, genes)``; ``row``, ``(parts,)`` int64, is the row of every drug."""
    return values.new_zeros(n_rows, *values.shape[1:]).index_add(0, row, values)


def combine(logits: Tensor, psi: Tensor, row: Tensor, n_rows: int, *, add: bool) -> tuple[Tensor, Tensor]:
    r"""Logits and psi of combinations from the logits and psi of their drugs, ``(rows, genes)`` each.

    A gene is a target of a combination if it is a target of any of its drugs :math:`a` (noisy or). Shifts add, and the values of hard
    interventions are averaged (not ``add``).

    .. math:: p_j = 1 - \prod_a (1 - p_{aj}), \qquad p_j \psi_j = \sum_a p_{aj} \psi_{aj} \text{ (shift)}, \qquad
        \psi_j = \frac{\sum_a p_{aj} \psi_{aj}}{\sum_a p_{aj}} \text{ (hard)}

    Parameters
    ----------
    logits, psi
        Of every drug of every row, ``(parts, genes)`` each.
    row
        Row of every drug, ``(parts,)`` int64.
    n_rows
        Number of rows.
    """
    # The log probability that no drug has the target stays accurate where all probabilities are small.
    none = sum_by_row(torch.nn.functional.logsigmoid(-logits), row, n_rows).clamp(max=-TINY)
    any_of, p = torch.log(-torch.expm1(none)) - none, torch.sigmoid(logits)
    by = torch.sigmoid(any_of) if add else sum_by_row(p, row, n_rows)
    return any_of, sum_by_row(p * psi, row, n_rows) / by.clamp(min=TINY)
