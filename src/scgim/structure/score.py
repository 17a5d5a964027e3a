"""The decomposable, target-robust score of a parent set."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from scgim.statistics import ConditionMeans

from .kernels import CellData, MeanData, error_variances, fit_gene

if TYPE_CHECKING:
    from scgim.statistics import SufficientStatistics

Intervention = Literal["shift", "hard"]
_RIDGE = 1e-3
SLAB, MISFIT, FLOOR, MISMATCH = (
    1.0,
    0.25,
    0.06,
    0.08,
)  # of the means' likelihood, see :class:`~scgim.structure.kernels.MeanData`


@dataclass(frozen=True)
class LocalFit:
    """The regressions on a graph: ``weight`` (columns, genes), ``intercept`` and ``variance`` (genes,), ``moved``."""

    weight: np.ndarray
    intercept: np.ndarray
    variance: np.ndarray
    moved: np.ndarray  # (conditions, genes) bool: which mechanisms a condition touches
    error: np.ndarray | None = None  # (conditions, genes) variance of an untouched condition's residual, if from means


def score_data(
    statistics: SufficientStatistics | ConditionMeans,
    *,
    columns: int = 1,
    intervention: Intervention = "shift",
    target_penalty: float | None = None,
    penalty: float | None = None,
) -> CellData | MeanData:
    r"""What :func:`local_score` takes as ``data``: of all cells, or of the conditions' means, which is all that a search sees of it.

    *Cells.* Where they leave fewer degrees of freedom :math:`f = \max(N - K, 0)` than there are columns :math:`C`, the
    within-condition scatter is singular, and the score is that of the scatter plus the ridge
    :math:`10^{-3} N (1 - f / C)`, in control variances, on its diagonal. With :math:`f \ge C` nothing is added.

    Parameters
    ----------
    statistics
        On the standardized scale, condition 0 the controls; or :class:`~scgim.statistics.ConditionMeans`.
    columns
        Columns per gene, the first of which is its own value. Of means always 1.
    intervention
        What conditions do to a gene: ``"hard"`` needs ``statistics.own``, if it is cells.
    charge
        Nats that a target costs, by default 6; of means :math:`\log(d - 1)`.
    penalty
        Of cells, the price of a column in BICs: by default 2 for one column a gene, else .7. Of means, that of a parent in
        :math:`\tfrac12 \log d`, by default 1.

    Returns
    -------
    Named arrays for the kernels; means are transposed, because a column's means are read together.

    Raises
    ------
    ValueError
        If ``intervention`` is unknown, or hard and every condition's own scatter is missing.
    """
    if intervention not in ("shift", "hard"):
        raise ValueError(f"intervention={intervention!r} is neither 'shift' nor 'hard'.")
    if isinstance(statistics, ConditionMeans):
        return _mean_data(statistics, hard=intervention == "hard", target_penalty=target_penalty, penalty=penalty)
    target_penalty = 6.0 if target_penalty is None else target_penalty
    # a read-only array would be a type of its own to numba, and compiled for anew
    n, scatter = (np.require(a, np.float64, ["C", "W"]) for a in (statistics.n, statistics.scatter))
    mean = np.ascontiguousarray((statistics.mean - statistics.mean[0]).T)
    weighted = mean * n
    own = np.empty((0, 0, 0))
    if intervention == "hard":
        if statistics.own is None:
            raise ValueError("Hard interventions need every condition's own scatter: accumulate(..., own=True).")
        own = np.ascontiguousarray(statistics.own.transpose(1, 2, 0))
    cells = float(n.sum())
    lack = 1 - max(cells - len(n), 0) / len(scatter)
    if lack > 0:
        scatter = scatter + _RIDGE * cells * lack * np.eye(len(scatter))
    penalty = (2.0 if columns == 1 else 0.7) if penalty is None else float(penalty)
    moments = weighted.sum(1), scatter, weighted @ mean.T
    return CellData(n, mean, *moments, own, cells, float(target_penalty), penalty, int(columns))


def _mean_data(means: ConditionMeans, *, hard: bool, target_penalty: float | None, penalty: float | None) -> MeanData:
    d = len(means.latent)
    # as above, arrays that numba would take for other types are copied
    by_gene = {name: np.array(getattr(means, name).T, order="C") for name in ("change", "variance", "control")}
    names = ("n", "line", "correlation", "latent", "reliability")
    return MeanData(
        **by_gene,
        **{name: np.require(getattr(means, name), requirements=["C", "W"]) for name in names},
        cells=float(means.n_cells),
        target_penalty=math.log(max(d - 1, 2)) if target_penalty is None else float(target_penalty),
        penalty=(1.0 if penalty is None else float(penalty)) * 0.5 * math.log(max(d, 2)),
        columns=1,
        slab=SLAB,
        misfit=MISFIT,
        floor=FLOOR,
        mismatch=MISMATCH,
        hard=hard,
    )


def fit_graph(
    graph: np.ndarray,
    statistics: SufficientStatistics | ConditionMeans,
    *,
    columns: int = 1,
    intervention: Intervention = "shift",
    target_penalty: float | None = None,
) -> LocalFit:
    """The regressions behind the score of a whole graph.

    Parameters
    ----------
    graph
        ``(genes, genes)`` bool, row = source.
    statistics, columns, intervention, charge
        See :func:`score_data`.

    Returns
    -------
    ``weight[i * columns + b, j]`` is the coefficient of column ``b`` of gene ``i`` in gene ``j``.
    """
    data = score_data(statistics, columns=columns, intervention=intervention, target_penalty=target_penalty)
    d, columns, conditions = len(graph), data.columns, len(data.n)
    weight, intercept, variance = np.zeros((d, columns, d)), np.empty(d), np.empty(d)
    moved, error = np.empty((d, conditions), dtype=np.bool_), np.empty((d, conditions))
    for j in range(d):
        parents = np.flatnonzero(graph[:, j])
        w = np.empty(len(parents) * columns)
        _, intercept[j], variance[j] = fit_gene(j, parents, len(parents), data, w, moved[j])
        weight[parents, :, j] = w.reshape(-1, columns)
        if isinstance(data, MeanData):
            error[j] = error_variances(j, parents, data, w)
    weight = weight.reshape(d * columns, d)
    if isinstance(data, MeanData):
        return LocalFit(weight, intercept, variance, moved.T, error.T)
    # the kernels know means less those of the controls
    intercept += statistics.mean[0, ::columns] - statistics.mean[0] @ weight
    return LocalFit(weight, intercept, variance, moved.T)
