"""The training data as a Lightning data module."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader

if TYPE_CHECKING:
    from scgim.data._training_data import TrainingData


class StatisticsModule(pl.LightningDataModule):
    """All data as one batch: conditions, controls, and validation conditions or ``None``."""

    def __init__(self, data: TrainingData) -> None:
        super().__init__()
        self.batches = [(data.conditions, data.controls, data.held)]

    def train_dataloader(self) -> DataLoader:
        """One batch per epoch."""
        # Without a generator, the loader would draw its seed from the global random state.
        return DataLoader(self.batches, batch_size=None, collate_fn=lambda batch: batch, generator=torch.Generator())

    def release(self) -> None:
        """Let the data go after training. The trainer of the model keeps the module and the loader."""
        self.batches.clear()
