"""Predictions as an AnnData."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData

from scgim import _keys

if TYPE_CHECKING:
    from collections.abc import Iterator


class Block(NamedTuple):
    """Predicted values and controls ``(rows, genes)`` on the training scale, names of source cells, additive baseline."""

    x: np.ndarray
    control: np.ndarray
    names: np.ndarray
    additive: np.ndarray | None


def assemble(parts: Iterator[tuple[Block, dict]], order: np.ndarray, genes: np.ndarray, about: dict) -> AnnData:
    """One AnnData out of predicted blocks.

    Parameters
    ----------
    parts
        Blocks, and the obs columns that all rows of the block share.
    order
        Columns of the answer among the sorted genes.
    genes
        Their names.
    about
        Goes to ``.uns["scgim"]["prediction"]``.
    """
    values, controls, additive, sources, shared = [], [], [], [], []
    least = 0.0 if about["scale"] == "counts" and about["kind"] != "delta" else -np.inf  # a logarithm of counts
    for block, common in parts:
        values.append(np.maximum(block.x, least)[:, order].astype(np.float32))
        controls.append(block.control[:, order].astype(np.float32))
        # one drug alone is its own sum
        added = None if block.additive is None else np.maximum(block.additive, least)[:, order].astype(np.float32)
        additive.append(values[-1] if added is None else added)
        sources.append(block.names)
        shared.append(common)
    obs = pd.DataFrame(shared).iloc[np.repeat(np.arange(len(shared)), [len(names) for names in sources])]
    columns = [
        "drug",
        "smiles",
        "dose",
        "cell_line",
        "source_cell",
        "nearest_drug",
        "similarity",
        "dose_in_range",
        "trust",
        "evidence",
    ]
    columns += [column for column in obs.columns if column not in {*columns, "source_cell"}]
    obs = obs.reset_index(drop=True).assign(source_cell=np.concatenate(sources))[columns]
    for column in obs.columns:
        if obs[column].dtype == object:
            obs[column] = obs[column].astype(str).astype("category")
    obs.index = [f"{about['kind']}-{i}" for i in range(len(obs))]
    out = AnnData(np.concatenate(values), obs=obs, var=pd.DataFrame(index=pd.Index(genes, dtype=object)))
    out.layers[_keys.CONTROL_LAYER] = np.concatenate(controls)
    if "doses" in obs:
        out.layers[_keys.ADDITIVE_LAYER] = np.concatenate(additive)
    out.uns[_keys.UNS] = {"prediction": about}
    if about["scale"] != "continuous" and about["kind"] != "delta":
        out.uns["log1p"] = {}  # scanpy then knows that these are logarithms
    return out
