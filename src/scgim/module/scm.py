"""The causal model at work: read the noise off cells, and let changed mechanisms act downstream."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn


def abduct(mechanism: nn.Module, x: Tensor) -> Tensor:
    """Noise of observed cells, ``x - f(x)``: what remains a cell's own in its counterfactual; ``(cells, genes)``."""
    return x - mechanism(x)


def propagate(
    mechanism: nn.Module,
    levels: Sequence[Tensor],
    noise: Tensor,
    *,
    shift: Tensor | float = 0.0,
    fixed: dict[int, float] | None = None,
) -> Tensor:
    r"""Run the structural equations :math:`x_j = f_j(x_{pa(j)}) + \psi_j + \epsilon_j`, one level of the DAG a step.

    Parameters
    ----------
    mechanism
        See :mod:`scgim.module.mechanisms`.
    levels
        Genes by depth; a level has all its parents in earlier ones.
    noise
        :math:`\epsilon`, ``(cells, genes)``: drawn afresh for new cells, abducted for counterfactual ones.
    shift
        :math:`\psi`, broadcast to ``(cells, genes)``.
    fixed
        Genes set to a value, cut from their parents.
    """
    x = noise + shift
    for level in levels:
        x[:, level] = x[:, level] + mechanism(x, level)
        for gene, value in (fixed or {}).items():
            if bool((level == gene).any()):
                x[:, gene] = value
    return x


def counterfactual(mechanism: nn.Module, levels: Sequence[Tensor], x: Tensor, **change: object) -> Tensor:
    """What cells ``x`` would have been under a change (see :func:`propagate`), each with its own noise kept."""
    return propagate(mechanism, levels, abduct(mechanism, x), **change)


def draw_noise(mechanism: nn.Module, n_cells: int, generator: torch.Generator) -> Tensor:
    """Fresh Gaussian noise of every gene, ``(n_cells, genes)``."""
    sigma = mechanism.variance.sqrt()
    return torch.randn(n_cells, len(sigma), generator=generator, dtype=sigma.dtype) * sigma
