"""One run of Lightning's trainer, and the ways in which it may end."""

from __future__ import annotations

import signal
import threading
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from scvi.train import TrainRunner

from scgim._checks import listed, warn
from scgim.module.mechanisms import NOISE_FLOOR
from scgim.train._data_module import StatisticsModule
from scgim.train._plan import DONE

from ._progress_bar import PhaseProgress, few_threads, quiet_lightning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scvi.model.base import BaseModelClass

    from scgim.data._training_data import TrainingData
    from scgim.module.mechanisms import Mechanism
    from scgim.train._plan import TrainingPlan


class Runner(TrainRunner):
    """scvi-tools' runner. An exception passes without a message of its own on the standard output."""

    def _run_training_core(self) -> None:
        self.trainer.fit(self.training_plan, self.data_splitter, ckpt_path=self.ckpt_path)
        self._update_history()
        self.model.train_indices = self.model.test_indices = self.model.validation_indices = None
        self.model.is_trained_, self.model.trainer = True, self.trainer


def run(model: BaseModelClass, plan: TrainingPlan, data: TrainingData, trainer: dict[str, Any]) -> None:
    """Run the training plan with a progress bar, and give the model its history.

    Raises
    ------
    KeyboardInterrupt
        If the user interrupts training.
    RuntimeError
        If the trainer ends before the schedule, or the loss is not finite.
    ValueError
        If ``ckpt_path`` cannot be resumed.
    """
    trainer["callbacks"] = list(trainer.get("callbacks") or [])  # scvi-tools appends to the list
    if trainer.setdefault("enable_progress_bar", True):
        trainer["simple_progress_bar"] = False
        trainer["callbacks"].append(PhaseProgress())
    trainer.setdefault("checkpointing_monitor", "generator_nll" if data.held is None else "nll_validation")
    if trainer.get("ckpt_path") is not None:
        check_checkpoint(trainer["ckpt_path"], plan)
    with warnings.catch_warnings(), quiet_lightning(), few_threads(len(data.summary.genes)), own_interrupts():
        # These warnings concern loaders of cells. The loader of the statistics has a single batch.
        warnings.filterwarnings("ignore", message=".*does not have many workers")
        warnings.filterwarnings("ignore", message=".*smaller than the logging interval")
        # lightning 2.6 on torch 2.13
        warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
        # a phase logs its own loss; checkpoints that monitor another loss wait for it
        warnings.filterwarnings("ignore", message=".*could not find the monitored key")
        loader, max_epochs = StatisticsModule(data), plan.options.max_epochs
        runner = Runner(model, training_plan=plan, data_splitter=loader, max_epochs=max_epochs, **trainer)
        model._process = runner.trainer.global_rank
        try:
            runner()
        finally:
            plan.close()
            loader.release()
    if plan.phase != DONE:
        raise RuntimeError(
            f"Training was cut short in {plan.place()}, before the end of its schedule. An argument of the trainer (max_time, "
            "max_steps, limit_train_batches, ...) or a callback stopped it. Leave it out, or pass max_epochs, which shortens every phase."
        )
    # A logger knows only the epochs since a checkpoint, and only those of the first process.
    own = {name: pd.DataFrame({name: pd.Series(curve)}).rename_axis("epoch") for name, curve in plan.history.items()}
    model.history_ = own | {name: curve for name, curve in (model.history_ or {}).items() if name not in own}


@contextmanager
def own_interrupts() -> Iterator[None]:
    """Pass KeyboardInterrupt on, and leave the handler of SIGINT as it was.

    Lightning ignores SIGINT after an interrupt and raises SystemExit, which ends the user's process.
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt("Training was interrupted.") from None
        raise
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGINT, before)


def check_checkpoint(path: str | Path, plan: TrainingPlan) -> None:
    """Read a checkpoint without running code, and refuse it if it is damaged or of another training.

    Raises
    ------
    FileNotFoundError
        If there is no file.
    ValueError
        If the file cannot be resumed.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"ckpt_path={str(path)!r} is no file. Pass the path of a checkpoint of Lightning's ModelCheckpoint."
        )
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # noqa: BLE001  (damage has many exceptions, and messages of torch suggest to run the code in a file)
        why: str | None = "is damaged, or no checkpoint of scgim; no code in it was run"
    else:
        why = plan.reason_against(checkpoint)
    if why is not None:
        raise ValueError(f"ckpt_path={str(path)!r} {why}. Resume from another checkpoint, or train without ckpt_path.")


def warn_of_copies(mechanism: Mechanism, genes: np.ndarray) -> None:
    """Warn of genes that their parents determine, such as copies and sums of genes."""
    found = np.flatnonzero(mechanism.without_noise().numpy())
    if len(found):
        graph = mechanism.graph.numpy()
        each = [f"{str(genes[j])!r} by {listed([str(gene) for gene in genes[graph[:, j]]])}" for j in found[:3]]
        warn(
            f"{len(found)} genes are determined by others up to {NOISE_FLOOR**0.5:.0%} of their control SD ({'; '.join(each)}). Copies and "
            "sums of genes have no noise of their own, so their noise is set to this value, and effects on them and on their sources "
            "cannot be distinguished. Leave one gene of each group out."
        )
