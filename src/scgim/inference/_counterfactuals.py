"""Predicted cells: interventions from the generator, run through the causal model from control cells."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Literal, NamedTuple
from zlib import crc32

import numpy as np
import torch

from scgim.module import Action, abduct, counterfactual, draw_noise, propagate

from ._prediction_adata import Block

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from scgim.module import Hard, Shift

    from ._combinations import InterventionDistribution
    from ._control_cells import ControlCells

As = Literal["cells", "samples", "mean", "delta"]
Targets = Literal["expectation", "map", "sample"]
_SOME_CELLS = 200  # that a mean change is taken over where mechanisms are not linear


class CounterfactualSampler:
    """Runs interventions through a fitted causal model.

    Parameters
    ----------
    mechanisms
        Mechanisms and the genes by depth of their DAG: predictions are means over them, and draws come from the first.
    seed
        Of everything drawn.
    """

    def __init__(self, mechanisms: Sequence[tuple[nn.Module, Sequence[Tensor]]], seed: int) -> None:
        self.mechanism, self.levels, self.seed = *mechanisms[0], seed
        self.mechanisms = mechanisms

    def _counterfactual(self, z: Tensor, change: dict) -> Tensor:
        """What cells would have been: the noise of each by the graph found, their mean change the mean over graphs."""
        return counterfactual(self.mechanism, self.levels, z, **change) + self._between_graphs(z.shape[1], change)

    def _between_graphs(self, n_genes: int, change: dict) -> Tensor | float:
        """By how much the change of the mean cell is another one on average over graphs."""
        if len(self.mechanisms) == 1:
            return 0.0
        action = change["action"]
        n = max((len(part) for part in action if isinstance(part, torch.Tensor) and part.ndim == 2), default=1)
        zero = torch.zeros(n, n_genes, dtype=torch.float64)
        found, *others = (counterfactual(*each, zero, **change) for each in self.mechanisms)
        return sum(others, found) / len(self.mechanisms) - found

    def rows(self, controls: ControlCells, as_: As, n_cells: int | None, change: Intervention) -> Block:
        """Predicted values of one change from one line's control cells."""
        x, control, names = self._rows(controls, as_, n_cells, change)
        # cells keep their noise, and their mean goes to where the data have it
        x = x + self._by_data(controls, change)
        if not change.parts:
            return Block(x, control, names, None)
        each = "cells" if as_ == "cells" else "delta"
        alone = [self._rows(controls, each, n_cells, part) for part in change.parts]
        data = sum(self._by_data(controls, part) for part in change.parts)
        total = sum(part - origin if each == "cells" else part for part, origin, _ in alone) + data
        return Block(x + data, control, names, total if as_ == "delta" else control + total)

    def _by_data(self, controls: ControlCells, change: Intervention) -> np.ndarray | float:
        """What measured conditions add to the mean that the action gives, on the training scale."""
        if change.measured is None:
            return 0.0
        if change.measured.weight == 1:
            return change.measured.own
        said, *_ = self._rows(controls, "delta", None, change.expected())
        return change.measured.own - (1 - change.measured.weight) * said

    @torch.no_grad()
    def _rows(
        self, controls: ControlCells, as_: As, n_cells: int | None, change: Intervention
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Predicted values and controls ``(rows, genes)`` on the training scale, and names of source cells."""
        rng = condition_rng(self.seed, controls.line, *change.label)
        if as_ == "samples":
            n = n_cells or controls.x.shape[0]
            generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
            noise = self._noise_mean(controls) + draw_noise(self.mechanism, n, generator)
            z = propagate(self.mechanism, self.levels, noise, **change.at(n, rng))
            if not change.sampled:  # the mean over graphs, the scatter of the one found
                z = z + self._between_graphs(z.shape[1], change.at(1, rng))
            x = controls.mean + z.numpy() * controls.scale
            return x, np.broadcast_to(controls.mean, x.shape), np.full(n, "")
        if as_ in ("mean", "delta") and change.delta is not None:
            delta = change.delta[None] * controls.scale
        elif as_ == "cells" or not self.mechanism.affine:
            rows = self._pick(controls, n_cells if as_ == "cells" else None)
            x, z = self._cells(controls, rows)
            n_draws = len(z) if as_ == "cells" else 1  # every row of the answer draws its targets
            constant = change.delta is not None and change.same_for_all
            moved = z + torch.as_tensor(change.delta) if constant else self._counterfactual(z, change.at(n_draws, rng))
            x_moved = x + (moved - z).numpy() * controls.scale
            if as_ == "cells":
                return x_moved, x, controls.names[rows]
            delta = (x_moved - x).mean(0, keepdims=True)
        else:
            zero = torch.zeros(1, len(controls.scale), dtype=torch.float64)
            moved = self._counterfactual(zero, change.at(1, rng))
            delta = (moved - zero).numpy() * controls.scale
        control = controls.mean[None]
        return (delta if as_ == "delta" else control + delta), control, np.array([""])

    def _pick(self, controls: ControlCells, n_cells: int | None) -> np.ndarray:
        """Row numbers of the source cells in use; the same for every drug, so that drugs differ by nothing else."""
        n = controls.x.shape[0]
        if n_cells is None or n_cells >= n:
            return np.arange(n)
        return np.sort(condition_rng(self.seed, controls.line).choice(n, n_cells, replace=False))

    def _cells(self, controls: ControlCells, rows: np.ndarray) -> tuple[np.ndarray, Tensor]:
        """Source cells on the training scale and standardised, ``(rows, genes)`` each."""
        x = controls.x[rows].toarray().astype(np.float64)
        centre = controls.centre[rows] if controls.centre.ndim == 2 else controls.centre
        return x, torch.as_tensor((x - centre) / controls.scale)

    def _noise_mean(self, controls: ControlCells) -> Tensor:
        """Mean noise of the control cells, so that fresh draws without a drug have the mean of the controls."""
        z = torch.zeros(1, len(controls.scale), dtype=torch.float64)
        if not self.mechanism.affine:
            _, z = self._cells(controls, np.arange(controls.x.shape[0]))
        return abduct(self.mechanism, z).mean(0)


@torch.no_grad()
def mean_changes(
    mechanisms: Sequence[tuple[nn.Module, Sequence[Tensor]]],
    intervention: type[Shift] | type[Hard],
    said: InterventionDistribution,
    z: Tensor,
    *,
    targets: Targets = "expectation",
) -> np.ndarray:
    """Mean change of control cells ``z`` under every row of interventions, mean over graphs; ``(rows, genes)`` standardised.

    Linear mechanisms take all rows at once: a shift by the matrix of total effects, which is one for all of them.
    """
    weight = (said.probability > 0.5).astype(float) if targets == "map" else said.probability
    if mechanisms[0][0].affine and intervention.keeps_parents and (said.noise == 1).all():
        total = sum(
            torch.linalg.inv(torch.eye(z.shape[1], dtype=z.dtype) - each.coefficients) for each, _ in mechanisms
        )
        return (torch.as_tensor(weight * said.psi) @ (total / len(mechanisms))).numpy()
    act = intervention.act(*map(torch.as_tensor, (weight, said.psi, said.noise)))
    if mechanisms[0][0].affine:  # the mean cell moves as the cells do on average
        zero = torch.zeros(len(said.psi), z.shape[1], dtype=z.dtype)
        return (sum(counterfactual(*each, zero, act) - zero for each in mechanisms) / len(mechanisms)).numpy()
    z = z[:: -(-len(z) // _SOME_CELLS)]
    rows = (
        Action(act.add[i], act.keep[i] if isinstance(act.keep, torch.Tensor) else act.keep, act.noise[i])
        for i in range(len(weight))
    )
    return np.array([(counterfactual(*mechanisms[0], z, row) - z).mean(0).numpy() for row in rows])


def condition_rng(seed: int, *label: object) -> np.random.Generator:
    """A random stream for everything that is drawn for one condition, whatever else is asked in the same call."""
    return np.random.default_rng([seed, crc32("\n".join(map(str, label)).encode())])


class Measured(NamedTuple):
    """What measured conditions say of a mean change on the training scale: ``own`` ``(genes,)``, beside ``weight`` times what the action does."""

    own: np.ndarray
    weight: float


class Intervention:
    """One intervention on the standardised scale: an action on every gene, or genes set to a value.

    ``label`` tells it from the others: its random draws depend on that. ``parts`` are what a combination is made of, and ``measured``
    what is known of its mean besides.
    """

    parts: tuple[Intervention, ...] = ()
    measured: Measured | None = None
    delta: np.ndarray | None = None  # mean change of control cells in SD of their line, where it is known beforehand
    same_for_all = False  # whether every cell changes by that
    sampled = False

    def __init__(self, label: tuple, action: Action, fixed: dict[int, float] | None = None) -> None:
        self.label, self.action, self.fixed = label, action, fixed

    def expected(self) -> Intervention:
        """The same with targets that are not sampled."""
        return self

    def at(self, n_rows: int, rng: np.random.Generator) -> dict:
        """Arguments of :func:`~scgim.module.propagate` for so many cells."""
        return {"action": self.action, "fixed": self.fixed}


class DrugIntervention(Intervention):
    """An intervention drawn by the generator, one row of a :class:`InterventionDistribution`."""

    def __init__(
        self,
        label: tuple,
        said: InterventionDistribution,
        targets: Targets,
        intervention: type[Shift] | type[Hard],
        parts: tuple[Intervention, ...] = (),
        measured: Measured | None = None,
        delta: np.ndarray | None = None,
    ) -> None:
        self.said, self.intervention, self.parts, self.measured = said, intervention, parts, measured
        self.delta = None if targets == "sample" else delta
        self.same_for_all = intervention.keeps_parents and bool((said.noise == 1).all())
        weight = (said.probability > 0.5).astype(float) if targets == "map" else said.probability
        super().__init__(label, self._act(weight))
        self.sampled = targets == "sample"

    def expected(self) -> DrugIntervention:
        """The same with targets that are not sampled."""
        out = copy(self)
        out.sampled = False
        return out

    def at(self, n_rows: int, rng: np.random.Generator) -> dict:
        """Every cell draws its own targets if targets are sampled."""
        if not self.sampled:
            return super().at(n_rows, rng)
        p = self.said.probability
        return {"action": self._act((rng.random((n_rows, len(p))) < p).astype(float)), "fixed": None}

    def _act(self, weight: np.ndarray) -> Action:
        return self.intervention.act(*map(torch.as_tensor, (weight, self.said.psi, self.said.noise)))
