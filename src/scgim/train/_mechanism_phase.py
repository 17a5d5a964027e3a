"""The second phase of training: mechanisms on the graph, jointly with a generator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ._gradient_step import GradientSteps, cooled
from ._minibatches import Minibatches, Processes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scgim.data._training_data import TrainingData
    from scgim.module import GIMModule

    from ._edge_constraints import EdgeConstraints
    from ._options import TrainingOptions

WEIGHT_DECAY = 1e-3  # L2 weight on coefficients in nats, a tenth of it in the second half


class MechanismPhase:
    """Trains mechanisms and a generator jointly, by gradient steps on the exact likelihood.

    Parameters
    ----------
    module, data
        The trained module and the training data.
    constraints
        Edge constraints; required edges are not pruned.
    options, seed
        Options and seed of training.
    processes
        Rank and number of processes.
    """

    name = "mechanisms"

    def __init__(
        self,
        module: GIMModule,
        data: TrainingData,
        *,
        constraints: EdgeConstraints,
        options: TrainingOptions,
        seed: int,
        processes: Processes,
    ) -> None:
        self.module, self.data, self.options = module, data, options
        self.required, self.seed, self.processes = constraints.required, seed, processes

    def run(self, batch: tuple, optimizers: list, start: int, memory: dict[str, Any]) -> Iterator[dict[str, float]]:
        """Yield after every gradient step. ``memory["targets"]`` are the targets of the last E step."""
        mechanism, options = self.module.mechanism, self.options
        optimizer, steps, n_cells = optimizers[0], options.mechanism_steps, self.data.n_cells
        if self.data.means is not None and mechanism.affine:
            return  # measurement noise of single cells would attenuate the coefficients that were fitted to means
        conditions, controls, _ = batch
        batches = Minibatches(
            self.module,
            self.data.store,
            conditions,
            controls,
            options=options,
            seed=self.seed,
            processes=self.processes,
            targets=memory.get("targets"),
        )
        self._give_parameters(optimizer)
        descent = GradientSteps(optimizer, add=self.processes.size > 1 and not mechanism.affine)
        for step in range(start, steps):
            late = step >= steps // 2
            if not mechanism.affine and step in {steps * share // 6 for share in (2, 3, 4, 5)}:
                keep = None if self.required is None else torch.as_tensor(self.required)
                mechanism.prune(self.data.some_controls().float(), keep)
                self._give_parameters(optimizer)
            for group, lr in zip(optimizer.param_groups, (options.mechanism_lr, options.generator_lr), strict=True):
                group["lr"] = lr * cooled(step, steps)
            each = batches.at(step)
            memory["targets"] = batches.targets
            nll, penalty = self.module.joint_loss(
                each.conditions, each.moments, n_cells * each.share, each.targets, each.weight
            )
            decay = WEIGHT_DECAY * (0.1 if late else 1.0) * mechanism.weight_penalty()
            loss = nll + each.share * (penalty + decay)
            descent.step(loss)
            yield {"mechanisms_nll": nll.item() / float(n_cells * each.share)}

    def _give_parameters(self, optimizer: torch.optim.Optimizer) -> None:
        """Set the optimizer's parameters to the parameters of the present graph, and delete the state of the others."""
        params = list(self.module.mechanism.parameters())
        optimizer.param_groups[0]["params"] = params
        for old in set(optimizer.state) - {*params, *optimizer.param_groups[1]["params"]}:
            del optimizer.state[old]
