"""Predicted cells: counterfactuals of control cells under the interventions of the generator."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Literal, NamedTuple
from zlib import crc32

import numpy as np
import torch

from scgim.module import Action, abduct, counterfactual, draw_noise, propagate

from ._prediction_adata import Block, Blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor, nn

    from scgim.module import Hard, Shift

    from ._combinations import InterventionDistribution
    from ._control_cells import ControlCells
    from ._readout import ReadoutPredictor

As = Literal["cells", "samples", "mean", "delta"]
Targets = Literal["expectation", "map", "sample"]
_SOME_CELLS = 200  # most cells for a mean change under nonlinear mechanisms


class CounterfactualSampler:
    """Applies interventions to cells by a trained causal model.

    Parameters
    ----------
    mechanisms
        Mechanisms with the topological generations of their DAG. Mean changes are averaged over them. The scatter of cells is from the
        first.
    seed
        Seed of all random draws.
    readout
        Predicts the readout genes of control cells that have them.
    """

    def __init__(
        self,
        mechanisms: Sequence[tuple[nn.Module, Sequence[Tensor]]],
        seed: int,
        readout: ReadoutPredictor | None = None,
    ) -> None:
        self.mechanism, self.levels, self.seed = *mechanisms[0], seed
        self.mechanisms, self.readout = mechanisms, readout

    def _counterfactual(self, z: Tensor, change: dict) -> Tensor:
        """Counterfactual cells, with the noise from the graph of the data and the mean change averaged over graphs."""
        return counterfactual(self.mechanism, self.levels, z, **change) + self._between_graphs(z.shape[1], change)

    def _between_graphs(self, n_genes: int, change: dict) -> Tensor | float:
        """Change of the mean cell averaged over graphs, less its change under the graph of the data."""
        if len(self.mechanisms) == 1:
            return 0.0
        action = change["action"]
        n = max((len(part) for part in action if isinstance(part, torch.Tensor) and part.ndim == 2), default=1)
        zero = torch.zeros(n, n_genes, dtype=torch.float64)
        found, *others = (counterfactual(*each, zero, **change) for each in self.mechanisms)
        return sum(others, found) / len(self.mechanisms) - found

    def blocks(
        self,
        asked: Sequence[tuple[Callable[[str], Intervention], Callable[[str], str | None], dict]],
        lines: Sequence[ControlCells],
        as_: As,
        n_cells: int | None,
    ) -> Blocks:
        """Blocks of every intervention in every line.

        ``asked`` are functions that return, for a line, the intervention and the source of its prediction (``None``: not requested), with
        the obs values of the rows.
        """

        def parts() -> Iterator[tuple[Block, dict]]:
            for change, source, shared in asked:
                for controls in lines:
                    if (found := source(controls.line)) is None:
                        continue
                    block = self.rows(controls, as_, n_cells, change(controls.line))
                    yield block, {**shared, "cell_line": controls.line, "evidence": found}

        return Blocks([self._n_rows(controls, as_, n_cells) for controls in lines] * len(asked), parts())

    @staticmethod
    def _n_rows(controls: ControlCells, as_: As, n_cells: int | None) -> int:
        """Number of rows of a block."""
        if as_ in ("mean", "delta"):
            return 1
        n = controls.x.shape[0]
        return n if n_cells is None else n_cells if as_ == "samples" else min(n, n_cells)

    def rows(self, controls: ControlCells, as_: As, n_cells: int | None, change: Intervention) -> Block:
        """Predicted values of an intervention on the control cells of a line."""
        x, control, names = self._rows(controls, as_, n_cells, change)
        # The data move the mean of the cells; the deviations of cells from the mean are unchanged.
        x = x + self._by_data(controls, change)
        if not change.parts:
            return self._with_readout(Block(x, control, names, None), controls, as_, n_cells, change)
        each = "cells" if as_ == "cells" else "delta"
        alone = [self._rows(controls, each, n_cells, part) for part in change.parts]
        data = sum(self._by_data(controls, part) for part in change.parts)
        total = sum(part - origin if each == "cells" else part for part, origin, _ in alone) + data
        block = Block(x + data, control, names, total if as_ == "delta" else control + total)
        return self._with_readout(block, controls, as_, n_cells, change)

    def _with_readout(
        self, block: Block, controls: ControlCells, as_: As, n_cells: int | None, change: Intervention
    ) -> Block:
        """The block with the readout genes, if they are asked for."""
        if self.readout is None or controls.readout is None:
            return block
        rows = self._pick(controls, n_cells) if as_ == "cells" else None
        rng = condition_rng(self.seed, controls.line, *change.label, "readout")
        return self.readout.extended(block, controls.readout, as_, rows, change.own_readout, rng)

    def _by_data(self, controls: ControlCells, change: Intervention) -> np.ndarray | float:
        """Correction of the mean change by the data, on the training scale."""
        if change.blend is None:
            return 0.0
        if np.all(change.blend.weight == 1):
            return change.blend.own
        expected, *_ = self._rows(controls, "delta", None, change.expected())
        return change.blend.own - (1 - change.blend.weight) * expected

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
            if not change.sampled:  # mean from all graphs, scatter from the graph of the data
                z = z + self._between_graphs(z.shape[1], change.at(1, rng))
            x = controls.mean + z.numpy() * controls.scale
            return x, np.broadcast_to(controls.mean, x.shape), np.full(n, "")
        if as_ in ("mean", "delta") and change.delta is not None:
            delta = change.delta[None] * controls.scale
        elif as_ == "cells" or not self.mechanism.affine:
            rows = self._pick(controls, n_cells if as_ == "cells" else None)
            x, z = self._cells(controls, rows)
            n_draws = len(z) if as_ == "cells" else 1  # with sampled targets, every row draws its own targets
            constant = change.delta is not None and change.same_for_all
            changed = (
                z + torch.as_tensor(change.delta) if constant else self._counterfactual(z, change.at(n_draws, rng))
            )
            x_changed = x + (changed - z).numpy() * controls.scale
            if as_ == "cells":
                return x_changed, x, controls.names[rows]
            delta = (x_changed - x).mean(0, keepdims=True)
        else:
            zero = torch.zeros(1, len(controls.scale), dtype=torch.float64)
            changed = self._counterfactual(zero, change.at(1, rng))
            delta = (changed - zero).numpy() * controls.scale
        control = controls.mean[None]
        return (delta if as_ == "delta" else control + delta), control, np.array([""])

    def _pick(self, controls: ControlCells, n_cells: int | None) -> np.ndarray:
        """Indices of the source cells, the same for every drug, so that drugs do not differ by their source cells."""
        n = controls.x.shape[0]
        if n_cells is None or n_cells >= n:
            return np.arange(n)
        return np.sort(condition_rng(self.seed, controls.line).choice(n, n_cells, replace=False))

    def _cells(self, controls: ControlCells, rows: np.ndarray) -> tuple[np.ndarray, Tensor]:
        """Source cells on the training scale and on the standardized scale, ``(rows, genes)`` each."""
        x = controls.x[rows].toarray().astype(np.float64)
        center = controls.center[rows] if controls.center.ndim == 2 else controls.center
        return x, torch.as_tensor((x - center) / controls.scale)

    def _noise_mean(self, controls: ControlCells) -> Tensor:
        """Mean noise of the control cells, so that new cells without a drug have the mean of the controls."""
        z = torch.zeros(1, len(controls.scale), dtype=torch.float64)
        if not self.mechanism.affine:
            _, z = self._cells(controls, np.arange(controls.x.shape[0]))
        return abduct(self.mechanism, z).mean(0)


@torch.no_grad()
def mean_changes(
    mechanisms: Sequence[tuple[nn.Module, Sequence[Tensor]]],
    intervention: type[Shift] | type[Hard],
    distribution: InterventionDistribution,
    z: Tensor,
    *,
    targets: Targets = "expectation",
) -> np.ndarray:
    """Mean change of control cells ``z`` under every row of interventions, averaged over graphs; ``(rows, genes)`` standardized.

    For shifts of linear mechanisms it is the product of the expected shifts with the matrix of total effects.
    """
    weight = (distribution.probability > 0.5).astype(float) if targets == "map" else distribution.probability
    if mechanisms[0][0].affine and intervention.keeps_parents and (distribution.noise == 1).all():
        total = sum(
            torch.linalg.inv(torch.eye(z.shape[1], dtype=z.dtype) - each.coefficients) for each, _ in mechanisms
        )
        return (torch.as_tensor(weight * distribution.psi) @ (total / len(mechanisms))).numpy()
    act = intervention.act(*map(torch.as_tensor, (weight, distribution.psi, distribution.noise)))
    if mechanisms[0][0].affine:  # the change of the mean cell is the mean change of cells
        zero = torch.zeros(len(distribution.psi), z.shape[1], dtype=z.dtype)
        return (sum(counterfactual(*each, zero, act) - zero for each in mechanisms) / len(mechanisms)).numpy()
    z = z[:: -(-len(z) // _SOME_CELLS)]
    rows = (
        Action(act.add[i], act.keep[i] if isinstance(act.keep, torch.Tensor) else act.keep, act.noise[i])
        for i in range(len(weight))
    )
    return np.array([(counterfactual(*mechanisms[0], z, row) - z).mean(0).numpy() for row in rows])


def condition_rng(seed: int, *label: object) -> np.random.Generator:
    """Random generator of a condition, independent of the other conditions in the same call."""
    return np.random.default_rng([seed, crc32("\n".join(map(str, label)).encode())])


class Blend(NamedTuple):
    """Mean change on the training scale: ``own``, from the data, plus ``weight`` times the change of the action."""

    own: np.ndarray  # (genes,)
    weight: float | np.ndarray  # one for all genes, or (genes,)


class Intervention:
    """An intervention on the standardized scale: an action on every gene, or genes set to a value.

    ``label`` identifies the intervention and determines its random draws. ``parts`` are the interventions of the drugs of a combination.
    ``blend`` is the mean change from the action and the data.
    """

    parts: tuple[Intervention, ...] = ()
    blend: Blend | None = None
    own_readout: np.ndarray | float = 0.0  # own change of the readout genes, training scale
    delta: np.ndarray | None = None  # mean change of control cells in SD of their line, if it was computed before
    same_for_all = False  # whether every cell has the same change
    sampled = False  # whether every cell draws its targets

    def __init__(self, label: tuple, action: Action, fixed: dict[int, float] | None = None) -> None:
        self.label, self.action, self.fixed = label, action, fixed

    def expected(self) -> Intervention:
        """The intervention with expected targets in place of sampled targets."""
        return self

    def at(self, n_rows: int, rng: np.random.Generator) -> dict:
        """Arguments of :func:`~scgim.module.propagate` for ``n_rows`` cells."""
        return {"action": self.action, "fixed": self.fixed}


class DrugIntervention(Intervention):
    """The intervention of a drug or combination, from a row of an :class:`InterventionDistribution`."""

    def __init__(
        self,
        label: tuple,
        distribution: InterventionDistribution,
        targets: Targets,
        intervention: type[Shift] | type[Hard],
        parts: tuple[Intervention, ...] = (),
        blend: Blend | None = None,
        delta: np.ndarray | None = None,
    ) -> None:
        self.distribution, self.intervention, self.parts, self.blend = distribution, intervention, parts, blend
        self.delta = None if targets == "sample" else delta
        self.same_for_all = intervention.keeps_parents and bool((distribution.noise == 1).all())
        weight = (distribution.probability > 0.5).astype(float) if targets == "map" else distribution.probability
        super().__init__(label, self._act(weight))
        self.sampled = targets == "sample"

    def expected(self) -> DrugIntervention:
        """The intervention with expected targets in place of sampled targets."""
        out = copy(self)
        out.sampled = False
        return out

    def at(self, n_rows: int, rng: np.random.Generator) -> dict:
        """Arguments of :func:`~scgim.module.propagate` for ``n_rows`` cells, each with its own targets if targets are sampled."""
        if not self.sampled:
            return super().at(n_rows, rng)
        p = self.distribution.probability
        return {"action": self._act((rng.random((n_rows, len(p))) < p).astype(float)), "fixed": None}

    def _act(self, weight: np.ndarray) -> Action:
        return self.intervention.act(*map(torch.as_tensor, (weight, self.distribution.psi, self.distribution.noise)))
