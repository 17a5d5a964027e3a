"""Interventions: what a touched mechanism does. A new one is a class here and an entry in :data:`INTERVENTIONS`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .scm import Action

if TYPE_CHECKING:
    from torch import Tensor

    from ._moments import Moments


class Shift:
    r"""The mechanism stays and gains a constant: :math:`x_j = f_j(x_{pa(j)}) + \psi_j + \sigma_j \epsilon`."""

    name = "shift"
    needs_own = False  # whether the likelihood needs every condition's own scatter
    keeps_parents = True
    baseline = False  # whether psi = 0 is just another value

    @staticmethod
    def observed(moments: Moments) -> tuple[Tensor, Tensor]:
        """The psi that fits a condition best, and the variance of its cells around that; ``(conditions, genes)`` each."""
        return moments.residual, moments.within

    @staticmethod
    def act(weight: Tensor, psi: Tensor, noise: Tensor) -> Action:
        """The intervention entering with a weight in [0, 1]: its probability, or whether it is there."""
        return Action(weight * psi, 1.0, 1 + weight * (noise - 1))


class Hard:
    r"""The mechanism is replaced by a constant: :math:`x_j = \psi_j + \sigma_j \epsilon`, cut from the gene's parents."""

    name = "hard"
    needs_own = True
    keeps_parents = False
    baseline = True

    @staticmethod
    def observed(moments: Moments) -> tuple[Tensor, Tensor]:
        """As in :class:`Shift`."""
        return moments.value, moments.spread

    @staticmethod
    def act(weight: Tensor, psi: Tensor, noise: Tensor) -> Action:
        """As in :class:`Shift`; mechanism and value are mixed."""
        return Action(weight * psi, 1 - weight, 1 + weight * (noise - 1))


INTERVENTIONS: dict[str, type[Shift] | type[Hard]] = {"shift": Shift, "hard": Hard}
