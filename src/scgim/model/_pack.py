"""Nested values as JSON and arrays, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp


def pack(value: Any, key: str, tensors: dict[str, np.ndarray]) -> Any:
    """JSON of a value; numeric arrays are stored in ``tensors`` under their path in the tree."""
    if isinstance(value, dict):
        return {name: pack(item, f"{key}/{name}", tensors) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return {"_list": [pack(item, f"{key}/{i}", tensors) for i, item in enumerate(value)]}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind in "OUS":
        return {"_strings": value.astype(str).tolist()}
    if isinstance(value, np.ndarray):
        tensors[key] = np.array(value, order="C")  # ascontiguousarray would give a scalar a dimension
        return {"_tensor": key}
    if isinstance(value, sp.csr_matrix):
        parts = {"data": value.data, "indices": value.indices, "indptr": value.indptr, "shape": list(value.shape)}
        return {"_csr": pack(parts, key, tensors)}
    if isinstance(value, pd.DataFrame):
        columns = {
            "index": value.index.to_numpy(),
            "columns": list(value.columns),
            "values": [value[c].to_numpy() for c in value],
        }
        return {"_frame": pack(columns, key, tensors), "_name": value.index.name}
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"{key} holds a {type(value).__name__}, which has no place in a saved model.")


def unpack(value: Any, tensors: dict[str, np.ndarray]) -> Any:
    """The value of a JSON of :func:`pack`. Sparse matrices are checked, because scipy would read beyond arrays of wrong indices."""
    if not isinstance(value, dict):
        return value
    if "_list" in value:
        return [unpack(item, tensors) for item in value["_list"]]
    if "_strings" in value:
        return np.array(value["_strings"], dtype=str)
    if "_tensor" in value:
        return tensors[value["_tensor"]]
    if "_csr" in value:
        part = unpack(value["_csr"], tensors)
        matrix = sp.csr_matrix((part["data"], part["indices"], part["indptr"]), shape=tuple(part["shape"]))
        matrix.check_format(full_check=True)
        return matrix
    if "_frame" in value:
        part = unpack(value["_frame"], tensors)
        frame = pd.DataFrame(dict(zip(part["columns"], part["values"], strict=True)), index=part["index"])
        return frame.rename_axis(index=value["_name"])
    return {name: unpack(item, tensors) for name, item in value.items()}
