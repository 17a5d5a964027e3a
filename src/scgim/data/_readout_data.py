"""Statistics of the readout genes for their regression on the panel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scgim.module import ReadoutData, ReadoutReplicates

if TYPE_CHECKING:
    import scipy.sparse as sp

    from ._condition_statistics import ConditionStatistics
    from ._replicates import ReplicateMeans
    from ._scaling import Scaling


def readout_data(cells: ConditionStatistics, scaling: Scaling, replicates: ReplicateMeans | None = None) -> ReadoutData:
    """Statistics of panel and readout in pooled control SD. The changes of conditions are averages over batches, weighted by cells."""
    raw, leaves, treated = cells.raw, cells.raw.leaves, ~cells.control
    scale = readout_scale(cells)
    group, label, n = cells.group(scaling.groups)[treated], cells.label[treated] - 1, raw.n[treated]
    k = len(cells.conditions)
    total = np.bincount(label, n, minlength=k)

    def changes(mean: np.ndarray, unit: np.ndarray) -> np.ndarray:
        out = np.zeros((k, mean.shape[1]))
        np.add.at(out, label, (n / total[label])[:, None] * (mean[treated] - mean[cells.control][group]))
        return out / unit

    return ReadoutData(
        scatter=raw.scatter / np.outer(scaling.scale, scaling.scale),
        cross=leaves.cross / np.outer(scaling.scale, scale),
        squares=leaves.squares.sum(0) / scale**2,
        freedom=max(float(raw.n_cells) - len(raw.n), 1.0),
        panel=changes(raw.mean, scaling.scale),
        readout=changes(leaves.mean, scale),
        n=total,
        controls=total**2 / np.bincount(label, n**2 / scaling.size[group], minlength=k),
        replicates=None
        if replicates is None
        else ReadoutReplicates(
            replicates.replicates, label, replicates.units.raw.mean / scaling.scale, replicates.readout / scale
        ),
    )


def readout_summary(cells: ConditionStatistics, genes: np.ndarray, controls: sp.csr_matrix) -> dict:
    """What predictions of the readout genes need besides their regression.

    Names, control means of every group, pooled control SD, and values of the stored control cells.
    """
    mean = cells.raw.leaves.mean[cells.control]
    return {"genes": genes, "group_mean": mean, "scale": readout_scale(cells), "controls": controls}


def readout_scale(cells: ConditionStatistics) -> np.ndarray:
    """Pooled control SD of the readout genes, or their pooled SD within conditions; 1 for constant genes."""
    squares, n = cells.raw.leaves.squares, cells.raw.n
    control = squares[cells.control].sum(0) / n[cells.control].sum()
    variance = np.where(control > 0, control, squares.sum(0) / n.sum())
    return np.sqrt(np.where(variance > 0, variance, 1.0))
