"""The decomposable, target-robust score of a parent set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from .kernels import fit_gene

if TYPE_CHECKING:
    from scgim.statistics import Statistics

Intervention = Literal["shift", "hard"]
_RIDGE = 1e-3


@dataclass(frozen=True)
class LocalFit:
    """Least squares on a graph: ``weight`` (columns, genes), ``intercept`` and ``variance`` (genes,), ``moved``."""

    weight: np.ndarray
    intercept: np.ndarray
    variance: np.ndarray
    moved: np.ndarray  # (contexts, genes) bool: which mechanisms a context touches


def score_data(
    statistics: Statistics,
    *,
    columns: int = 1,
    intervention: Intervention = "shift",
    charge: float = 6.0,
    penalty: float | None = None,
) -> tuple:
    r"""What :func:`local_score` takes as ``data``.

    Where the cells leave fewer degrees of freedom :math:`f = \max(N - K, 0)` than there are columns :math:`C`, the
    within-context scatter is singular, and the score is that of the scatter plus the ridge
    :math:`10^{-3} N (1 - f / C)`, in control variances, on its diagonal. With :math:`f \ge C` nothing is added.

    Parameters
    ----------
    statistics
        On the standardised scale; context 0 holds the controls.
    columns
        Columns per gene, the first of which is its own value.
    intervention
        What contexts do to a gene: ``"hard"`` needs ``statistics.own``.
    charge, penalty
        The nats that a target costs, and the price of a column in BICs: by default 2 for one column a gene, else 1.

    Returns
    -------
    ``(n, mean, total, scatter, between, own, cells, charge, penalty, columns)``. Means are ``(columns, contexts)``
    (transposed: a column's means lie together), less those of the controls, ``total`` and ``between`` their weighted
    first and second moments, ``own`` ``(columns, columns, contexts)``, empty for shifts.

    Raises
    ------
    ValueError
        If ``intervention`` is unknown, or hard and every context's own scatter is missing.
    """
    if intervention not in ("shift", "hard"):
        raise ValueError(f"intervention={intervention!r} is neither 'shift' nor 'hard'.")
    # a read-only array would be a type of its own to numba, and compiled for anew
    n, scatter = (np.require(a, np.float64, ["C", "W"]) for a in (statistics.n, statistics.scatter))
    mean = np.ascontiguousarray((statistics.mean - statistics.mean[0]).T)
    weighted = mean * n
    own = np.empty((0, 0, 0))
    if intervention == "hard":
        if statistics.own is None:
            raise ValueError("Hard interventions need every context's own scatter: accumulate(..., own=True).")
        own = np.ascontiguousarray(statistics.own.transpose(1, 2, 0))
    cells = float(n.sum())
    lack = 1 - max(cells - len(n), 0) / len(scatter)
    if lack > 0:
        scatter = scatter + _RIDGE * cells * lack * np.eye(len(scatter))
    penalty = (2.0 if columns == 1 else 0.7) if penalty is None else float(penalty)
    return n, mean, weighted.sum(1), scatter, weighted @ mean.T, own, cells, float(charge), penalty, int(columns)


def fit_graph(
    graph: np.ndarray,
    statistics: Statistics,
    *,
    columns: int = 1,
    intervention: Intervention = "shift",
    charge: float = 6.0,
) -> LocalFit:
    """The regressions behind the score of a whole graph: the warm start of the gradient phases.

    Parameters
    ----------
    graph
        ``(genes, genes)`` bool, row = source.
    statistics
        Of ``genes * columns`` columns, on the standardised scale; context 0 holds the controls.
    columns, intervention, charge
        See :func:`score_data`.

    Returns
    -------
    ``weight[i * columns + b, j]`` is the coefficient of column ``b`` of gene ``i`` in gene ``j``.
    """
    data = score_data(statistics, columns=columns, intervention=intervention, charge=charge)
    d = len(graph)
    weight, intercept, variance = np.zeros((d, columns, d)), np.empty(d), np.empty(d)
    moved = np.empty((d, len(statistics.n)), dtype=np.bool_)
    for j in range(d):
        parents = np.flatnonzero(graph[:, j])
        w = np.empty(len(parents) * columns)
        _, intercept[j], variance[j] = fit_gene(j, parents, len(parents), data, w, moved[j])
        weight[parents, :, j] = w.reshape(-1, columns)
    weight = weight.reshape(d * columns, d)
    # the kernels know means less those of the controls
    intercept += statistics.mean[0, ::columns] - statistics.mean[0] @ weight
    return LocalFit(weight, intercept, variance, moved.T)
