"""Interventions on a mechanism. A new intervention is a class in this file and an entry in :data:`INTERVENTIONS`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .scm import Action

if TYPE_CHECKING:
    from torch import Tensor

    from ._moments import Moments


class Shift:
    r"""The mechanism is kept and a constant is added: :math:`x_j = f_j(x_{pa(j)}) + \psi_j + \sigma_j \epsilon`."""

    name = "shift"
    needs_own = False  # whether the likelihood needs every condition's own scatter
    keeps_parents = True
    baseline = False  # whether psi = 0 is a value like any other, and not the absence of an intervention

    @staticmethod
    def observed(moments: Moments) -> tuple[Tensor, Tensor]:
        """The maximum-likelihood psi of a condition, and the variance of its cells around psi; ``(conditions, genes)`` each."""
        return moments.residual, moments.within

    @staticmethod
    def act(weight: Tensor, psi: Tensor, noise: Tensor) -> Action:
        """The action of the intervention with a weight in [0, 1]: its probability, or 0 or 1."""
        return Action(weight * psi, 1.0, 1 + weight * (noise - 1))


class Hard:
    r"""The mechanism is replaced by a constant that does not depend on the parents: :math:`x_j = \psi_j + \sigma_j \epsilon`."""

    name = "hard"
    needs_own = True
    keeps_parents = False
    baseline = True

    @staticmethod
    def observed(moments: Moments) -> tuple[Tensor, Tensor]:
        """The maximum-likelihood psi of a condition, and the variance of its cells around psi; ``(conditions, genes)`` each."""
        return moments.value, moments.spread

    @staticmethod
    def act(weight: Tensor, psi: Tensor, noise: Tensor) -> Action:
        """The action with a weight in [0, 1], as a mixture of the mechanism and the constant."""
        return Action(weight * psi, 1 - weight, 1 + weight * (noise - 1))


INTERVENTIONS: dict[str, type[Shift] | type[Hard]] = {"shift": Shift, "hard": Hard}
