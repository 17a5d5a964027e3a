"""What a user sees of training: one progress line."""

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
    if n_genes <= 1000:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
