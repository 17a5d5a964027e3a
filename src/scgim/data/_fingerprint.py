"""Hashes of a screen at set-up, which show later whether the data are still those that were validated."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scgim.statistics._blocks import is_dask
from scgim.statistics._value_scan import dense

if TYPE_CHECKING:
    from ._registered_screen import RegisteredScreen

ROWS = 16  # cells at the beginning, in the middle and at the end, whose values are hashed
KEYS = {
    "drug": "drug_key",
    "control": "drug_key",
    "dose": "dose_key",
    "line": "cell_line_key",
    "batch": "batch_key",
    "train": "split_key",
    "replicate": "replicate_key",
}


def fingerprint(screen: RegisteredScreen) -> dict[str, str]:
    """Hashes of the names of genes, of the columns of the conditions, and of the values of some cells.

    The values of all cells would take another pass. A transformation of the matrix, such as a logarithm, changes every cell.
    """
    table = screen.conditions
    found = {"n_cells": str(len(table)), "genes": _hash("\n".join(screen.gene_columns.names).encode())}
    for name in table.columns:
        hashes = pd.util.hash_pandas_object(table[name].reset_index(drop=True), index=False)
        found[f"column {name}"] = _hash(hashes.to_numpy().tobytes())
    return found | {"values": _values(screen)}


def check_unchanged(screen: RegisteredScreen, known: dict[str, str]) -> None:
    """Raise ValueError if the screen differs from its fingerprint at set-up. The message names what changed."""
    now = fingerprint(screen)
    changed = [name for name in known if now.get(name) != known[name]]
    if not changed:
        return
    if "n_cells" in changed:
        what = f"it has {now['n_cells']} cells, and had {known['n_cells']}"
    elif "genes" in changed:
        what = "the names of genes or their order changed"
    elif columns := sorted({_key(screen, name.removeprefix("column ")) for name in changed if name != "values"}):
        what = f"{', '.join(columns)} changed"
    else:
        what = f"values in {screen.matrix(adjusted=False).where} changed"
    raise ValueError(
        f"adata is not as it was at set-up: {what}. Run scgim.setup_anndata(adata, ...) again, and make a new model of it: GIM(adata)."
    )


def _key(screen: RegisteredScreen, name: str) -> str:
    key = screen.setup.get(KEYS.get(name, ""))
    return name if key is None else f"obs[{key!r}]"


def _values(screen: RegisteredScreen) -> str:
    matrix = screen.matrix(adjusted=False).matrix
    n = matrix.shape[0]
    starts = (0,) if is_dask(matrix) else sorted({0, max(0, n // 2 - ROWS), max(0, n - ROWS)})
    parts = (matrix[start : min(start + ROWS, n)] for start in starts)
    blocks = (dense(part.compute() if hasattr(part, "compute") else part) for part in parts)
    return _hash(b"".join(np.ascontiguousarray(block, dtype=np.float64).tobytes() for block in blocks))


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
