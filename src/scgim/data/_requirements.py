"""Data requirements of a model, and refusal of training data that do not fit in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scgim._costs import MAX_CONTROLS, ScreenSize, cost
from scgim._memory import require_memory

from ._condition_statistics import KEYS

if TYPE_CHECKING:
    import pandas as pd

MAX_OWN = 2.5e8  # most numbers in the scatters of all conditions: 2 GB


@dataclass(frozen=True)
class DataRequirements:
    """Data requirements of a model in addition to means and pooled scatter."""

    own: bool = False  # scatter of every condition
    cells: bool = False  # sampled cells, and statistics of a nonlinear basis
    means: bool = False  # condition means with their errors, for a graph learned from means
    readout: bool = False  # statistics of the readout genes


def check_memory(table: pd.DataFrame, n_genes: int, needs: DataRequirements, *, readout: int = 0) -> None:
    """Raise if training does not fit in memory.

    Parameters
    ----------
    table
        Conditions of the training cells, :meth:`ScreenColumns.table`.
    n_genes, readout
        Numbers of genes of the panel and of readout genes.
    needs
        Data requirements of the model.

    Raises
    ------
    ValueError
        If the scatters of all conditions, conditions x genes x genes (x 16 for the basis of networks), are larger than 2 GB.
    MemoryError
        If half of the estimate is not available: the estimate is accurate to a factor of 2.
    """
    own = 0.0
    if needs.own:
        n = len(table[["control", *KEYS, "batch"]].drop_duplicates())
        own = n * (n_genes * (4 if needs.cells else 1)) ** 2
        if own > MAX_OWN:
            raise ValueError(
                f"Hard interventions (and scale_shift) need a scatter matrix for each of {n:,} conditions (drug x dose x line x batch): {8 * own / 1e9:.0f} GB "
                f"for {n_genes:,} genes, and at most {8 * MAX_OWN / 1e9:.0f} GB are taken. Choose fewer genes "
                "(sc.pp.highly_variable_genes), or use intervention='shift', which needs one matrix in all."
            )
    controls = table.loc[table["control"], "line"].value_counts().clip(upper=MAX_CONTROLS).sum()
    n = len(table.loc[~table["control"], [*KEYS]].drop_duplicates())
    size = ScreenSize(len(table), n_genes, n, int(controls), readout if needs.readout else 0)
    estimate = cost("training on means" if needs.means else "training on cells", size)
    require_memory(
        estimate.bytes / 2 + 8 * own,
        f"Arrays of training ({size.cells:,} cells, {n_genes:,} genes, {n:,} conditions)",
        "choose fewer genes (sc.pp.highly_variable_genes), declare genes as readout (setup_anndata(readout=...)), or use a machine with "
        "more memory",
    )
