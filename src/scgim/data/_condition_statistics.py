"""Statistics of cells by condition, for training, validation and evaluation."""

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
    """Statistics by part. A part is a condition (drug x dose x line) in a batch, or the controls of a line in a batch.

    Parameters
    ----------
    reader
        Reader of the cells.
    parts
        Columns control, drug, dose, line, batch and further requested columns, one row per part, sorted.
    code
        Part of every cell in use, ``(cells in use,)``.
    raw
        Statistics of every part on the training scale, before standardization.
    """

    reader: ConditionReader
    parts: pd.DataFrame
    code: np.ndarray
    raw: SufficientStatistics

    @classmethod
    def read(
        cls,
        matrix: CellMatrix,
        table: pd.DataFrame,
        use: np.ndarray,
        *,
        more: Sequence[str] = (),
        own: bool = False,
        readout: bool = False,
    ) -> ConditionStatistics:
        """Read the cells in ``use`` once.

        Parameters
        ----------
        matrix, table
            Values of all cells of the AnnData, and their columns drug, dose, line, batch and control.
        use
            Cells to read, ``(cells,)`` bool.
        more
            Further columns of ``table`` that define parts.
        own
            Whether to compute the scatter of every part.
        readout
            Whether to read the readout genes in the same pass, as leaves of ``raw``.
        """
        parts, code = group_conditions(table[use], ("control", *KEYS, "batch", *more))
        reader = ConditionReader(matrix, table, use, parts, code)
        once = ConditionReader(matrix.with_readout(), table, use, parts, code) if readout else reader
        return cls(reader, parts, code, once.statistics(len(once.cells.columns), own=own))

    @cached_property
    def control(self) -> np.ndarray:
        """Parts that are controls, ``(parts,)`` bool."""
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
        """Label of every part: 0 for controls, else 1 + the index of the condition; ``(parts,)``."""
        label = np.zeros(len(self.parts), dtype=np.int64)
        label[~self.control] = 1 + self._grouped[1]
        return label

    def group(self, groups: pd.DataFrame) -> np.ndarray:
        """Control group (line x batch) of every part."""
        return control_group_of(self.parts, groups)

    def standardized(self, standard: Standardizer, groups: pd.DataFrame) -> SufficientStatistics:
        """Statistics of every part on the standardized scale. The cells are read again if lines differ in scale."""
        own = self.raw.own is not None
        return standardized_statistics(self.reader, standard, self.group(groups), own=own, raw=self.raw)
