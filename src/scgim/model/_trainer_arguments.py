"""Arguments of the trainer that may be passed to `train`."""

from __future__ import annotations

from inspect import signature

from lightning.pytorch import Trainer as LightningTrainer
from scvi.train import Trainer

TRAINER_ARGUMENTS = sorted(
    ({*signature(Trainer).parameters, *signature(LightningTrainer).parameters} - {"self", "kwargs"})
    | {"ckpt_path", "trainer_config"}
)
