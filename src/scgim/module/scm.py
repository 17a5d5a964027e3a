"""Structural equations: abduction of the noise of cells, and propagation of interventions to downstream genes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn


class Action(NamedTuple):
    r"""An intervention on every mechanism: :math:`x_j = g_j f_j(x_{pa(j)}) + \psi_j + s_j \epsilon_j`.

    All fields are numbers or broadcast to ``(cells, genes)``.
    """

    add: Tensor | float = 0.0  # psi
    keep: Tensor | float = 1.0  # g: 1 keeps the mechanism, 0 removes the edges from the parents
    noise: Tensor | float = 1.0  # s


def abduct(mechanism: nn.Module, x: Tensor) -> Tensor:
    """Noise of observed cells, ``x - f(x)``, which is kept in their counterfactuals; ``(cells, genes)``."""
    return x - mechanism(x)


def propagate(
    mechanism: nn.Module,
    levels: Sequence[Tensor],
    noise: Tensor,
    action: Action = Action(),
    *,
    fixed: dict[int, float] | None = None,
) -> Tensor:
    r"""Evaluate the structural equations under an action, by topological generations of the DAG.

    Parameters
    ----------
    mechanism
        A mechanism of :mod:`scgim.module.mechanisms`.
    levels
        Topological generations: the parents of a gene are in earlier generations.
    noise
        :math:`\epsilon`, ``(cells, genes)``: newly drawn for new cells, abducted for counterfactual cells.
    action
        The intervention on the mechanisms.
    fixed
        Genes that are set to a value, without noise and without influence of their parents.
    """
    x = noise * action.noise + action.add
    keep = action.keep.expand_as(x) if isinstance(action.keep, Tensor) else None
    for level in levels:
        f = mechanism(x, level)
        x[:, level] = x[:, level] + (f if keep is None else keep[:, level] * f)
        for gene, value in (fixed or {}).items():
            if bool((level == gene).any()):
                x[:, gene] = value
    return x


def counterfactual(
    mechanism: nn.Module, levels: Sequence[Tensor], x: Tensor, *args: object, **kwargs: object
) -> Tensor:
    """Counterfactual cells: observed cells ``x`` under an action of :func:`propagate`, with the noise of every cell kept."""
    return propagate(mechanism, levels, abduct(mechanism, x), *args, **kwargs)


def draw_noise(mechanism: nn.Module, n_cells: int, generator: torch.Generator) -> Tensor:
    """Draw Gaussian noise of every gene, ``(n_cells, genes)``."""
    sigma = mechanism.variance.sqrt()
    return torch.randn(n_cells, len(sigma), generator=generator, dtype=sigma.dtype) * sigma
