"""Another split of a screen that leaves the AnnData and its set-up unchanged."""

from __future__ import annotations

from contextlib import contextmanager
from inspect import signature
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from scgim import _keys
from scgim._checks import check_option
from scgim.model._gim import GIM

if TYPE_CHECKING:
    from collections.abc import Iterator


def setup_arguments(adata: AnnData, given: dict[str, Any] | None) -> dict[str, Any]:
    """The arguments of the last `setup_anndata` of ``adata``, or ``given`` instead.

    Raises
    ------
    ValueError
        If ``adata`` was never set up, or an argument of ``given`` does not exist or is missing.
    """
    if given is None:
        manager = GIM._get_most_recent_anndata_manager(adata)
        if manager is None:
            raise ValueError(
                "Nothing is known of adata's columns: scgim.setup_anndata(adata, drug_key=..., control=..., scale=...), or pass "
                "these as setup_kwargs={...}."
            )
        return dict(manager.registry["setup_args"])
    own = {name: p for name, p in signature(GIM.setup_anndata).parameters.items() if name != "adata"}
    for name in given:
        check_option("setup_kwargs", name, list(own))
    if missing := [name for name, p in own.items() if p.default is p.empty and name not in given]:
        raise ValueError(f"setup_kwargs lacks {missing[0]!r}, which setup_anndata needs.")
    return dict(given)


@contextmanager
def split_anew(adata: AnnData, test: np.ndarray, arguments: dict[str, Any]) -> Iterator[AnnData]:
    """A new AnnData on the same matrix, set up with the cells in ``test`` held out, ``(cells,)`` bool; deregistered afterwards."""
    readout = arguments.get("readout")
    side = pd.Categorical(np.where(test, "test", "train"), categories=["train", "test"])
    other = AnnData(
        adata.X,
        obs=adata.obs.assign(**{_keys.SPLIT: side}),
        var=adata.var[[readout]] if readout in adata.var else pd.DataFrame(index=adata.var_names),
        obsm={readout: adata.obsm[readout]} if readout in adata.obsm else {},
        uns=dict(adata.uns),
        layers={
            name: layer for name, layer in adata.layers.items() if name is not None
        },  # anndata 0.13 lists X as None
    )
    GIM.setup_anndata(other, **(arguments | {"split_key": _keys.SPLIT}))
    uuid = other.uns["_scvi_uuid"]
    try:
        yield other
    finally:
        # scvi-tools keeps a reference to every AnnData that was set up, so its memory would never be freed.
        GIM._setup_adata_manager_store.pop(uuid, None)
        for store in GIM._per_instance_manager_store.values():
            store.pop(uuid, None)
