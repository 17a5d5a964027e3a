"""Saving without pickle: numbers in safetensors, everything else in JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from safetensors.numpy import load_file, save_file

FORMAT = 1
_JSON, _TENSORS = "model.json", "model.safetensors"


def write(path: str | Path, state: dict, *, overwrite: bool) -> None:
    """Write a nested dict of arrays, sparse matrices, frames and scalars into a folder.

    Raises
    ------
    FileExistsError
        If the folder holds a model and ``overwrite`` is false.
    """
    path = Path(path)
    if (path / _JSON).exists() and not overwrite:
        raise FileExistsError(f"{path} already holds a model. Pass overwrite=True or another path.")
    path.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, np.ndarray] = {}
    text = json.dumps({"format": FORMAT, "state": _pack(state, "", tensors)}, indent=1)
    save_file(tensors, path / _TENSORS)
    (path / _JSON).write_text(text, encoding="utf-8")


def read(path: str | Path) -> dict:
    """Read the state that :func:`write` wrote.

    Raises
    ------
    FileNotFoundError
        If there is no model.
    ValueError
        If a later version of scgim wrote it.
    """
    path = Path(path)
    if not (path / _JSON).exists():
        raise FileNotFoundError(f"{path} holds no scgim model ({_JSON} is missing).")
    saved = json.loads((path / _JSON).read_text(encoding="utf-8"))
    if saved["format"] > FORMAT:
        raise ValueError(
            f"{path} was saved in format {saved['format']}; this version reads up to {FORMAT}. Upgrade scgim."
        )
    return _unpack(saved["state"], load_file(path / _TENSORS))


def _pack(value: Any, key: str, tensors: dict[str, np.ndarray]) -> Any:
    """JSON of a value; numeric arrays are stored in ``tensors`` under their path in the tree."""
    if isinstance(value, dict):
        return {name: _pack(item, f"{key}/{name}", tensors) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return {"_list": [_pack(item, f"{key}/{i}", tensors) for i, item in enumerate(value)]}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind in "OUS":
        return {"_strings": value.astype(str).tolist()}
    if isinstance(value, np.ndarray):
        tensors[key] = np.array(value, order="C")  # ascontiguousarray would give a scalar a dimension
        return {"_tensor": key}
    if isinstance(value, sp.csr_matrix):
        parts = {"data": value.data, "indices": value.indices, "indptr": value.indptr, "shape": list(value.shape)}
        return {"_csr": _pack(parts, key, tensors)}
    if isinstance(value, pd.DataFrame):
        columns = {
            "index": value.index.to_numpy(),
            "columns": list(value.columns),
            "values": [value[c].to_numpy() for c in value],
        }
        return {"_frame": _pack(columns, key, tensors), "_name": value.index.name}
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"{key} holds a {type(value).__name__}, which has no place in a saved model.")


def _unpack(value: Any, tensors: dict[str, np.ndarray]) -> Any:
    if not isinstance(value, dict):
        return value
    if "_list" in value:
        return [_unpack(item, tensors) for item in value["_list"]]
    if "_strings" in value:
        return np.array(value["_strings"], dtype=str)
    if "_tensor" in value:
        return tensors[value["_tensor"]]
    if "_csr" in value:
        part = _unpack(value["_csr"], tensors)
        return sp.csr_matrix((part["data"], part["indices"], part["indptr"]), shape=tuple(part["shape"]))
    if "_frame" in value:
        part = _unpack(value["_frame"], tensors)
        frame = pd.DataFrame(dict(zip(part["columns"], part["values"], strict=True)), index=part["index"])
        return frame.rename_axis(index=value["_name"])
    return {name: _unpack(item, tensors) for name, item in value.items()}
