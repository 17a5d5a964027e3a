"""Training: one ``Trainer.fit``, its phases in a schedule, its only batch the sufficient statistics."""

from __future__ import annotations

import inspect
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

import lightning.pytorch as pl
import numpy as np
import torch
from scvi.train._progress import ProgressBar
from torch.utils.data import DataLoader

from scgim._checks import check_option
from scgim.structure import fit_graph, search_dag

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scgim.module import Contexts, Controls, GIMModule
    from scgim.statistics import Statistics


_NOT_OPTIONS = (
    "module",
    "statistics",
    "structure",
    "seed",
    "early_stopping_patience",
)  # arguments of GIM and its train


class StatisticsModule(pl.LightningDataModule):
    """The whole of the data as one batch: contexts, controls, and validation contexts or ``None``."""

    def __init__(self, contexts: Contexts, controls: Controls, validation: Contexts | None = None) -> None:
        super().__init__()
        self.batch = (contexts, controls, validation)

    def train_dataloader(self) -> DataLoader:
        """One batch an epoch."""
        # without a generator of its own it takes its seed from the global one
        return DataLoader([self.batch], batch_size=None, collate_fn=lambda batch: batch, generator=torch.Generator())


class TrainingPlan(pl.LightningModule):
    """The schedule: structure (search), mechanisms (jointly with the generator), generator.

    An epoch is one search round or ``steps_per_epoch`` gradient steps: a step on sufficient statistics takes a
    millisecond, about as long as all that the trainer does around an epoch.

    Parameters
    ----------
    module
        What is trained.
    statistics
        Of the training contexts, on the standardised scale, controls first.
    structure
        ``"search"`` or ``"none"`` (empty graph).
    seed
        Of the search.
    search_rounds, search_patience, search_charge, search_penalty
        See :func:`~scgim.structure.search_dag`.
    mechanism_steps, mechanism_lr, forced_steps
        Gradient steps of the joint phase and their size, which falls to 0 over the second half; the first
        ``forced_steps`` know the targets that the search inferred.
    weight_decay
        L2 weight on coefficients in nats, a tenth of it in the second half.
    generator_steps, generator_lr, forced_share, prune_at
        Gradient steps of the last phase, the share of them that is teacher-forced, and where effects are pruned.
    early_stopping_patience
        With validation contexts: steps of the last phase without a better ``nll_validation`` that end it; the best
        weights are restored. ``None`` runs all steps.
    steps_per_epoch
        Gradient steps between two entries of the history.
    """

    def __init__(
        self,
        module: GIMModule,
        statistics: Statistics,
        *,
        structure: str = "search",
        seed: int = 0,
        search_rounds: int = 100,
        search_patience: int = 20,
        search_charge: float = 6.0,
        search_penalty: float = 2.0,
        mechanism_steps: int = 300,
        mechanism_lr: float = 1e-2,
        forced_steps: int = 100,
        weight_decay: float = 1e-3,
        generator_steps: int = 1000,
        generator_lr: float = 0.1,
        forced_share: float = 0.3,
        prune_at: float = 0.6,
        early_stopping_patience: int | None = None,
        steps_per_epoch: int = 10,
    ) -> None:
        super().__init__()
        self.module, self.statistics, self.structure, self.seed = module, statistics, structure, seed
        self.search = {"max_rounds": search_rounds, "patience": search_patience, "penalty": search_penalty}
        self.search_charge = search_charge
        self.mechanism_steps, self.mechanism_lr = mechanism_steps, mechanism_lr
        self.forced_steps, self.weight_decay = min(forced_steps, mechanism_steps // 3), weight_decay
        self.generator_steps, self.generator_lr = generator_steps, generator_lr
        self.forced_share, self.prune_at, self.patience = forced_share, prune_at, early_stopping_patience
        self.phase, self.step_in_phase, self.steps_per_epoch = "structure", 0, steps_per_epoch
        self.automatic_optimization = False

    @classmethod
    def within(cls, max_epochs: int | None, plan_kwargs: dict) -> dict:
        """Options with every phase shortened in proportion, so that all of them fit into ``max_epochs``."""
        defaults = {name: p.default for name, p in inspect.signature(cls).parameters.items()}
        for name in plan_kwargs:
            check_option("plan_kwargs", name, [name for name in defaults if name not in _NOT_OPTIONS])
        options = defaults | plan_kwargs
        wanted = cls._epochs(options)
        if max_epochs is None or max_epochs >= wanted:
            return plan_kwargs
        if max_epochs < 4:
            raise ValueError(
                f"max_epochs={max_epochs} is too few for three phases; the schedule asks for up to {wanted}."
            )
        # the first climb, one epoch for each of the other phases and the one that ends training are always needed
        share, per = (max_epochs - 4) / wanted, options["steps_per_epoch"]
        shorter = {"search_rounds": int(share * options["search_rounds"])}
        for name in ("mechanism_steps", "generator_steps"):
            shorter[name] = per * (1 + int(share * options[name] / per))
        return plan_kwargs | shorter

    @staticmethod
    def _epochs(options: dict) -> int:
        """Most epochs of a schedule."""
        steps = options["mechanism_steps"] + options["generator_steps"]
        return options["search_rounds"] + 2 + -(-steps // options["steps_per_epoch"])

    @property
    def max_epochs(self) -> int:
        """Upper bound on epochs: the search ends by stagnation."""
        return self._epochs(
            {
                "search_rounds": self.search["max_rounds"],
                "mechanism_steps": self.mechanism_steps,
                "generator_steps": self.generator_steps,
                "steps_per_epoch": self.steps_per_epoch,
            }
        )

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam for all parameters (structure and mechanisms) and a fresh one for the generator."""
        betas = (0.9, 0.99)
        groups = [
            {"params": list(self.module.mechanism.parameters()), "lr": self.mechanism_lr},
            {"params": list(self.module.generator.parameters()), "lr": self.generator_lr},
        ]
        return [
            torch.optim.Adam(groups, betas=betas),
            torch.optim.Adam(self.module.generator.parameters(), lr=self.generator_lr, betas=betas),
        ]

    def on_train_start(self) -> None:
        """Start the schedule, where a checkpoint left it if there is one."""
        self._schedule = self._run()

    def training_step(self, batch: tuple, batch_idx: int) -> torch.Tensor:
        """Advance the schedule by an epoch and log what it reports last."""
        self._batch = batch
        metrics: dict[str, float] = {}
        for _ in range(1 if self.phase == "structure" else self.steps_per_epoch):
            report = next(self._schedule, None)
            if report is None:
                self.trainer.should_stop = True
                break
            metrics |= report
        self.log_dict(metrics, on_step=False, on_epoch=True, batch_size=1)
        return torch.zeros(())

    def _run(self) -> Iterator[dict[str, float]]:
        """All phases, each a resumable iterator over its own steps."""
        for name in ("structure", "mechanisms", "generator"):
            if self.phase == name:
                for metrics in getattr(self, f"_{name}")():
                    self.step_in_phase += 1
                    yield metrics
                self.phase, self.step_in_phase = (
                    {"structure": "mechanisms", "mechanisms": "generator"}.get(name, "done"),
                    0,
                )

    def _structure(self) -> Iterator[dict[str, float]]:
        idle, _ = self.optimizers()
        graph = self.module.mechanism.graph.cpu().numpy()
        rounds = search_dag(self.statistics, charge=self.search_charge, seed=self.seed, start=graph, **self.search)
        for state in rounds if self.structure == "search" else ():
            graph = state.graph
            self.module.mechanism.graph.copy_(torch.as_tensor(graph))
            idle.step()  # without gradients a no-op, but it advances the global step, without which nothing is checkpointed
            yield {"structure_score": state.score}
        fit = fit_graph(graph, self.statistics, charge=self.search_charge)
        self.module.mechanism.warm_start(torch.as_tensor(graph), fit)

    def _mechanisms(self) -> Iterator[dict[str, float]]:
        optimizer, _ = self.optimizers()
        for step in range(self.step_in_phase, self.mechanism_steps):
            contexts, controls, _ = self._batch
            late = step >= self.mechanism_steps // 2
            for group, lr in zip(optimizer.param_groups, (self.mechanism_lr, self.generator_lr), strict=True):
                group["lr"] = lr * _cool(step, self.mechanism_steps)
            targets = self._targets(contexts) if step < self.forced_steps else None
            loss, penalty = self.module.joint_loss(contexts, controls, targets)
            decay = self.weight_decay * (0.1 if late else 1.0) * self.module.mechanism.weight_penalty()
            self._descend(optimizer, loss + penalty + decay)
            yield {"mechanisms_nll": loss.item() / self.statistics.n_cells}
        self.module.generator.reset()

    def _generator(self) -> Iterator[dict[str, float]]:
        _, optimizer = self.optimizers()
        contexts, controls, held = self._batch
        self.module.mechanism.requires_grad_(False)
        with torch.no_grad():
            residual, _ = self.module.mechanism.moments(contexts.mean, controls.scatter)
            held_residual = None if held is None else held.mean - self.module.mechanism(held.mean)
        targets = self._targets(contexts)
        best, best_step, best_state = np.inf, 0, None
        for step in range(self.step_in_phase, self.generator_steps):
            if step == int(self.prune_at * self.generator_steps):
                self.module.generator.prune()
            optimizer.param_groups[0]["lr"] = self.generator_lr * _cool(step, self.generator_steps)
            forced = step < self.forced_share * self.generator_steps
            loss, penalty = self.module.generator_loss(contexts, residual, targets if forced else None)
            self._descend(optimizer, loss + penalty)
            metrics = {"generator_nll": loss.item() / len(contexts.n)}
            if held is not None:
                with torch.no_grad():
                    value = -self.module.evidence(held, held_residual).sum().item() / len(held.n)
                metrics["nll_validation"] = value
                if self.patience is not None and not forced:
                    if value < best:
                        best, best_step = value, step
                        best_state = {k: v.clone() for k, v in self.module.generator.state_dict().items()}
                    elif step - best_step >= self.patience:
                        yield metrics
                        break
            yield metrics
        if best_state is not None:
            self.module.generator.load_state_dict(best_state)

    @torch.no_grad()
    def _targets(self, contexts: Contexts) -> torch.Tensor:
        """Contexts whose mean residual is too large for chance, ``(contexts, genes)`` bool."""
        residual = contexts.mean - self.module.mechanism(contexts.mean)
        return contexts.n * residual**2 > 2 * self.search_charge * self.module.mechanism.variance

    def _descend(self, optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
        if not torch.isfinite(loss):
            raise RuntimeError(
                f"The loss became {loss.item()} in step {self.step_in_phase} of phase {self.phase!r}. Smaller steps may help: "
                "plan_kwargs={'mechanism_lr': 1e-3, 'generator_lr': 1e-2}."
            )
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Remember the place in the schedule; the graph found so far is in the module."""
        checkpoint["scgim_schedule"] = {"phase": self.phase, "step": self.step_in_phase}

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Go on from there."""
        self.phase, self.step_in_phase = checkpoint["scgim_schedule"].values()


def _cool(step: int, steps: int) -> float:
    """Share of the step size: 1, then falling to 0 over the second half.

    Adam divides by the size of recent gradients, so near the optimum steps of constant size magnify rounding, and the
    order of the cells would show in the third digit.
    """
    return min(1.0, 2 * (1 - step / steps))


class PhaseProgress(ProgressBar):
    """One line that names the phase, its loss and the validation loss."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: TrainingPlan) -> None:
        """Name the phase; the bar redraws itself at its own pace."""
        self.main_progress_bar.set_description(pl_module.phase, refresh=False)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: TrainingPlan) -> None:
        """Advance."""
        self.main_progress_bar.update()
        if trainer.current_epoch % 5 == 0:
            metrics = {k: f"{float(v):.4g}" for k, v in trainer.callback_metrics.items()}
            self.main_progress_bar.set_postfix(metrics, refresh=False)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """One progress line and no flood: Lightning's notes on hardware and on why it stopped are left out."""
    names = ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda")
    loggers = [logging.getLogger(name) for name in names]
    before = [log.level for log in loggers]
    for log in loggers:
        log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for log, level in zip(loggers, before, strict=True):
            log.setLevel(level)


@contextmanager
def few_threads(n_genes: int) -> Iterator[None]:
    """One thread for small matrices: handing them out costs more than the work, and far more where cores are shared."""
    before = torch.get_num_threads()
    if n_genes <= 200:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
