"""Data of a gradient step of the mechanisms: sufficient statistics, or a sample of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from scgim.module import Moments, cell_moments

from ._condition_moments import clear_targets

if TYPE_CHECKING:
    from scgim.module import CellStore, Controls, GIMModule, MeasuredConditions

    from ._options import TrainingOptions

_VALUES = 100_000  # most gene values in a step; on large screens a step samples conditions
_REFRESH = 200  # steps between two updates of the targets


class Processes(NamedTuple):
    """Rank of this process, and number of processes."""

    rank: int
    size: int


class Batch(NamedTuple):
    """Data of one process in a step."""

    conditions: MeasuredConditions
    moments: Moments
    targets: torch.Tensor | None  # None: unknown
    weight: torch.Tensor | None  # (conditions, 1) weight of every condition; 0 for conditions of other processes
    share: float  # share of this process in the terms that do not belong to a condition


class Minibatches:
    """Moments of the conditions for every step of the joint phase.

    Affine mechanisms use the sufficient statistics of all cells in every step. Other mechanisms use ``cells_per_step`` cells of every
    condition, or of a sample of many conditions, and sums are scaled to all cells. The marginal likelihood over targets is not a sum over
    cells. Therefore targets are updated from all sampled cells from time to time (the E step of EM). Given the targets, the loss is a sum,
    and a batch gives an unbiased estimate. ``targets`` are those of the last E step, if training is resumed.

    Several processes draw the same batch and divide its conditions. The sum of their losses is the loss of a single process.
    """

    def __init__(
        self,
        module: GIMModule,
        store: CellStore | None,
        conditions: MeasuredConditions,
        controls: Controls,
        *,
        options: TrainingOptions,
        seed: int,
        processes: Processes,
        targets: torch.Tensor | None = None,
    ) -> None:
        self.module, self.store, self.conditions, self.controls = module, store, conditions, controls
        self.options, self.seed, self.processes = options, seed, processes
        self.targets = targets
        mechanism = module.mechanism
        if mechanism.affine and conditions.own is not None:
            self.conditions = conditions._replace(own=mechanism.families(conditions.own, conditions.n))
        if not mechanism.affine:
            (k, d), n_cells = conditions.mean.shape, options.cells_per_step
            self.at_once = min(k, max(1, _VALUES // (n_cells * d)))
            self.n_controls = max(n_cells, self.at_once * n_cells // 5)

    def at(self, step: int) -> Batch:
        """The batch of a step."""
        if self.module.mechanism.affine:
            moments = self.module.mechanism.moments(self.conditions, self.controls)
            forced = step < self.options.teacher_forced_steps
            targets = clear_targets(self.module, self.conditions, moments) if forced else None
            return Batch(self.conditions, moments, targets, None, 1.0)
        if self.targets is None or step % _REFRESH == 0:
            with torch.no_grad():
                moments = cell_moments(self.module.mechanism, self.store)
            self.targets = clear_targets(self.module, self.conditions, moments)
        # Every step has its own seed, so that a resumed training draws the same batches as an uninterrupted training.
        return self._sample(torch.Generator().manual_seed(self.seed * 2**20 + step))

    def _sample(self, generator: torch.Generator) -> Batch:
        rank, size = self.processes
        k, n, mechanism = len(self.conditions.n), self.options.cells_per_step, self.module.mechanism
        chosen = torch.randperm(k, generator=generator)[: self.at_once].sort().values
        own = torch.arange(len(chosen))[rank::size]
        treated = self.store.draw(chosen + 1, n, generator)[own]
        control = self.store.draw(torch.zeros(1, dtype=torch.long), self.n_controls, generator)[0]
        control = control[rank::size]
        # Networks run in single precision, which halves the time. The rounding error is negligible compared with the sampling error.
        x = torch.cat([treated.flatten(0, 1), control])
        x, noise, m = x.double(), (x - mechanism(x)).double(), len(own)
        x, noise, at_control = x[: m * n].view(m, n, -1), noise[: m * n].view(m, n, -1), noise[m * n :]
        pooled = self.store.size[0] * (at_control**2).sum(0) / self.n_controls
        means = (*_moments(noise), *_moments(x))
        whole = torch.zeros(len(chosen), x.shape[2], dtype=x.dtype)
        moments = Moments(*(whole.index_copy(0, own, a) for a in means), pooled)
        weight = torch.zeros(len(chosen), 1, dtype=x.dtype).index_fill(0, own, k / len(chosen))
        prior, sign = self.conditions.target_log_odds, self.conditions.target_sign
        conditions = self.conditions._replace(
            n=self.conditions.n[chosen],
            mean=self.conditions.mean[chosen],
            spread=self.conditions.spread[chosen],
            inputs=self.conditions.inputs.take(chosen),
            target_log_odds=prior[chosen] if isinstance(prior, torch.Tensor) else prior,
            target_sign=sign[chosen] if isinstance(sign, torch.Tensor) else sign,
        )
        return Batch(conditions, moments, self.targets[chosen], weight, 1 / size)


def _moments(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance over a condition's cells."""
    # Standardized values are of order 1, so the difference of squares does not cancel.
    mean = x.mean(1)
    return mean, (x * x).mean(1) - mean**2
