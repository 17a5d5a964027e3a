"""Reading cells by condition: the passes over all of them, and samples of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from scgim.module import CellStore
from scgim.statistics import expand

if TYPE_CHECKING:
    from collections.abc import Callable

    from scgim.statistics import SufficientStatistics

    from ._matrix import CellMatrix

MAX_CONTROLS = 10_000  # kept of a line, for predictions without the data
MAX_CELLS, MAX_VALUES = 1_000, 10**8  # kept of a condition, and in all, for mechanisms that need cells
DOUBLE_PRODUCTS = 5e10  # beyond so many, those of single precision, which cost half and are as good to six digits


class Standardizer:
    """Cells of control groups on the standardised scale; ``centre`` and ``scale`` are ``(groups, genes)``."""

    def __init__(self, centre: np.ndarray, scale: np.ndarray) -> None:
        self.centre, self.scale = centre, scale

    def __call__(self, x: np.ndarray, group: np.ndarray) -> np.ndarray:
        return (x - self.centre[group]) / self.scale[group]

    @property
    def common(self) -> bool:
        """Whether all groups have one scale, so that scatters can be standardised after they were pooled."""
        return bool((self.scale == self.scale[0]).all())


class StandardizedCells:
    """Standardised cells, from cells and their conditions; small, because it travels to workers."""

    def __init__(self, standard: Standardizer, group: np.ndarray) -> None:
        self.standard, self.group = standard, group

    def __call__(self, x: np.ndarray, code: np.ndarray) -> np.ndarray:
        return self.standard(x, self.group[code])


class BasisExpansion:
    """Columns of the nonlinear score, from cells and their conditions; small, because it travels to workers."""

    def __init__(self, standard: Standardizer, group: np.ndarray) -> None:
        self.standard, self.group = standard, group

    def __call__(self, x: np.ndarray, code: np.ndarray) -> np.ndarray:
        return expand(self.standard(x, self.group[code]).astype(x.dtype))


class ConditionReader:
    """The cells in use and what condition each belongs to."""

    def __init__(
        self, cells: CellMatrix, table: pd.DataFrame, use: np.ndarray, fine: pd.DataFrame, code: np.ndarray
    ) -> None:
        self.cells, self.rows, self.n_conditions = cells, np.flatnonzero(use), len(fine)
        self.code = np.full(len(table), -1)
        self.code[use] = code

    def statistics(
        self, n_columns: int, *, own: bool, transform: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    ) -> SufficientStatistics:
        """Of the cells, or of what ``transform(x, code)`` makes of them and their conditions."""
        return self.cells.subset(self.rows).statistics(
            self.code,
            n_conditions=self.n_conditions,
            n_columns=n_columns,
            transform=transform,
            own=own,
            dtype=np.float32 if len(self.rows) * n_columns**2 > DOUBLE_PRODUCTS else np.float64,
        )


def standardized_statistics(
    reader: ConditionReader,
    standard: Standardizer,
    group: np.ndarray,
    *,
    own: bool,
    raw: SufficientStatistics | None = None,
) -> SufficientStatistics:
    """Statistics on the standardised scale, of conditions whose control group is ``group``.

    ``raw`` are those of the cells as they are, if they were read; where groups differ in scale, the cells are read once more.
    """
    d = standard.scale.shape[1]
    if not standard.common:
        return reader.statistics(d, own=own, transform=StandardizedCells(standard, group))
    raw = reader.statistics(d, own=own) if raw is None else raw
    return raw.standardize(standard.centre[group], standard.scale[0])


def sample_rows(label: np.ndarray, most: np.ndarray | int, rng: np.random.Generator) -> np.ndarray:
    """At most so many rows of every label, drawn at random; ascending. ``most`` is one number, or one a label."""
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
    """Some cells of every condition, chosen at random where there are too many; ``empty``: labels below it have none."""
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
    """Control group (line x batch) of every row."""
    return pd.MultiIndex.from_frame(groups).get_indexer(pd.MultiIndex.from_frame(rows[["line", "batch"]]))
