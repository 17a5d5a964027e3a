"""The options of training, each with its default."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal

from scgim._checks import check_option
from scgim.structure.gradient import RELAXATIONS

_PATIENCE = {True: 20, False: 3}  # rounds of the search without gain: on sufficient statistics, on cells
_DESCENTS = 8  # the same of descents, each a thousand times the work


@dataclass(frozen=True)
class TrainingOptions:
    """Options of the training schedule: ``plan_kwargs`` of :meth:`scgim.GIM.train`.

    An epoch is one search round or ``steps_per_epoch`` gradient steps: a step on sufficient statistics takes a millisecond, about
    as long as all that the trainer does around an epoch.

    Parameters
    ----------
    charge
        Nats that a target costs; by default learned, for every gene, from placebos of control cells.
    search_rounds, search_patience, search_target_penalty, search_penalty
        See :func:`~scgim.structure.search_dag`. Patience is 20 rounds by default, and 3 for networks, whose score ignores
        interactions of parents: there a better score is not always a better graph. Rounds, patience (8) and penalty are also
        those of the descent, charge and penalty those of :func:`~scgim.structure.refine_dag`, which follows for networks.
    orientation, gradient_steps, gradient_lr, gradient_graphs
        Of ``structure="gradient"``, see :func:`~scgim.structure.gradient.descend_dag`.
    mechanism_steps, mechanism_lr, forced_steps
        Gradient steps of the joint phase and their size, which falls to 0 over the second half; the first ``forced_steps``
        know the targets that the data clearly show.
    cells_per_step
        With mechanisms that need cells: how many of each condition enter a step.
    weight_decay
        L2 weight on coefficients in nats, a tenth of it in the second half.
    generator_steps, generator_lr, forced_share, prune_at
        Gradient steps of the last phase, the share of them that is teacher-forced, and where effects are pruned.
    generator_target_penalty
        Least nats that a target costs a condition in the last phase, where drugs are pooled by their features: the map pays for an effect
        once, by its penalty, and conditions that are too weak to pay ``charge`` each can still learn what they have in common. It is
        raised, up to ``charge``, to a twenty-fifth of what clear targets gain.
    steps_per_epoch
        Gradient steps between two entries of the history.
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
    forced_steps: int = 100
    cells_per_step: int = 10
    weight_decay: float = 1e-3
    generator_steps: int = 600
    generator_lr: float = 0.1
    forced_share: float = 0.3
    prune_at: float = 0.6
    generator_target_penalty: float = 0.5
    steps_per_epoch: int = 10

    @classmethod
    def within(cls, max_epochs: int | None, given: dict) -> TrainingOptions:
        """The options ``given``, with every phase shortened in proportion, so that all of them fit into ``max_epochs``.

        Raises
        ------
        ValueError
            If an option does not exist, or the epochs do not suffice for three phases.
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
        # the first climb, one epoch for each of the other phases and the one that ends training are always needed
        share, per = (max_epochs - 4) / wanted, options.steps_per_epoch
        return replace(
            options,
            search_rounds=int(share * options.search_rounds),
            mechanism_steps=per * (1 + int(share * options.mechanism_steps / per)),
            generator_steps=per * (1 + int(share * options.generator_steps / per)),
        )

    @property
    def max_epochs(self) -> int:
        """Upper bound on epochs: the search ends by stagnation."""
        return self.search_rounds + 2 + -(-(self.mechanism_steps + self.generator_steps) // self.steps_per_epoch)

    @property
    def teacher_forced_steps(self) -> int:
        """Steps of the joint phase that know clear targets: at most a third of all."""
        return min(self.forced_steps, self.mechanism_steps // 3)

    @property
    def share_of_generator_steps(self) -> float:
        """Gradient steps of the last phase over their default, at most 1."""
        return min(1.0, self.generator_steps / type(self).generator_steps)

    def patience(self, structure: str, affine: bool) -> int:
        """Rounds of the search, or of the descent, without gain that end it."""
        if self.search_patience is not None:
            return self.search_patience
        return _DESCENTS if structure == "gradient" else _PATIENCE[affine]
