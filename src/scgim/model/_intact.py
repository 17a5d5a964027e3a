"""Checks of the state of a saved model: sizes, indices and finite numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from scgim.structure import levels

from ._io import DamagedError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Sizes of the arrays by path, below "fitted" if not said otherwise. An empty array is an entry that the model does not have.
SHAPES = {
    "genes": ("genes",),
    "scale": ("genes",),
    "group_line": ("groups",),
    "group_batch": ("groups",),
    "group_mean": ("groups", "genes"),
    "group_size": ("groups",),
    "controls": ("cells", "genes"),
    "control_group": ("cells",),
    "control_names": ("cells",),
    "control_replicate": ("cells",),
    "line_scale": ("lines", "genes"),
    "change_variance": ("conditions", "genes"),
    "design/drugs": ("drugs",),
    "design/features": ("drugs", "features"),
    "design/feature_scale": ("features",),
    "design/drug": ("conditions",),
    "design/dose": ("conditions",),
    "design/line": ("conditions",),
    "design/combination": ("combinations",),
    "design/part": ("combinations", None),
    "design/part_dose": ("combinations", None),
    "statistics/n": ("rows",),
    "statistics/mean": ("rows", "genes"),
    "statistics/squares": ("rows", "genes"),
    "statistics/scatter": ("genes", "genes"),
    **{f"measured/{name}": ("conditions", "genes") for name in ("residual", "within", "value", "spread")},
    "measured/n": ("conditions", None),
    "measured/pooled": ("genes",),
    **{f"measured/features/{name}": ("conditions", "genes") for name in ("probability", "log_odds", "psi")},
    "measured/features/variance": ("genes",),
    "known_targets/log_odds": ("conditions", "genes"),
    "known_targets/sign": ("conditions", "genes"),
    "readout/group_mean": ("groups", "readout"),
    "readout/scale": ("readout",),
    "readout/controls": ("cells", "readout"),
    "readout/model/slopes": ("genes", "readout"),
    "covariates/controls": ("cells", None),
}
# Indices below these numbers. Parts of combinations may be -1, for no drug.
INDICES = {
    "control_group": "groups",
    "design/drug": "treatments",
    "design/line": "lines",
    "design/part": "drugs",
}
# Arrays in which NaN or infinite values have a meaning: no features, no dose, no score, certain targets.
NOT_FINITE = (
    "design/features",
    "design/dose",
    "design/part_dose",
    "known_targets/log_odds",
    "similarity.reference",
    "values",
    "scores",
)


def check_state(state: dict) -> None:
    """Raise :class:`DamagedError` with the first entry of a wrong size, index or value."""
    fitted = state["fitted"]
    sizes = _sizes(fitted)
    flat = dict(_arrays(fitted, ""))
    for key, shape in SHAPES.items():
        array = flat.get(key)
        if array is None or 0 in array.shape:
            continue
        wanted = [size if name is None else sizes[name] for name, size in zip(shape, array.shape, strict=False)]
        if len(shape) != array.ndim or wanted != list(array.shape):
            raise DamagedError(f"{key} has the shape {array.shape}, not {tuple(wanted)}")
    for key, size in INDICES.items():
        array, least = flat.get(key), -1 if key == "design/part" else 0
        if array is not None and array.size and not (array.dtype.kind in "iu" and _within(array, least, sizes[size])):
            raise DamagedError(f"{key} has indices beyond {size}")
    if not set(fitted["group_line"]) <= set(fitted["design"]["lines"]):
        raise DamagedError("group_line has lines that are not in the design")
    if not (fitted["scale"] > 0).all():
        raise DamagedError("scale is not positive")
    for part in ("fitted", "module", "plain", "averaging"):
        for key, array in _arrays(state.get(part) or {}, ""):
            values = array.data if sp.issparse(array) else array
            if values.dtype.kind == "f" and not key.endswith(NOT_FINITE) and not np.isfinite(values).all():
                raise DamagedError(f"{key} has values that are not finite")
    _check_graphs(state, sizes["genes"])


def _check_graphs(state: dict, n_genes: int) -> None:
    for part in ("module", "plain"):
        if state.get(part) is None:
            continue
        graph = state[part]["mechanism.graph"]
        if graph.shape != (n_genes, n_genes) or graph.dtype != bool:
            raise DamagedError(f"the graph is no matrix of {n_genes} x {n_genes} edges")
        try:
            levels(graph)
        except ValueError:
            raise DamagedError("the graph has a cycle") from None
    if state.get("averaging") is not None:
        graphs = state["averaging"]["graphs"]
        ends = [graphs["source"], graphs["target"], graphs["member"]]
        for array, most in zip(ends, (n_genes, n_genes, graphs["n_members"]), strict=True):
            if array.shape != ends[0].shape or (array.size and not _within(array, 0, most)):
                raise DamagedError("the ensemble of graphs has indices beyond its genes")


def _sizes(fitted: dict) -> dict[str, int]:
    design = fitted["design"]
    combinations = len(design.get("combination", ()))
    readout = fitted.get("readout") or {}
    return {
        "genes": len(fitted["genes"]),
        "groups": len(fitted["group_line"]),
        "cells": fitted["controls"].shape[0],
        "lines": len(design["lines"]),
        "drugs": len(design["drugs"]),
        "features": design["features"].shape[1],
        "combinations": combinations,
        "treatments": len(design["drugs"]) + combinations,
        "conditions": len(design["drug"]),
        "rows": len(design["drug"]) + 1,
        "readout": len(readout.get("genes", ())),
    }


def _arrays(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Arrays and sparse matrices of a nested dict by their path."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _arrays(item, f"{key}/{name}" if key else str(name))
    elif isinstance(value, np.ndarray) or sp.issparse(value):
        yield key, value


def _within(array: np.ndarray, least: int, end: int) -> bool:
    return bool(array.min() >= least and array.max() < end)
