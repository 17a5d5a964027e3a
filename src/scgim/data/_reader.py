"""Reading of cells by condition: passes over all cells, and samples of cells."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from scgim._costs import MAX_CONTROLS
from scgim.module import CellStore
from scgim.statistics import expand

if TYPE_CHECKING:
    from collections.abc import Callable

    from scgim.statistics import SufficientStatistics

    from ._matrix import CellMatrix

MAX_CELLS, MAX_VALUES = (
    1_000,
    10**8,
)  # most sampled cells per condition, and most values in all, for nonlinear mechanisms
DOUBLE_PRODUCTS = 5e10  # with more products, single precision is used: half the time, equal to six digits


class Standardizer:
    """Converts cells of control groups to the standardized scale; ``center`` and ``scale`` are ``(groups, genes)``."""

    def __init__(self, center: np.ndarray, scale: np.ndarray) -> None:
        self.center, self.scale = center, scale

    def __call__(self, x: np.ndarray, group: np.ndarray) -> np.ndarray:
        return (x - self.center[group]) / self.scale[group]

    @property
    def common(self) -> bool:
        """Whether all groups have the same scale, so that pooled scatters can be standardized."""
        return bool((self.scale == self.scale[0]).all())


class StandardizedCells:
    """Standardized cells from cells and their conditions. The object is small, because it is sent to workers."""

    def __init__(self, standard: Standardizer, group: np.ndarray) -> None:
        self.standard, self.group = standard, group

    def __call__(self, x: np.ndarray, code: np.ndarray) -> np.ndarray:
        return self.standard(x, self.group[code])


class BasisExpansion:
    """Basis functions of the nonlinear score from cells and their conditions. The object is small, because it is sent to workers."""

    def __init__(self, standard: Standardizer, group: np.ndarray) -> None:
        self.standard, self.group = standard, group

    def __call__(self, x: np.ndarray, code: np.ndarray) -> np.ndarray:
        return expand(self.standard(x, self.group[code]).astype(x.dtype))


class ConditionReader:
    """The cells in use and their conditions."""

    def __init__(
        self, cells: CellMatrix, table: pd.DataFrame, use: np.ndarray, fine: pd.DataFrame, code: np.ndarray
    ) -> None:
        self.cells, self.rows, self.n_conditions = cells, np.flatnonzero(use), len(fine)
        self.code = np.full(len(table), -1)
        self.code[use] = code

    def statistics(
        self, n_columns: int, *, own: bool, transform: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    ) -> SufficientStatistics:
        """Statistics of the cells, or of the output of ``transform(x, code)`` for cells and their conditions."""
        products = len(self.rows) * n_columns * (n_columns - self.cells.n_leaves)
        return self.cells.subset(self.rows).statistics(
            self.code,
            n_conditions=self.n_conditions,
            n_columns=n_columns,
            transform=transform,
            own=own,
            dtype=np.float32 if products > DOUBLE_PRODUCTS else np.float64,
        )

    def readout_means(self) -> np.ndarray:
        """Means of the readout genes in every condition, from a pass without products; ``(conditions, readout)``."""
        whole, panel = copy.copy(self), len(self.cells.columns)
        whole.cells = self.cells.with_readout()
        whole.cells.n_leaves = len(whole.cells.columns)
        return whole.statistics(whole.cells.n_leaves, own=False).leaves.mean[:, panel:]


def standardized_statistics(
    reader: ConditionReader,
    standard: Standardizer,
    group: np.ndarray,
    *,
    own: bool,
    raw: SufficientStatistics | None = None,
) -> SufficientStatistics:
    """Statistics on the standardized scale of conditions with control groups ``group``.

    ``raw`` are the statistics before standardization, if they were computed. The cells are read again if groups differ in scale.
    """
    d = standard.scale.shape[1]
    if not standard.common:
        return reader.statistics(d, own=own, transform=StandardizedCells(standard, group))
    raw = reader.statistics(d, own=own) if raw is None else raw
    return raw.standardize(standard.center[group], standard.scale[0])


def sample_rows(label: np.ndarray, most: np.ndarray | int, rng: np.random.Generator) -> np.ndarray:
    """Indices of at most ``most`` random rows of every label, ascending; ``most`` is a number, or a number per label."""
    size = np.bincount(label)
    order = np.lexsort((rng.random(len(label)), label))
    place = np.empty(len(label), dtype=np.int64)
    place[order] = np.arange(len(label)) - np.repeat(np.cumsum(size) - size, size)
    return np.flatnonzero(place < np.broadcast_to(most, size.shape)[label])


def sample_cells(
    cells: CellMatrix,
    rows: np.ndarray,
    label: np.ndarray,
    group: np.ndarray,
    standard: Standardizer,
    seed: int,
    *,
    empty: int = 0,
) -> CellStore:
    """Sample cells of every condition, at random if there are too many; labels below ``empty`` have no cells."""
    size = np.bincount(label)
    most = max(10, min(MAX_CELLS, MAX_VALUES // (len(cells.columns) * max(1, len(size)))))
    chosen = sample_rows(
        label,
        np.where(np.arange(len(size)) == 0, max(most, MAX_CONTROLS if not empty else 0), most),
        np.random.default_rng(seed),
    )
    parts, at = [], 0
    for part, x in cells.subset(rows[chosen]):
        own = chosen[at : at + len(part)]
        parts.append(standard(x, group[own]).astype(np.float32))
        at += len(part)
    order = np.argsort(label[chosen], kind="stable")
    x = torch.as_tensor(np.concatenate(parts)[order])
    return CellStore(x, torch.as_tensor(np.bincount(label[chosen], minlength=len(size))))


def control_group_of(rows: pd.DataFrame, groups: pd.DataFrame) -> np.ndarray:
    """Control group (line x batch) of every row.

    Raises
    ------
    ValueError
        If a row has no group.
    """
    places = pd.MultiIndex.from_frame(rows[["line", "batch"]])
    group = pd.MultiIndex.from_frame(groups).get_indexer(places)
    if (group < 0).any():
        line, batch = places[group < 0][0]
        raise ValueError(
            f"There are no training controls for line {line!r}, batch {batch!r}, so changes there have no reference. Mark its controls as "
            "'train', or drop its cells."
        )
    return group
