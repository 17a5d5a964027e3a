"""Predicted cells: interventions from the generator, run through the causal model from control cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
import torch
from anndata import AnnData

from scgim import _keys
from scgim.module import counterfactual, draw_noise, propagate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from scgim.module import GIMModule

    from ._controls import Sources

As = Literal["cells", "samples", "mean", "delta"]
Targets = Literal["expectation", "map", "sample"]


class Predictor:
    """Runs interventions through a fitted causal model.

    Parameters
    ----------
    module
        With a graph.
    levels
        Genes by depth of the DAG.
    scale
        Units of the standardised scale, ``(genes,)``.
    seed
        Of everything drawn.
    """

    def __init__(self, module: GIMModule, levels: Sequence[Tensor], scale: np.ndarray, seed: int) -> None:
        self.mechanism, self.levels, self.scale = module.mechanism, levels, scale
        self.rng, self.generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def rows(
        self, source: Sources, as_: As, n_cells: int | None, change: Change
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Predicted values and controls ``(rows, genes)`` on the training scale, and names of source cells."""
        picked, centre = self._pick(source, as_, n_cells)
        if as_ == "samples":
            noise = draw_noise(self.mechanism, n_cells or source.x.shape[0], self.generator)
            z = propagate(self.mechanism, self.levels, noise, **change.at(len(noise)))
            x = source.mean + z.numpy() * self.scale
            return x, np.broadcast_to(source.mean, x.shape), np.full(len(x), "")
        if as_ == "cells" or not self.mechanism.affine:
            x = source.x[picked].toarray().astype(np.float64)
            z = torch.as_tensor((x - centre) / self.scale)
            moved = counterfactual(self.mechanism, self.levels, z, **change.at(len(z)))
            x_moved = x + (moved - z).numpy() * self.scale
            if as_ == "cells":
                return x_moved, x, source.names[picked]
            delta = (x_moved - x).mean(0, keepdims=True)
        else:
            zero = torch.zeros(1, len(self.scale), dtype=torch.float64)
            delta = (counterfactual(self.mechanism, self.levels, zero, **change.at(1)) - zero).numpy() * self.scale
        control = source.mean[None]
        return (delta if as_ == "delta" else control + delta), control, np.array([""])

    def _pick(self, source: Sources, as_: As, n_cells: int | None) -> tuple[np.ndarray, np.ndarray]:
        """Source cells in use, all or ``n_cells`` of them, and the mean that each is measured against."""
        rows = np.arange(source.x.shape[0])
        if as_ == "cells" and n_cells is not None and n_cells < len(rows):
            rows = np.sort(self.rng.choice(rows, n_cells, replace=False))
        return rows, source.centre[rows] if source.centre.ndim == 2 else source.centre


class Change:
    """One intervention on the standardised scale: a shift of every gene, or genes set to a value."""

    def __init__(self, shift: np.ndarray, fixed: dict[int, float] | None = None) -> None:
        self.shift, self.fixed = torch.as_tensor(shift, dtype=torch.float64), fixed

    def at(self, n_rows: int) -> dict:
        """Arguments of :func:`~scgim.module.propagate` for so many cells."""
        return {"shift": self.shift, "fixed": self.fixed}


class DrugChange(Change):
    """An intervention drawn by the generator: probabilities and shifts, ``(genes,)`` each."""

    def __init__(self, probability: np.ndarray, shift: np.ndarray, targets: Targets, rng: np.random.Generator) -> None:
        weight = {"expectation": probability, "map": (probability > 0.5).astype(float)}.get(targets, probability)
        super().__init__(weight * shift)
        self.draw = (probability, shift, rng) if targets == "sample" else None

    def at(self, n_rows: int) -> dict:
        """Every cell draws its own targets if targets are sampled."""
        if self.draw is None:
            return super().at(n_rows)
        probability, shift, rng = self.draw
        return {"shift": torch.as_tensor((rng.random((n_rows, len(shift))) < probability) * shift), "fixed": None}


def assemble(
    parts: Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, dict]], order: np.ndarray, genes: np.ndarray, about: dict
) -> AnnData:
    """One AnnData out of predicted blocks.

    Parameters
    ----------
    parts
        Blocks of values, controls, source names, and the obs columns that all rows of the block share.
    order
        Columns of the answer among the sorted genes.
    genes
        Their names.
    about
        Goes to ``.uns["scgim"]["prediction"]``.
    """
    values, controls, sources, shared = [], [], [], []
    for x, control, names, common in parts:
        values.append(x[:, order].astype(np.float32))
        controls.append(control[:, order].astype(np.float32))
        sources.append(names)
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
    ]
    obs = obs.reset_index(drop=True).assign(source_cell=np.concatenate(sources))[columns]
    for column in obs.columns:
        if obs[column].dtype == object:
            obs[column] = obs[column].astype(str).astype("category")
    obs.index = [f"{about['kind']}-{i}" for i in range(len(obs))]
    out = AnnData(np.concatenate(values), obs=obs, var=pd.DataFrame(index=pd.Index(genes, dtype=object)))
    out.layers[_keys.CONTROL_LAYER] = np.concatenate(controls)
    out.uns[_keys.UNS] = {"prediction": about}
    if about["scale"] != "continuous" and about["kind"] != "delta":
        out.uns["log1p"] = {}  # scanpy then knows that these are logarithms
    return out
