"""What training learned of the data, in plain arrays: enough for every verb without an AnnData."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from scgim._checks import listed
from scgim.module import Contexts, Controls
from scgim.statistics import Statistics, accumulate

from ._cells import data_hash
from ._design import Design, contexts_of

if TYPE_CHECKING:
    import scipy.sparse as sp

    from ._cells import Cells

MAX_CONTROLS = 10_000  # a line


@dataclass(frozen=True)
class Fitted:
    """Scaling, design, sufficient statistics and control cells of the training rows.

    Parameters
    ----------
    genes
        Sorted names; the order of every array here.
    scale
        Pooled control standard deviation in training units, ``(genes,)``.
    group_line, group_batch, group_mean, group_size
        Control groups (line x batch): names, control means ``(groups, genes)`` and cells.
    design, statistics
        Treated contexts; their standardised statistics with the controls as context 0.
    controls, control_group, control_names
        Up to 10,000 control cells a line on the training scale, sparse; the group and name of each.
    data_hash
        Of the statistics and the design.
    """

    genes: np.ndarray
    scale: np.ndarray
    group_line: np.ndarray
    group_batch: np.ndarray
    group_mean: np.ndarray
    group_size: np.ndarray
    design: Design
    statistics: Statistics
    controls: sp.csr_matrix
    control_group: np.ndarray
    control_names: np.ndarray
    data_hash: str

    def line_mean(self, line: str) -> np.ndarray:
        """Control mean of a line over its batches, training scale, ``(genes,)``."""
        rows = self.group_line == line
        return np.average(self.group_mean[rows], axis=0, weights=self.group_size[rows])

    def standardised_controls(self) -> torch.Tensor:
        """Control cells minus their group's mean over the scale, ``(cells, genes)``."""
        x = self.controls.toarray().astype(np.float64)
        return torch.as_tensor((x - self.group_mean[self.control_group]) / self.scale)

    def batch(self) -> tuple[Contexts, Controls]:
        """Statistics and design as tensors, as the module takes them."""
        n, mean, scatter = (
            torch.as_tensor(a) for a in (self.statistics.n, self.statistics.mean, self.statistics.scatter)
        )
        return Contexts(n[1:, None], mean[1:], *self.design.inputs()), Controls(n[0], mean[:1], scatter)


def collect(
    cells: Cells,
    table: pd.DataFrame,
    genes: np.ndarray,
    features: pd.DataFrame,
    *,
    seed: int,
    held: np.ndarray | None = None,
) -> tuple[Fitted, Contexts | None]:
    """One pass over the training cells.

    Parameters
    ----------
    cells, table
        The cells and, for every cell of the AnnData, its drug, dose, line, batch and whether it is control and train.
    genes, features
        Sorted gene names; raw features of all registered drugs.
    seed
        Of the choice of control cells to keep.
    held
        Validation cells, ``(cells,)`` bool: left out of everything but the second answer.
    """
    use = table["train"].to_numpy() if held is None else table["train"].to_numpy() & ~held
    raw, fine = _statistics(cells, table, use, len(genes))
    control = fine["control"].to_numpy()
    groups = fine.loc[control, ["line", "batch"]].reset_index(drop=True)
    group_mean, group_size = raw.mean[control], raw.n[control]
    scale = _control_scale(raw, control, genes)

    own = _group_of(fine, groups)
    contexts, code = contexts_of(fine[~control], ("drug", "dose", "line"))
    label = np.zeros(len(fine), dtype=np.int64)
    label[~control] = 1 + code
    statistics = raw.standardise(group_mean[own], scale).merge(label)
    lines = np.unique(groups["line"].to_numpy(str))
    design = Design.build(contexts, features, lines)

    kept = _choose_controls(table, use, seed)
    fitted = Fitted(
        genes=genes,
        scale=scale,
        group_line=groups["line"].to_numpy(str),
        group_batch=groups["batch"].to_numpy(str),
        group_mean=group_mean,
        group_size=group_size,
        design=design,
        statistics=statistics,
        controls=cells.take(kept),
        control_group=_group_of(table.iloc[kept], groups),
        control_names=cells.obs_names[kept].to_numpy(str),
        data_hash=data_hash(raw.n, raw.mean, raw.scatter, features.to_numpy(np.float64)),
    )
    if held is None:
        return fitted, None
    raw, fine = _statistics(cells, table, held, len(genes))
    contexts, label = contexts_of(fine, ("drug", "dose", "line"))
    statistics = raw.standardise(group_mean[_group_of(fine, groups)], scale).merge(label)
    names = contexts["drug"].to_numpy(str)
    known = np.searchsorted(design.drugs, names).clip(max=len(design.drugs) - 1)
    index = np.where(design.drugs[known] == names, known, -1)
    inputs = design.encode(
        features.loc[names].to_numpy(np.float64) / design.feature_scale, index, contexts["dose"].to_numpy(float)
    )
    return fitted, Contexts(torch.as_tensor(statistics.n[:, None]), torch.as_tensor(statistics.mean), *inputs)


def _statistics(cells: Cells, table: pd.DataFrame, use: np.ndarray, n_genes: int) -> tuple[Statistics, pd.DataFrame]:
    """Raw statistics of the cells in use by control, drug, dose, line and batch, and what each context is."""
    fine, code = contexts_of(table[use], ("control", "drug", "dose", "line", "batch"))
    at = np.full(len(table), -1)
    at[use] = code
    chunks = ((x, at[rows]) for rows, x in cells.subset(np.flatnonzero(use)))
    return accumulate(chunks, n_contexts=len(fine), n_genes=n_genes), fine


def _control_scale(raw: Statistics, control: np.ndarray, genes: np.ndarray) -> np.ndarray:
    """Pooled sd of controls within their groups; a gene constant in them takes its sd within all contexts."""
    variance = raw.squares[control].sum(0) / raw.n[control].sum()
    within = raw.squares.sum(0) / raw.n.sum()
    # below this it is the rounding of sums of squares, which grows with how far the contexts lie apart
    tiny = 1e-12 * ((raw.mean - raw.mean.mean(0)) ** 2).max(0) + 1e-28 * (raw.mean**2).max(0)
    variance = np.where(variance > tiny, variance, within)
    if (variance <= tiny).any():
        raise ValueError(
            f"{int((variance <= tiny).sum())} genes do not vary within any context, e.g. {listed(genes[variance <= tiny])}, so nothing scales their "
            "effects. Drop them, or use more cells per context."
        )
    return np.sqrt(variance)


def _group_of(rows: pd.DataFrame, groups: pd.DataFrame) -> np.ndarray:
    """Control group (line x batch) of every row."""
    return pd.MultiIndex.from_frame(groups).get_indexer(pd.MultiIndex.from_frame(rows[["line", "batch"]]))


def _choose_controls(table: pd.DataFrame, use: np.ndarray, seed: int) -> np.ndarray:
    """Row numbers of the control cells to keep, ascending."""
    rng, kept = np.random.default_rng(seed), []
    rows = np.flatnonzero(use & table["control"].to_numpy())
    line = table["line"].to_numpy()[rows]
    for name in np.unique(line.astype(str)):
        own: Any = rows[line == name]
        kept.append(own if len(own) <= MAX_CONTROLS else rng.choice(own, MAX_CONTROLS, replace=False))
    return np.sort(np.concatenate(kept))


def hold_out(table: pd.DataFrame, share: float, seed: int) -> np.ndarray:
    """Cells of a random share of the training contexts, whole; at least one context and never all, ``(cells,)`` bool."""
    use = (table["train"] & ~table["control"]).to_numpy()
    contexts, code = contexts_of(table[use], ("drug", "dose", "line"))
    if len(contexts) < 2:
        raise ValueError("A validation set needs at least two contexts; train with train_size=1.")
    n = min(max(1, round(share * len(contexts))), len(contexts) - 1)
    chosen = np.random.default_rng(seed).choice(len(contexts), n, replace=False)
    held = np.zeros(len(table), dtype=bool)
    held[use] = np.isin(code, chosen)
    return held
