"""A callback that stores a training, so that it can be resumed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lightning.pytorch as pl

if TYPE_CHECKING:
    from pathlib import Path


class Checkpoint(pl.Callback):
    """Writes the state of training into a file, for ``train(ckpt_path=...)`` after the process was killed.

    The file replaces its predecessor when it is complete. It contains weights, the graph and the place in the schedule with its random
    state, and no cells. ``ModelCheckpoint`` of Lightning stores the same state.

    Parameters
    ----------
    path
        The file.
    every
        Number of epochs between two states.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import scgim
    >>> adata = scgim.datasets.sachs()
    >>> scgim.setup_anndata(adata, drug_key="drug", control="cd3cd28", scale="continuous")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "training.ckpt"
    ...     train = {"max_epochs": 20, "enable_progress_bar": False, "callbacks": [scgim.train.Checkpoint(path)]}
    ...     model = scgim.GIM(adata)
    ...     model.train(**train)
    ...     resumed = scgim.GIM(adata)  # in another process, if the first was killed
    ...     resumed.train(**train, ckpt_path=path)
    >>> bool((resumed.predict(as_="mean").X == model.predict(as_="mean").X).all())
    True
    """

    def __init__(self, path: str | Path, every: int = 1) -> None:
        self.path, self.every = path, every

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the state."""
        if (trainer.current_epoch + 1) % self.every == 0:
            trainer.save_checkpoint(self.path)
