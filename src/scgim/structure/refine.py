"""A second climb, from the graph of a search, with a score in which the parents of a gene may interact."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from .candidates import check_priors
from .dag import ancestors
from .kernels import MAX_PARENTS
from .networks import NetworkScore

if TYPE_CHECKING:
    from .networks import Network
    from .score import Intervention

SWEEPS = 20


def refine_dag(
    graph: np.ndarray,
    x: np.ndarray,
    size: np.ndarray,
    moved: np.ndarray,
    *,
    intervention: Intervention = "shift",
    target_penalty: float | None = None,
    penalty: float | None = None,
    allowed: np.ndarray | None = None,
    required: np.ndarray | None = None,
    edge_log_odds: np.ndarray | None = None,
    target_log_odds: np.ndarray | None = None,
) -> np.ndarray:
    r"""Drop, turn and add edges until no such change lowers the score of :class:`~scgim.structure.networks.NetworkScore`.

    The score of the search is additive in the parents. An interaction of two parents is misfit to this score, and weak further
    edges compensate for part of the misfit. Here every gene has a small network. First, parents are dropped as long as this
    lowers the score. Then all reversals are tried, and all additions whose basis functions explain enough of a residual. The best
    changes are made, and parents of the genes involved are dropped again where this helps. A reversal must gain the price of a
    parent, so that Markov-equivalent edges keep their direction.

    Parameters
    ----------
    graph
        ``(genes, genes)`` bool, row = source, acyclic; not changed.
    x, size
        Standardized cells, ``(cells, genes)``, sorted by condition, controls first; cells of every condition, ``(conditions,)``.
    moved
        Conditions assumed to target a gene, ``(conditions, genes)`` bool: the start of the fits.
    intervention, target_penalty, penalty, edge_log_odds, target_log_odds
        Settings of :class:`~scgim.structure.networks.NetworkScore`.
    allowed, required
        Edges that may exist and edges that always do, ``(genes, genes)`` bool, row = source.

    Returns
    -------
    An acyclic graph.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(2000, 3))
    >>> x[:, 2] = np.tanh(x[:, 0] * x[:, 1]) + 0.3 * x[:, 2]
    >>> complete = np.triu(np.ones((3, 3), dtype=bool), 1)
    >>> np.argwhere(refine_dag(complete, x, np.array([2000]), np.zeros((1, 3), dtype=bool))).tolist()
    [[0, 2], [1, 2]]
    """
    allowed, required = check_priors(len(graph), allowed, required)
    score = NetworkScore(
        x,
        size,
        intervention=intervention,
        target_penalty=target_penalty,
        penalty=penalty,
        edge_log_odds=edge_log_odds,
        target_log_odds=target_log_odds,
    )
    # The matrices are small: threads would cost more than they save, and would change the last bits of sums.
    with threadpool_limits(1):
        climb = _Climb(np.array(graph, dtype=bool), score, moved, allowed, required)
        for _ in range(SWEEPS):
            if not climb.sweep():
                break
    return climb.graph


class _Climb:
    """A graph, the network of every gene, and the gain that each further parent promises."""

    def __init__(
        self, graph: np.ndarray, score: NetworkScore, moved: np.ndarray, allowed: np.ndarray, required: np.ndarray
    ) -> None:
        self.graph, self.score, self.allowed, self.required = graph, score, allowed, required
        self.gain = np.zeros(graph.shape)  # (genes, genes) nats, row = source
        self.networks = [score.first(j, np.flatnonzero(graph[:, j]), moved[:, j]) for j in range(len(graph))]
        self.tried: list[dict[int, Network]] = [{} for _ in self.networks]
        for j, network in enumerate(self.networks):
            self._take(j, network)

    def _take(self, j: int, network: Network) -> None:
        """Give a gene a network without the parents that it does not need; the least needed parent is dropped first."""
        best = network
        without = {i: self.score.fit(j, *network.without(i)) for i in network.parents if not self.required[i, j]}
        by_need = sorted(without, key=lambda i: without[i].score)
        for i in by_need:
            if without[i].score < network.score:
                less = without[i] if best is network else self.score.fit(j, *best.without(i))
                best = min(best, less, key=lambda each: each.score)
        # A fit may be stuck in an optimum that needs a parent. So the parents that remain are tested again from random units.
        for i in by_need:
            if i in best.parents:
                other = self.score.first(j, np.setdiff1d(best.parents, i), best.moved)
                if other.score >= best.score:
                    break
                best = other
        self.networks[j], self.tried[j] = best, {}
        self.graph[:, j] = False
        self.graph[list(best.parents), j] = True
        self.gain[:, j] = self.score.promise(j, best)

    def _toggled(self, j: int, i: int) -> Network:
        """The network of gene ``j`` with parent ``i`` added, or dropped if it is a parent already."""
        if i not in self.tried[j]:
            now = self.networks[j]
            start = now.without(i) if i in now.parents else now.joined_by(i)
            self.tried[j][i] = self.score.fit(j, *start)
        return self.tried[j][i]

    def _change(self, j: int, i: int) -> float:
        return self._toggled(j, i).score - self.networks[j].score

    def sweep(self) -> bool:
        """Make the best changes that concern different genes. Returns whether there was any."""
        graph, reach, room = self.graph, ancestors(self.graph), self.graph.sum(0) < MAX_PARENTS
        # A reversal is legal if no second path joins the genes; an addition, if no path leads back. Fits of a network are
        # expensive, so only additions with a promised gain above the price of a parent are tried at all.
        detour = reach.astype(float) @ graph > 0
        turns = graph & ~detour & ~self.required & self.allowed.T & room[:, None]
        joins = self.allowed & ~graph & ~reach.T & room & (self.gain > self.score.price - self.score.edge_log_odds)
        # A reversal must gain the price of a parent: so Markov-equivalent edges keep their direction.
        changes = [
            (self._change(j, i) + self._change(i, j) + self.score.price, i, j, True)
            for i, j in np.argwhere(turns).tolist()
        ]
        changes += [(self._change(j, i), i, j, False) for i, j in np.argwhere(joins).tolist()]
        done: set[int] = set()
        for change, i, j, turn in sorted(changes):
            if change >= 0 or j in done or (turn and i in done):
                continue
            without = graph.copy()
            without[i, j] = False
            if ancestors(without)[(i, j) if turn else (j, i)]:
                continue  # this change and an earlier one of the sweep would close a cycle
            new = {j: self._toggled(j, i)} | ({i: self._toggled(i, j)} if turn else {})
            for k, network in new.items():
                self._take(k, network)
            done |= set(new)
        return bool(done)
