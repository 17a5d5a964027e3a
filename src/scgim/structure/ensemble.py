"""An ensemble of graphs, found by searches on resampled statistics."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import scipy.sparse as sp

from scgim.statistics import ConditionMeans, SufficientStatistics

if TYPE_CHECKING:
    from collections.abc import Iterator


class GraphEnsemble(NamedTuple):
    """Edges of all graphs in one list: ``source`` and ``target`` of each edge, and the ``member`` (graph) it belongs to, ascending."""

    source: np.ndarray
    target: np.ndarray
    member: np.ndarray
    n_genes: int
    n_members: int

    @classmethod
    def of(cls, graphs: list[np.ndarray]) -> GraphEnsemble:
        """From dense graphs, ``(genes, genes)`` bool, row = source."""
        pairs = [np.nonzero(graph) for graph in graphs]
        size = [len(source) for source, _ in pairs]
        source, target = (np.concatenate([pair[i] for pair in pairs]) for i in (0, 1))
        return cls(source, target, np.repeat(np.arange(len(graphs)), size), len(graphs[0]), len(graphs))

    def graphs(self) -> Iterator[np.ndarray]:
        """Every graph as a dense matrix."""
        for b in range(self.n_members):
            graph, own = np.zeros((self.n_genes, self.n_genes), dtype=bool), self.member == b
            graph[self.source[own], self.target[own]] = True
            yield graph

    def share(self) -> sp.csr_matrix:
        """Share of the graphs with each edge, ``(genes, genes)``, row = source."""
        weight = np.full(len(self.source), 1 / max(self.n_members, 1))
        return sp.csr_matrix((weight, (self.source, self.target)), shape=(self.n_genes, self.n_genes))

    def direction_probability(self, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        r"""Probability that an edge between two genes points from ``source`` to ``target``.

        .. math:: \frac{n_{i \to j} + \tfrac12}{n_{i \to j} + n_{j \to i} + 1}

        Here :math:`n` is the number of graphs with the edge. The probability is one half for genes that no graph joins.
        """
        share = self.share() * self.n_members
        forth = np.asarray(share[source, target]).ravel()
        back = np.asarray(share[target, source]).ravel()
        return (forth + 0.5) / (forth + back + 1)


def resample(
    statistics: SufficientStatistics | ConditionMeans, block: np.ndarray, stratum: np.ndarray, rng: np.random.Generator
) -> SufficientStatistics | ConditionMeans:
    """Statistics of conditions drawn with replacement, in blocks, within strata.

    A block of conditions (such as the doses of a drug) is drawn as a whole. ``block`` is the block of every treated condition,
    ``(conditions,)`` int from 0 on. Every block lies in one ``stratum``, ``(conditions,)`` int. A stratum keeps its number of blocks,
    so that no stratum is lost. The scatter of :class:`~scgim.statistics.SufficientStatistics` is pooled over conditions, so it cannot
    be drawn; it is scaled to the number of cells of the drawn conditions.
    """
    of_block = np.zeros(block.max() + 1, dtype=np.int64)
    of_block[block] = stratum
    alike = np.argsort(of_block, kind="stable")
    first, last = (np.searchsorted(of_block[alike], of_block, side) for side in ("left", "right"))
    chosen = alike[rng.integers(first, last)]
    order = np.argsort(block, kind="stable")
    start = np.searchsorted(block[order], np.arange(block.max() + 2))
    rows = np.concatenate([order[start[b] : start[b + 1]] for b in chosen])
    prior = statistics.target_log_odds
    if isinstance(statistics, ConditionMeans):
        drawn = {name: getattr(statistics, name)[rows] for name in ("n", "change", "variance", "line")}
        return replace(statistics, **drawn, target_log_odds=None if prior is None else prior[rows])
    rows = np.concatenate([[0], 1 + rows])
    n = statistics.n[rows]
    freedom, before = max(n.sum() - len(n), 1.0), max(statistics.n_cells - len(statistics.n), 1.0)
    own = None if statistics.own is None else statistics.own[rows]
    scatter = statistics.scatter * freedom / before if own is None else own.sum(0)
    drawn = {name: getattr(statistics, name)[rows] for name in ("mean", "squares")}
    prior = None if prior is None else prior[rows]
    return replace(statistics, n=n, scatter=scatter, own=own, target_log_odds=prior, **drawn)
