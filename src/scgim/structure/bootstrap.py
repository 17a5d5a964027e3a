"""Would one get the same graph again? Refits on data as they might have been."""

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

RECURS = 0.5  # an edge in fewer refits does not
DIRECTED = 0.8  # of the refits that join two genes, how many must agree on the direction


class EdgeFrequencies(NamedTuple):
    """Share of refits with the edge, and with an edge either way; ``(genes, genes)`` each, row = source."""

    direct: np.ndarray
    either: np.ndarray

    def recurs(self) -> np.ndarray:
        """Edges in at least half of the refits, whose direction agrees in most of those that join the genes."""
        return (self.direct >= RECURS) & (self.direct >= DIRECTED * self.either)

    def modules(self) -> list[list[int]]:
        """Groups of genes that recurring edges join whose direction does not recur, largest first."""
        undecided = (self.either >= RECURS) & (np.maximum(self.direct, self.direct.T) < DIRECTED * self.either)
        graph = nx.from_numpy_array(undecided)
        groups = [sorted(group) for group in nx.connected_components(graph) if len(group) > 1]
        return sorted(groups, key=lambda group: (-len(group), group))


def edge_table(graph: np.ndarray, genes: np.ndarray, found: EdgeFrequencies) -> pd.DataFrame:
    """The graph's edges with how often they recur; see :meth:`scgim.GIM.stability`."""
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
    """Refit on every draw; ``search(statistics, seed)`` gives a graph."""
    graphs = np.array([search(draw, seed) for seed, draw in enumerate(draws)])
    return EdgeFrequencies(graphs.mean(0), (graphs | graphs.transpose(0, 2, 1)).mean(0))


def bootstrap_statistics(
    statistics: SufficientStatistics | ConditionMeans, n: int, seed: int
) -> Iterator[SufficientStatistics | ConditionMeans]:
    r"""Statistics of other cells from the same conditions: a parametric bootstrap over cells within conditions.

    Condition means are drawn from :math:`N(m_k, W / (N - K) n_k)` with the pooled scatter :math:`W`, of means those of
    changes from their sampling errors; the scatter from :math:`\text{Wishart}(N - K, W / (N - K))`, the latent covariance
    with the error of the same number of cells, by reliability. No cell is read again.
    """
    rng = np.random.default_rng([seed, 0xB007])
    draw = _means if isinstance(statistics, ConditionMeans) else _cells
    for _ in range(n):
        yield draw(statistics, rng)


def _root(covariance: np.ndarray) -> np.ndarray:
    """``a`` with ``a.T @ a`` the covariance, its negative eigenvalues dropped."""
    values, vectors = np.linalg.eigh(covariance)
    return np.sqrt(np.maximum(values, 0))[:, None] * vectors.T


def _wishart(root: np.ndarray, freedom: float, rng: np.random.Generator) -> np.ndarray:
    """Of mean ``root.T @ root``, by Bartlett's decomposition; with few degrees of freedom, from cells."""
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
    # measured covariance is the latent one plus noise of its own; only the former's estimate is wanted again
    noise = np.diag(s.latent) * (1 / np.maximum(s.reliability, 1e-3) - 1)
    measured = s.latent + np.diag(noise)
    latent = _wishart(_root(measured), max(s.n_cells, 2.0), rng) - np.diag(noise)
    values, vectors = np.linalg.eigh(latent)
    least = np.linalg.eigvalsh(s.latent)[0]
    latent = (vectors * np.maximum(values, least)) @ vectors.T
    return replace(s, change=change + shared[s.line], latent=latent)


def draws(
    statistics: SufficientStatistics | ConditionMeans, block: tuple[np.ndarray, np.ndarray] | None, n: int, seed: int
) -> Iterator[SufficientStatistics | ConditionMeans]:
    """Data as they might have been: other lines of each drug (none: the same), and other cells of each condition."""
    rng = np.random.default_rng([seed, 0xB10C])
    for _ in range(n):
        drawn = statistics if block is None else resample(statistics, *block, rng)
        yield next(bootstrap_statistics(drawn, 1, int(rng.integers(2**31))))
