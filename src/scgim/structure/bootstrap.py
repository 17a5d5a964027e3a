"""Stability of a graph: refits on resampled statistics."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import networkx as nx
import numpy as np
import pandas as pd

from scgim.statistics import ConditionMeans, SufficientStatistics

from .ensemble import resample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RECURS = 0.5  # least share of refits with an edge for the edge to recur
DIRECTED = 0.8  # least share of agreeing directions among the refits that join two genes


class EdgeFrequencies(NamedTuple):
    """Share of refits with the edge (``direct``), and with an edge in either direction; ``(genes, genes)``, row = source."""

    direct: np.ndarray
    either: np.ndarray

    def recurs(self) -> np.ndarray:
        """Edges in at least half of the refits whose direction agrees in at least 80 % of the refits that join the genes."""
        return (self.direct >= RECURS) & (self.direct >= DIRECTED * self.either)

    def modules(self) -> list[list[int]]:
        """Groups of genes joined by recurring edges of undecided direction, largest group first."""
        undecided = (self.either >= RECURS) & (np.maximum(self.direct, self.direct.T) < DIRECTED * self.either)
        graph = nx.from_numpy_array(undecided)
        groups = [sorted(group) for group in nx.connected_components(graph) if len(group) > 1]
        return sorted(groups, key=lambda group: (-len(group), group))


def edge_table(graph: np.ndarray, genes: np.ndarray, found: EdgeFrequencies) -> pd.DataFrame:
    """The edges of the graph and how often they recur, as returned by :meth:`scgim.GIM.stability`."""
    source, target = np.nonzero(graph)
    module = np.full(len(graph), -1)
    for number, group in enumerate(found.modules()):
        module[group] = number
    table = pd.DataFrame(
        {
            "source": genes[source],
            "target": genes[target],
            "stability": found.direct[source, target],
            "adjacency": found.either[source, target],
            "recurs": found.recurs()[source, target],
            "module": np.where(module[source] == module[target], module[source], -1),
        }
    )
    return table.sort_values(["stability", "adjacency"], ascending=False, kind="stable").reset_index(drop=True)


def edge_frequencies(
    search: Callable[[SufficientStatistics | ConditionMeans, int], np.ndarray],
    draws: Iterator[SufficientStatistics | ConditionMeans],
) -> EdgeFrequencies:
    """Refit on every draw. ``search(statistics, seed)`` returns a graph."""
    graphs = np.array([search(draw, seed) for seed, draw in enumerate(draws)])
    return EdgeFrequencies(graphs.mean(0), (graphs | graphs.transpose(0, 2, 1)).mean(0))


def bootstrap_statistics(
    statistics: SufficientStatistics | ConditionMeans, n: int, seed: int
) -> Iterator[SufficientStatistics | ConditionMeans]:
    r"""Draw statistics of new cells from the same conditions: a parametric bootstrap over cells within conditions.

    Condition means are drawn from :math:`N(m_k, W / (N - K) n_k)` with the pooled scatter :math:`W` of :math:`N` cells in
    :math:`K` conditions. The scatter is drawn from :math:`\text{Wishart}(N - K, W / (N - K))`. For
    :class:`~scgim.statistics.ConditionMeans`, changes are drawn from their sampling errors, and the latent covariance is drawn
    with the sampling error of the same number of cells at the measured reliability. No cell is read again.
    """
    rng = np.random.default_rng([seed, 0xB007])
    draw = _means if isinstance(statistics, ConditionMeans) else _cells
    for _ in range(n):
        yield draw(statistics, rng)


def _root(covariance: np.ndarray) -> np.ndarray:
    """A matrix ``a`` such that ``a.T @ a`` is the covariance, with negative eigenvalues set to 0."""
    values, vectors = np.linalg.eigh(covariance)
    return np.sqrt(np.maximum(values, 0))[:, None] * vectors.T


def _wishart(root: np.ndarray, freedom: float, rng: np.random.Generator) -> np.ndarray:
    """A Wishart draw with mean ``root.T @ root``, by Bartlett's decomposition, or from cells if degrees of freedom are few."""
    d = len(root)
    if freedom < d + 1:
        x = rng.normal(size=(max(int(freedom), 1), d)) @ root
        return x.T @ x / len(x)
    a = np.tril(rng.normal(size=(d, d)), -1)
    a[np.diag_indices(d)] = np.sqrt(rng.chisquare(freedom - np.arange(d)))
    x = a.T @ root
    return x.T @ x / freedom


def _cells(s: SufficientStatistics, rng: np.random.Generator) -> SufficientStatistics:
    freedom = max(s.n_cells - len(s.n), 1.0)
    root = _root(s.scatter / freedom)
    mean = s.mean + (rng.normal(size=s.mean.shape) @ root) / np.sqrt(s.n)[:, None]
    if s.own is None:
        scatter = _wishart(root, freedom, rng) * freedom
        return replace(s, mean=mean, scatter=scatter)
    own = np.array(
        [_wishart(_root(w / max(n - 1, 1)), n - 1, rng) * max(n - 1, 1) for w, n in zip(s.own, s.n, strict=True)]
    )
    return replace(s, mean=mean, scatter=own.sum(0), own=own)


def _means(s: ConditionMeans, rng: np.random.Generator) -> ConditionMeans:
    root = _root(s.correlation)
    change = s.change + (rng.normal(size=s.change.shape) @ root) * np.sqrt(s.variance)
    shared = (rng.normal(size=s.control.shape) @ root) * np.sqrt(s.control)
    # The measured covariance is the latent covariance plus measurement noise. Only the latent part is wanted, so the noise is
    # added before the draw and subtracted after it: the draw then has the sampling error of measured cells.
    noise = np.diag(s.latent) * (1 / np.maximum(s.reliability, 1e-3) - 1)
    measured = s.latent + np.diag(noise)
    latent = _wishart(_root(measured), max(s.n_cells, 2.0), rng) - np.diag(noise)
    values, vectors = np.linalg.eigh(latent)
    # The subtraction may leave negative eigenvalues; the floor keeps the latent covariance positive definite.
    least = np.linalg.eigvalsh(s.latent)[0]
    latent = (vectors * np.maximum(values, least)) @ vectors.T
    return replace(s, change=change + shared[s.line], latent=latent)


def draws(
    statistics: SufficientStatistics | ConditionMeans, block: tuple[np.ndarray, np.ndarray] | None, n: int, seed: int
) -> Iterator[SufficientStatistics | ConditionMeans]:
    """Bootstrap draws of the statistics: blocks of conditions first (none if ``block`` is None), then cells of each condition."""
    rng = np.random.default_rng([seed, 0xB10C])
    for _ in range(n):
        drawn = statistics if block is None else resample(statistics, *block, rng)
        yield next(bootstrap_statistics(drawn, 1, int(rng.integers(2**31))))
