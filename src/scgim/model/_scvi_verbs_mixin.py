"""Methods of scvi-tools' base class that behave differently in scgim, or do not exist."""

from __future__ import annotations

from pprint import pprint
from typing import TYPE_CHECKING, NoReturn

import torch

from . import _io

if TYPE_CHECKING:
    from pathlib import Path


def _refuse(verb: str, instead: str) -> NoReturn:
    raise NotImplementedError(f"GIM.{verb} does not exist in scgim. {instead}")


class ScviVerbsMixin:
    """Methods of scvi-tools' base class. They work on the files of scgim or raise an error with an alternative."""

    @staticmethod
    def load_registry(dir_path: str | Path, prefix: str | None = None) -> dict:
        """The registry of a saved model: the arguments and results of set-up.

        Parameters
        ----------
        dir_path
            Folder of :meth:`save`.
        prefix
            Not used, because a folder contains a single model.
        """
        return _io.read(dir_path)["registry"]

    @staticmethod
    def view_setup_args(dir_path: str | Path, prefix: str | None = None) -> None:
        """Print the arguments of set-up of a saved model.

        Parameters
        ----------
        dir_path, prefix
            Arguments of :meth:`load_registry`.
        """
        pprint(_io.read(dir_path)["registry"]["setup_args"], sort_dicts=False)

    @classmethod
    def convert_legacy_save(cls, *args: object, **kwargs: object) -> NoReturn:
        """Refuse: files of every version of scgim load as they are."""
        _refuse("convert_legacy_save", "Files of every version load as they are: GIM.load(path).")

    @classmethod
    def setup_annbatch(cls, *args: object, **kwargs: object) -> NoReturn:
        """Refuse: cells are read once, from an AnnData."""
        _refuse("setup_annbatch", "Open the store as a backed or dask AnnData and pass it to GIM.setup_anndata.")

    @classmethod
    def setup_datamodule(cls, *args: object, **kwargs: object) -> NoReturn:
        """Refuse: cells are read once, from an AnnData."""
        _refuse("setup_datamodule", "Pass an AnnData to GIM.setup_anndata; it may be backed or on dask.")

    def get_normalized_expression(self, *args: object, **kwargs: object) -> NoReturn:
        """Refuse: the model has no latent expression."""
        _refuse("get_normalized_expression", "model.predict(...) gives expression under drugs.")

    def differential_abundance(self, *args: object, **kwargs: object) -> NoReturn:
        """Refuse: the model has no latent space of cells."""
        _refuse("differential_abundance", "model.rank_targets() tests genes.")

    @property
    def device(self) -> torch.device:
        """Device of the module, always the CPU."""
        return torch.device("cpu")

    def to_device(self, device: str | int) -> None:
        """Stay on the CPU.

        Parameters
        ----------
        device
            ``"cpu"``.

        Raises
        ------
        NotImplementedError
            For any other device.
        """
        if torch.device(device).type != "cpu":
            _refuse(f"to_device({device!r})", "The model answers on the CPU.")
