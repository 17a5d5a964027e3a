"""Predictions as AnnData."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData

from scgim import _keys

if TYPE_CHECKING:
    from collections.abc import Iterator


Genes = Literal["all", "panel"]


class Block(NamedTuple):
    """Predicted values of an intervention in a line, on the training scale."""

    x: np.ndarray  # (rows, genes) predicted values
    control: np.ndarray  # (rows, genes) controls
    names: np.ndarray  # (rows,) names of the source cells
    additive: np.ndarray | None  # (rows, genes) additive baseline of a combination

    def not_negative(self, scale: str, as_: str) -> Block:
        """The block of log-normalized counts, which are not negative. A change is at least minus its control."""
        if scale != "counts":
            return self
        least = -self.control if as_ == "delta" else 0.0
        additive = None if self.additive is None else np.maximum(self.additive, least)
        return self._replace(x=np.maximum(self.x, least), additive=additive)


def assemble(parts: Iterator[tuple[Block, dict]], order: np.ndarray, genes: np.ndarray, about: dict) -> AnnData:
    """Join predicted blocks to an AnnData.

    Parameters
    ----------
    parts
        Blocks, each with the obs values of its rows.
    order
        Index of every output gene among the sorted genes.
    genes
        Names of the output genes.
    about
        Content of ``.uns["scgim"]["prediction"]``.
    """
    values, controls, additive, sources, shared = [], [], [], [], []
    for block, common in parts:
        block = block.not_negative(about["scale"], about["kind"])
        values.append(block.x[:, order].astype(np.float32))
        controls.append(block.control[:, order].astype(np.float32))
        # The additive baseline of a single drug is its prediction.
        added = None if block.additive is None else block.additive[:, order].astype(np.float32)
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
        out.uns["log1p"] = {}  # scanpy's mark of log-transformed values
    return out
