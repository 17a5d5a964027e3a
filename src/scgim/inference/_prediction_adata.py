"""Predictions as AnnData."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData

from scgim import _keys
from scgim._memory import available_memory, require_memory

if TYPE_CHECKING:
    from collections.abc import Iterator


Genes = Literal["all", "panel"]
ROW_BYTES = 400  # of obs, for a row
WORKING_ARRAYS = 5  # arrays of a block in double precision while it is predicted


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


class Blocks(NamedTuple):
    """Predicted blocks, each with the obs values of its rows."""

    sizes: list[int]  # number of rows of every block; the blocks of conditions that are not requested are not predicted
    parts: Iterator[tuple[Block, dict]]


def assemble(blocks: Blocks, order: np.ndarray, genes: np.ndarray, about: dict) -> AnnData:
    """Join predicted blocks to an AnnData.

    Parameters
    ----------
    blocks
        The blocks and their sizes.
    order
        Index of every output gene among the sorted genes.
    genes
        Names of the output genes.
    about
        Content of ``.uns["scgim"]["prediction"]``.
    """
    _require_room(blocks.sizes, len(order), about["kind"])
    shape = (sum(blocks.sizes), len(order))
    values, controls, additive = np.empty(shape, np.float32), np.empty(shape, np.float32), None
    n, sources, shared = 0, [], []
    for block, common in blocks.parts:
        rows = slice(n, n := n + len(block.names))
        block = block.not_negative(about["scale"], about["kind"])
        values[rows] = block.x[:, order]
        controls[rows] = block.control[:, order]
        if "doses" in common:
            additive = np.empty(shape, np.float32) if additive is None else additive
            # The additive baseline of a single drug is its prediction.
            single = block.additive is None
            additive[rows] = values[rows] if single else block.additive[:, order]
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
    out = AnnData(values[:n], obs=obs, var=pd.DataFrame(index=pd.Index(genes, dtype=object)))
    out.layers[_keys.CONTROL_LAYER] = controls[:n]
    if additive is not None:
        out.layers[_keys.ADDITIVE_LAYER] = additive[:n]
    out.uns[_keys.UNS] = {"prediction": about}
    if about["scale"] != "continuous" and about["kind"] != "delta":
        out.uns["log1p"] = {}  # scanpy's mark of log-transformed values
    return out


def _require_room(sizes: list[int], n_genes: int, kind: str) -> None:
    """Raise a MemoryError if the prediction does not fit; ``sizes`` are the numbers of rows of the blocks."""
    row = 2 * 4 * n_genes + ROW_BYTES
    working = 8 * WORKING_ARRAYS * n_genes * max(sizes, default=0)
    remedy = "predict some of the drugs at a time, for instance drug=model.drugs[:10]"
    if kind in ("cells", "samples"):
        fewer = int((available_memory() - working) / 2 / row / len(sizes))  # half of the memory remains free
        remedy = "ask for means (as_='mean')" + (f", for fewer cells (n_cells={fewer})" if fewer > 0 else "")
        remedy += ", or for one drug at a time (for drug in model.drugs: model.predict(drug=drug))"
    require_memory(row * sum(sizes) + working, f"{sum(sizes):,} predicted rows x {n_genes:,} genes", remedy)
