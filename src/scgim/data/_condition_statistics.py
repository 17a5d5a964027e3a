"""Statistics of some cells of a screen, condition by condition: what training, validation and evaluation read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ._design import group_conditions
from ._reader import ConditionReader, Standardizer, control_group_of, standardized_statistics

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from scgim.statistics import SufficientStatistics

    from ._matrix import CellMatrix

KEYS = ("drug", "dose", "line")


@dataclass(frozen=True)
class ConditionStatistics:
    """Cells by part: a part is a condition (drug x dose x line) in a batch, or the controls of a line in a batch.

    Parameters
    ----------
    reader
        Of the cells.
    parts
        Columns control, drug, dose, line, batch and more that were asked for, one row a part, sorted.
    code
        Part of every cell in use, ``(cells in use,)``.
    raw
        Statistics of every part, of the values as they are.
    """

    reader: ConditionReader
    parts: pd.DataFrame
    code: np.ndarray
    raw: SufficientStatistics

    @classmethod
    def read(
        cls, matrix: CellMatrix, table: pd.DataFrame, use: np.ndarray, *, more: Sequence[str] = (), own: bool = False
    ) -> ConditionStatistics:
        """Read the cells in ``use`` once.

        Parameters
        ----------
        matrix, table
            All cells of the AnnData: their values, and their drug, dose, line, batch and whether they are controls.
        use
            Which cells, ``(cells,)`` bool.
        more
            Further columns of ``table`` that split parts.
        own
            Whether every part's own scatter is wanted.
        """
        parts, code = group_conditions(table[use], ("control", *KEYS, "batch", *more))
        reader = ConditionReader(matrix, table, use, parts, code)
        return cls(reader, parts, code, reader.statistics(len(matrix.columns), own=own))

    @cached_property
    def control(self) -> np.ndarray:
        """Which parts are controls, ``(parts,)`` bool."""
        return self.parts["control"].to_numpy()

    @cached_property
    def _grouped(self) -> tuple[pd.DataFrame, np.ndarray]:
        return group_conditions(self.parts[~self.control], KEYS)

    @property
    def conditions(self) -> pd.DataFrame:
        """Drug, dose and line of every condition, sorted."""
        return self._grouped[0]

    @cached_property
    def label(self) -> np.ndarray:
        """Number of every part: 0 for controls, then 1 + that of its condition; ``(parts,)``."""
        label = np.zeros(len(self.parts), dtype=np.int64)
        label[~self.control] = 1 + self._grouped[1]
        return label

    def group(self, groups: pd.DataFrame) -> np.ndarray:
        """Control group (line x batch) of every part."""
        return control_group_of(self.parts, groups)

    def standardized(self, standard: Standardizer, groups: pd.DataFrame) -> SufficientStatistics:
        """Statistics of every part on the standardised scale; one more reading where lines differ in scale."""
        own = self.raw.own is not None
        return standardized_statistics(self.reader, standard, self.group(groups), own=own, raw=self.raw)
