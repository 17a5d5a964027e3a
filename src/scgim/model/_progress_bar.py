"""The progress bar of training."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from scvi.train._progress import ProgressBar

if TYPE_CHECKING:
    from collections.abc import Iterator

    import lightning.pytorch as pl

    from scgim.train._plan import TrainingPlan


class PhaseProgress(ProgressBar):
    """A progress bar with the phase, its loss and the validation loss."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: TrainingPlan) -> None:
        """Show the phase, without forcing a redraw."""
        self.main_progress_bar.set_description(pl_module.phase, refresh=False)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: TrainingPlan) -> None:
        """Advance the bar by an epoch."""
        self.main_progress_bar.update()
        if trainer.current_epoch % 5 == 0:
            metrics = {k: f"{float(v):.4g}" for k, v in trainer.callback_metrics.items()}
            self.main_progress_bar.set_postfix(metrics, refresh=False)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Suppress Lightning's messages on hardware, on checkpoints and on the end of training."""
    names = (
        "lightning.pytorch.utilities.rank_zero",
        "lightning.pytorch.accelerators.cuda",
        "lightning.pytorch.trainer.connectors.checkpoint_connector",
    )
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
    """Use one thread for small matrices, because the overhead of several threads exceeds the work."""
    before = torch.get_num_threads()
    if n_genes <= 1000:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
