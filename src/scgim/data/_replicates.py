"""Replicates of the training conditions."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from scgim.statistics import Replicates

from ._condition_statistics import KEYS, ConditionStatistics
from ._design import group_conditions

if TYPE_CHECKING:
    import pandas as pd

    from scgim.statistics import SizeFactors

    from ._scaling import Scaling

PART = ("control", *KEYS, "batch")
CONDITION = ("control", *KEYS)


class ReplicateMeans(NamedTuple):
    """Replicates, their standardized means ``(units, genes)``, and statistics of the units before standardization.

    ``readout`` are means of the readout genes before standardization, ``(units, readout)``, or ``None``.
    """

    replicates: Replicates
    mean: np.ndarray
    units: ConditionStatistics
    readout: np.ndarray | None

    @classmethod
    def read(cls, cells: ConditionStatistics, table: pd.DataFrame, use: np.ndarray, scaling: Scaling) -> ReplicateMeans:
        """Read the cells of ``cells`` by replicate; ``table`` and ``use`` are those of :meth:`ConditionStatistics.read`.

        The readout genes are read if ``cells`` has them.
        """
        units = ConditionStatistics.read(cells.reader.cells, table, use, more=("replicate",))
        part, replicate = (group_conditions(units.parts, keys)[1] for keys in (PART, (*CONDITION, "replicate")))
        group = cells.group(scaling.groups)[~cells.control]
        found = Replicates.of(units.raw.n, part, replicate, np.flatnonzero(cells.control), group)
        readout = None if cells.raw.leaves is None else units.reader.readout_means()
        return cls(found, scaling.standard(units.raw.mean, units.group(scaling.groups)), units, readout)

    def counts(self, sizes: SizeFactors) -> tuple[Replicates, np.ndarray]:
        """The replicates, and counts of every unit with its size factor as last column, ``(units, genes + 1)``."""
        reader = copy.copy(self.units.reader)
        reader.cells = reader.cells.counts()
        totals = reader.statistics(sizes.rate.shape[1] + 1, own=False)
        sums = totals.n[:, None] * totals.mean
        return self.replicates, np.column_stack([sums[:, :-1], sizes.of(sums)])
