"""The decomposable, target-robust score of a parent set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .kernels import fit_gene

if TYPE_CHECKING:
    from scgim.statistics import Statistics


@dataclass(frozen=True)
class LocalFit:
    """Least squares on a graph: ``weight`` (genes, genes), ``intercept`` and ``variance`` (genes,), ``moved``."""

    weight: np.ndarray
    intercept: np.ndarray
    variance: np.ndarray
    moved: np.ndarray  # (contexts, genes) bool: which mechanisms a context touches


def score_data(statistics: Statistics, charge: float, penalty: float) -> tuple:
    """What :func:`local_score` takes as ``data``."""
    return statistics.n, np.ascontiguousarray(statistics.mean.T), statistics.scatter, float(charge), float(penalty)


def fit_graph(graph: np.ndarray, statistics: Statistics, *, charge: float = 6.0) -> LocalFit:
    """The regressions behind the score of a whole graph: the warm start of the gradient phases.

    Parameters
    ----------
    graph
        ``(genes, genes)`` bool, row = source.
    statistics
        On the standardised scale; context 0 holds the controls.
    charge
        Nats that a target costs.
    """
    d, data = len(graph), score_data(statistics, charge, 2.0)
    weight, intercept, variance = np.zeros((d, d)), np.empty(d), np.empty(d)
    moved = np.empty((d, len(statistics.n)), dtype=np.bool_)
    for j in range(d):
        parents = np.flatnonzero(graph[:, j])
        w = np.empty(len(parents))
        _, intercept[j], variance[j] = fit_gene(j, parents, len(parents), data, w, moved[j])
        weight[parents, j] = w
    return LocalFit(weight, intercept, variance, moved.T)
