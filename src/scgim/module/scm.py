"""The causal model at work: read the noise off cells, and let changed mechanisms act downstream."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn


class Action(NamedTuple):
    r"""What is done to every mechanism: :math:`x_j = g_j f_j(x_{pa(j)}) + \psi_j + s_j \epsilon_j`.

    All are numbers or broadcast to ``(cells, genes)``.
    """

    add: Tensor | float = 0.0  # psi
    keep: Tensor | float = 1.0  # g: 1 leaves a mechanism, 0 cuts it from its parents
    noise: Tensor | float = 1.0  # s


def abduct(mechanism: nn.Module, x: Tensor) -> Tensor:
    """Noise of observed cells, ``x - f(x)``: what remains a cell's own in its counterfactual; ``(cells, genes)``."""
    return x - mechanism(x)


def propagate(
    mechanism: nn.Module,
    levels: Sequence[Tensor],
    noise: Tensor,
    action: Action = Action(),
    *,
    fixed: dict[int, float] | None = None,
) -> Tensor:
    r"""Run the structural equations under an action, one level of the DAG a step.

    Parameters
    ----------
    mechanism
        See :mod:`scgim.module.mechanisms`.
    levels
        Genes by depth; a level has all its parents in earlier ones.
    noise
        :math:`\epsilon`, ``(cells, genes)``: drawn afresh for new cells, abducted for counterfactual ones.
    action
        What is done to the mechanisms.
    fixed
        Genes set to a value, cut from their parents and without noise.
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
    """What cells ``x`` would have been under an action (see :func:`propagate`), each with its own noise kept."""
    return propagate(mechanism, levels, abduct(mechanism, x), *args, **kwargs)


def draw_noise(mechanism: nn.Module, n_cells: int, generator: torch.Generator) -> Tensor:
    """Fresh Gaussian noise of every gene, ``(n_cells, genes)``."""
    sigma = mechanism.variance.sqrt()
    return torch.randn(n_cells, len(sigma), generator=generator, dtype=sigma.dtype) * sigma
