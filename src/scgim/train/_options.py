"""The options of training and their defaults."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal

from scgim._checks import check_option
from scgim.structure.gradient import RELAXATIONS

_PATIENCE = {True: 20, False: 3}  # rounds of the search without gain: for affine mechanisms, for networks
TEACHER_FORCED_STEPS = 100  # most steps of the joint phase with teacher forcing
_DESCENTS = 8  # rounds of the descent without gain; a round takes a thousand times as long as a round of the search


@dataclass(frozen=True)
class TrainingOptions:
    """Options of the training schedule: ``plan_kwargs`` of :meth:`scgim.GIM.train`.

    An epoch is one search round or ``steps_per_epoch`` gradient steps. A step on sufficient statistics takes a millisecond, about as long
    as the trainer's overhead per epoch.

    Parameters
    ----------
    target_penalty
        Target penalty in nats, the negative log prior odds of a target; by default estimated for every gene from placebos.
    search_rounds, search_patience, search_target_penalty, search_penalty
        Parameters of :func:`~scgim.structure.search_dag`. Patience is 20 rounds by default, and 3 for networks: their score ignores
        interactions of parents, so a better score is not always a better graph. Rounds, patience (8) and penalty also apply to the
        descent. The penalties also apply to :func:`~scgim.structure.refine_dag`, which follows for networks.
    orientation, gradient_steps, gradient_lr, gradient_graphs
        Parameters of ``structure="gradient"`` in :func:`~scgim.structure.gradient.descend_dag`.
    mechanism_steps, mechanism_lr
        Gradient steps of the joint phase and their size, which falls to 0 over the second half.
    cells_per_step
        Cells of each condition in a step, for mechanisms that need cells.
    generator_steps, generator_lr
        Gradient steps of the last phase and their size, which falls in the same way.
    generator_target_penalty
        Lower bound (nats) on the target penalty of the last phase for generators that pool drugs by their features. The penalty is a
        twenty-fifth of the median gain of clear targets, at most ``target_penalty``. The feature map is already regularized, so the
        full penalty in every condition would stop weak conditions from contributing to it.
    steps_per_epoch
        Gradient steps between two entries of the history.

    Examples
    --------
    >>> from scgim.train import TrainingOptions
    >>> TrainingOptions(search_rounds=10).max_epochs
    102
    """

    target_penalty: float | None = None
    search_rounds: int = 100
    search_patience: int | None = None
    search_target_penalty: float | None = None
    search_penalty: float | None = None
    orientation: Literal["smooth", "gumbel"] = "smooth"
    gradient_steps: int = 150
    gradient_lr: float = 0.03
    gradient_graphs: int | None = None
    mechanism_steps: int = 300
    mechanism_lr: float = 1e-2
    cells_per_step: int = 10
    generator_steps: int = 600
    generator_lr: float = 0.1
    generator_target_penalty: float = 0.5
    steps_per_epoch: int = 10

    @classmethod
    def within(cls, max_epochs: int | None, given: dict) -> TrainingOptions:
        """The options ``given``, with every phase shortened in proportion, so that all phases fit into ``max_epochs``.

        Raises
        ------
        ValueError
            If an option does not exist, or if there are too few epochs for three phases.
        """
        for name in given:
            check_option("plan_kwargs", name, [field.name for field in fields(cls)])
        options = cls(**given)
        check_option("orientation", options.orientation, RELAXATIONS)
        wanted = options.max_epochs
        if max_epochs is None or max_epochs >= wanted:
            return options
        if max_epochs < 4:
            raise ValueError(
                f"max_epochs={max_epochs} is too few for three phases; the schedule asks for up to {wanted}."
            )
        # Four epochs are always necessary: the first search round, one epoch of each other phase, and the epoch that ends training.
        share, per = (max_epochs - 4) / wanted, options.steps_per_epoch
        return replace(
            options,
            search_rounds=int(share * options.search_rounds),
            mechanism_steps=per * (1 + int(share * options.mechanism_steps / per)),
            generator_steps=per * (1 + int(share * options.generator_steps / per)),
        )

    @property
    def max_epochs(self) -> int:
        """Upper bound on the number of epochs, because the search may end early."""
        return self.search_rounds + 2 + -(-(self.mechanism_steps + self.generator_steps) // self.steps_per_epoch)

    @property
    def teacher_forced_steps(self) -> int:
        """Steps of the joint phase that know clear targets: at most a third of all."""
        return min(TEACHER_FORCED_STEPS, self.mechanism_steps // 3)

    @property
    def share_of_generator_steps(self) -> float:
        """Gradient steps of the last phase relative to their default, at most 1."""
        return min(1.0, self.generator_steps / type(self).generator_steps)

    def patience(self, structure: str, affine: bool) -> int:
        """Number of rounds without gain that end the search or the descent."""
        if self.search_patience is not None:
            return self.search_patience
        return _DESCENTS if structure == "gradient" else _PATIENCE[affine]
