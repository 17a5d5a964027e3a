"""The decomposable score of a parent set, robust to unknown targets."""

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
# Constants of the likelihood of means, explained at :class:`~scgim.structure.kernels.MeanData`.
SLAB, MISFIT, FLOOR, MISMATCH = 1.0, 0.25, 0.06, 0.06


@dataclass(frozen=True)
class LocalFit:
    """Regressions on a graph: ``weight`` (columns, genes), ``intercept`` and ``variance`` (genes,), and targets ``moved``."""

    weight: np.ndarray
    intercept: np.ndarray
    variance: np.ndarray
    moved: np.ndarray  # (conditions, genes) bool: targets of the conditions
    error: np.ndarray | None = None  # (conditions, genes) residual variance where the gene is no target; for means only


def score_data(
    statistics: SufficientStatistics | ConditionMeans,
    *,
    columns: int = 1,
    intervention: Intervention = "shift",
    target_penalty: float | None = None,
    penalty: float | None = None,
    edge_log_odds: np.ndarray | None = None,
) -> CellData | MeanData:
    r"""Arrays for the kernels (``data`` of :func:`local_score`), from all cells or from condition means.

    *Cells.* Let :math:`N` be the number of cells, :math:`K` of conditions and :math:`C` of columns. If the degrees of freedom
    :math:`f = \max(N - K, 0)` are fewer than :math:`C`, the within-condition scatter is singular. Then the ridge
    :math:`10^{-3} N (1 - f / C)`, in control variances, is added to its diagonal. With :math:`f \ge C` nothing is added.

    Parameters
    ----------
    statistics
        Statistics on the standardized scale with the controls as condition 0, or :class:`~scgim.statistics.ConditionMeans`.
    columns
        Basis functions of a gene, the first of which is its value. Always 1 for means.
    intervention
        Effect of a condition on a target: ``"shift"`` or ``"hard"``. ``"hard"`` on cells needs ``statistics.own``.
    target_penalty
        Nats per target. Cells: 6 by default. Means: :math:`\log(d - 1)` for :math:`d` genes.
    penalty
        Cells: price of a basis function in BICs, by default 2 for one basis function per gene, else 0.7. Means: price of a
        parent in units of :math:`\tfrac12 \log d`, by default 1.
    edge_log_odds
        Prior log odds of edges relative to an edge without prior knowledge, in nats, ``(genes, genes)``, row = source. They are
        subtracted from the score of the parent set.

    Returns
    -------
    Named arrays for the kernels. Means are transposed, because the kernels read all means of a column together.

    Raises
    ------
    ValueError
        If ``intervention`` is unknown, or is hard and the scatter of every condition is missing.
    """
    if intervention not in ("shift", "hard"):
        raise ValueError(f"intervention={intervention!r} is neither 'shift' nor 'hard'.")
    if isinstance(statistics, ConditionMeans):
        return _mean_data(
            statistics,
            hard=intervention == "hard",
            target_penalty=target_penalty,
            penalty=penalty,
            edge_log_odds=edge_log_odds,
        )
    target_penalty = 6.0 if target_penalty is None else target_penalty
    # numba treats a read-only array as a type of its own and would compile all kernels again for it.
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
    prior = _log_odds(edge_log_odds), _log_odds(statistics.target_log_odds)
    return CellData(n, mean, *moments, own, cells, float(target_penalty), penalty, int(columns), *prior)


def edge_price(
    statistics: SufficientStatistics | ConditionMeans, *, columns: int = 1, penalty: float | None = None
) -> float:
    """Price of an edge in the score, in nats; the arguments are those of :func:`score_data`."""
    if isinstance(statistics, ConditionMeans):
        return (1.0 if penalty is None else penalty) * 0.5 * math.log(max(len(statistics.latent), 2))
    penalty = (2.0 if columns == 1 else 0.7) if penalty is None else penalty
    return penalty * columns * 0.5 * math.log(max(statistics.n_cells, 2.0))


def _log_odds(prior: np.ndarray | None) -> np.ndarray:
    """Prior log odds as the kernels read them, with a row for every gene as target of an edge or drug; empty without a prior."""
    return np.empty((0, 0)) if prior is None else np.array(prior.T, dtype=np.float64, order="C")


def _mean_data(
    means: ConditionMeans,
    *,
    hard: bool,
    target_penalty: float | None,
    penalty: float | None,
    edge_log_odds: np.ndarray | None,
) -> MeanData:
    d, order = len(means.latent), condition_order(means)
    cause, left = means.denoised
    by_condition = {
        "change": means.change,
        "error_sd": np.sqrt(means.variance),
        "cause": cause,
        "cause_sd": np.sqrt(left),
    }
    first = np.searchsorted(means.line[order], np.arange(means.control.shape[0] + 1))
    prior = None if means.target_log_odds is None else means.target_log_odds[order]
    # Arrays of a type that would make numba compile again (read-only, not contiguous) are copied.
    names = ("correlation", "latent", "reliability")
    return MeanData(
        n=means.n[order],
        **{name: np.ascontiguousarray(each[order].T) for name, each in by_condition.items()},
        first=first,
        control=np.array(means.control.T, order="C"),
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
        edges=_log_odds(edge_log_odds),
        targets=_log_odds(prior),
    )


def condition_order(means: ConditionMeans) -> np.ndarray:
    """Order of the conditions in :class:`~scgim.structure.kernels.MeanData`: by cell line, so that sums by line need no index."""
    return np.argsort(means.line, kind="stable")


def fit_graph(
    graph: np.ndarray,
    statistics: SufficientStatistics | ConditionMeans,
    *,
    columns: int = 1,
    intervention: Intervention = "shift",
    target_penalty: float | None = None,
) -> LocalFit:
    """Fit the regressions that underlie the score of a whole graph.

    Parameters
    ----------
    graph
        ``(genes, genes)`` bool, row = source.
    statistics, columns, intervention, target_penalty
        The arguments of :func:`score_data`.

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
        place = np.argsort(condition_order(statistics))
        return LocalFit(weight, intercept, variance, moved.T[place], error.T[place])
    # The kernels work on means minus those of the controls, so the control mean is added to the intercept.
    intercept += statistics.mean[0, ::columns] - statistics.mean[0] @ weight
    return LocalFit(weight, intercept, variance, moved.T)
