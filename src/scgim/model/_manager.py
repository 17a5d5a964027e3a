"""scvi-tools' record of set-up data, without keeping the data alive."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from scvi.data import AnnDataManager

if TYPE_CHECKING:
    from anndata import AnnData
    from scvi.model.base import BaseModelClass

_UUID = "_scvi_uuid"


class Manager(AnnDataManager):
    """A manager that refers to its AnnData weakly. Models and users own the data; scvi-tools' stores of managers live as long as the process."""

    _data: weakref.ref[AnnData] | None = None

    @property
    def adata(self) -> AnnData | None:
        """The AnnData, or None if nobody owns it any more."""
        return None if self._data is None else self._data()

    @adata.setter
    def adata(self, value: AnnData | None) -> None:
        self._data = None if value is None else weakref.ref(value)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_data"} | {"adata": self.adata}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.adata = state.pop("adata")
        self.__dict__.update(state)


def register(cls: type[BaseModelClass], manager: AnnDataManager, *, replaced: str | None = None) -> None:
    """Enter a manager into the store of a model class until its AnnData is gone; ``replaced`` is the identifier of an earlier set-up."""
    store = cls._setup_adata_manager_store
    if replaced in store and store[replaced].adata is manager.adata:
        del store[replaced]
    cls.register_manager(manager)
    weakref.finalize(manager.adata, store.pop, manager.adata_uuid, None).atexit = False


def forget_with(owner: object, model: BaseModelClass) -> None:
    """Remove a model from scvi-tools' store of models when ``owner`` is gone."""
    weakref.finalize(owner, model._per_instance_manager_store.pop, model.id, None).atexit = False


def adopt(model: BaseModelClass) -> None:
    """Register the AnnData of a model that was unpickled or copied, under an identifier of its own."""
    manager = model.adata_manager
    del model.adata.uns[_UUID]
    manager._assign_uuid()
    register(type(model), manager)
    model._register_manager_for_instance(manager)
    forget_with(model, model)
