"""Hill climbing over DAGs with iterated local search, for any decomposable score of one gene's parents."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from .candidates import candidates, check_priors
from .dag import levels
from .kernels import MAX_PARENTS, TOLERANCE, climb, perturb, score_genes
from .score import score_data

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scgim.statistics import ConditionMeans, SufficientStatistics

    from .candidates import Slots
    from .score import Intervention

_ABREAST = (
    4  # kicks tried from the same graph; independent of the number of threads, so threads do not change the result
)
_SWEEP = 33  # rounds in which every gene of a large graph is kicked once


@dataclass(frozen=True)
class SearchState:
    """The best graph so far: ``graph`` (genes, genes) bool, row = source, its score in nats, and the number of rounds.

    ``progress`` are plain values and tensors, with which a search on the same data continues from here as if it had not ended.
    """

    graph: np.ndarray
    score: float
    rounds: int
    progress: dict[str, Any] = field(default_factory=dict)


def search_dag(
    statistics: SufficientStatistics | ConditionMeans,
    *,
    columns: int = 1,
    intervention: Intervention = "shift",
    target_penalty: float | None = None,
    penalty: float | None = None,
    allowed: np.ndarray | None = None,
    required: np.ndarray | None = None,
    edge_log_odds: np.ndarray | None = None,
    max_rounds: int = 100,
    patience: int = 20,
    seed: int = 0,
    start: np.ndarray | None = None,
    threads: int | None = None,
    resume: dict[str, Any] | None = None,
) -> Iterator[SearchState]:
    """Search for the DAG of smallest score: a climb from the empty graph, then iterated local search in rounds.

    A round consists of twelve kicks, or of kicks at a thirtieth of the genes if these are more. A kick drops most edges around one
    gene, the next one in a random order of all genes, and reverses some of them: so a chain of wrong directions is reversed at once.
    A climb follows, and the result is kept if the score falls. The search ends by stagnation. Beyond 200 genes only edges between
    neighbors are considered (:func:`~scgim.structure.candidates.neighbors`).

    Parameters
    ----------
    statistics
        Statistics of ``genes * columns`` columns on the standardized scale; condition 0 holds the controls.
    columns, intervention, target_penalty, penalty, edge_log_odds
        The arguments of :func:`~scgim.structure.score.score_data`; the score is defined in :func:`~scgim.structure.local_score`.
    allowed, required
        Edges that may exist and edges that always do, ``(genes, genes)`` bool with row = source.
    max_rounds, patience
        Largest number of rounds, and number of consecutive rounds gaining less than a nat each that ends the search.
    seed
        Seed of the kicks.
    start
        Acyclic graph to start from, ``(genes, genes)`` bool; the empty graph by default. Edges that are not allowed are dropped,
        required edges are added.
    threads
        Number of threads, by default one per processor and at most four. The result does not depend on it.
    resume
        ``progress`` of a state of the same search, whose graph is ``start``. The search continues after this state.

    Yields
    ------
    :class:`SearchState` after the first climb and after every round: the best graph so far. The caller may stop at any time.

    Raises
    ------
    ValueError
        If ``start`` and the required edges have a cycle or give a gene more than 32 parents, or a required edge is not
        allowed.

    Examples
    --------
    >>> import numpy as np
    >>> from scgim.statistics import accumulate
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(2000, 3))
    >>> x[1000:, 0] += 2  # the second condition shifts gene 0
    >>> x[:, 1] += x[:, 0]
    >>> s = accumulate([(x, np.repeat([0, 1], 1000))], n_conditions=2, n_genes=3)
    >>> *_, last = search_dag(s)
    >>> np.argwhere(last.graph).tolist()
    [[0, 1]]
    """
    data = score_data(
        statistics,
        columns=columns,
        intervention=intervention,
        target_penalty=target_penalty,
        penalty=penalty,
        edge_log_odds=edge_log_odds,
    )
    columns, d = data.columns, data.genes
    allowed, required = check_priors(d, allowed, required)
    graph = required if start is None else (np.asarray(start, dtype=bool) & allowed) | required
    levels(graph)  # raises on a cycle: no legal change of a climb would ever remove it
    if d and graph.sum(0).max() > MAX_PARENTS:
        j = graph.sum(0).argmax()
        raise ValueError(f"Gene {j} starts with {graph[:, j].sum()} parents; at most {MAX_PARENTS} are possible.")
    likely = graph if edge_log_odds is None else graph | (allowed & (edge_log_odds > 0))
    slots = candidates(statistics, columns, allowed, required, likely)
    with ThreadPoolExecutor(threads or min(os.cpu_count() or 1, _ABREAST)) as pool:
        climber = _Climber(slots, data, graph, pool, settled=resume is not None)
        rng, queue, stagnant, done = np.random.default_rng(seed), [], 0, 0
        if resume is None:
            yield climber.state(0, _progress(rng, queue, stagnant, 0))
        else:
            rng.bit_generator.state = resume["rng"]
            queue, stagnant, done = list(resume["queue"]), resume["stagnant"], resume["rounds"]
        batches = max(3, -(-d // (_SWEEP * _ABREAST)))
        for rounds in range(done + 1, max_rounds + 1):
            if rounds > 1 and (stagnant >= patience or not climber.on.any()):
                return
            before = climber.score.sum()
            for _ in range(batches):
                climber.kick([climber.loosen(_next(queue, d, rng), rng) for _ in range(_ABREAST)])
            stagnant = 0 if climber.score.sum() < before - 1 else stagnant + 1
            yield climber.state(rounds, _progress(rng, queue, stagnant, rounds))


def _next(queue: list[int], d: int, rng: np.random.Generator) -> int:
    """The next of all genes in random order, without end."""
    if not queue:
        queue.extend(rng.permutation(d).tolist())
    return queue.pop(0)


def _progress(rng: np.random.Generator, queue: list[int], stagnant: int, rounds: int) -> dict[str, Any]:
    return {"rng": rng.bit_generator.state, "queue": list(queue), "stagnant": stagnant, "rounds": rounds}


class _Climber:
    """A graph at a local optimum: slots that are on, the score of every gene, and the gain of every toggle.

    A ``settled`` graph is left as it is. The other graphs start with a climb.
    """

    def __init__(
        self, slots: Slots, data: tuple, graph: np.ndarray, pool: ThreadPoolExecutor, *, settled: bool = False
    ) -> None:
        d = len(slots.start) - 1
        self.slots, self.data, self.pool = slots, data, pool
        self.target = np.repeat(np.arange(d), np.diff(slots.start))
        self.on = graph[slots.source, self.target]
        self.score, self.gain = np.zeros(d), np.zeros(len(self.on))
        code = np.random.default_rng(0).integers(-(2**63), 2**63, (2, d))
        # Every kick of a batch has a memo of its own, so that threads need no lock. Its size is a power of two, because a kernel takes the
        # position of a key from its low bits.
        size = 1 << min(21, max(12, (16 * len(self.on)).bit_length()))
        self.memo = [(np.zeros(size, dtype=np.int64), np.zeros(size), code) for _ in range(_ABREAST)]
        blocks = [np.arange(k, d, _ABREAST) for k in range(_ABREAST)]
        list(self.pool.map(lambda k: score_genes(blocks[k], *self._on(k)), range(_ABREAST)))
        if not settled:
            climb(slots, self.on, self.score, self.gain, np.zeros(d, dtype=bool), data, self.memo[0])

    def _on(self, k: int) -> tuple:
        return self.slots, self.on, self.score, self.gain, self.data, self.memo[k]

    def state(self, rounds: int, progress: dict[str, Any]) -> SearchState:
        """A copy of the graph as a dense matrix."""
        graph = np.zeros((len(self.score), len(self.score)), dtype=bool)
        graph[self.slots.source[self.on], self.target[self.on]] = True
        return SearchState(graph, self.score.sum(), rounds, progress)

    def loosen(self, gene: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Slots to drop (most edges at a gene and among its neighbors), and which of them to reverse."""
        edges = np.flatnonzero(self.on & ~self.slots.fixed)
        source, target = self.slots.source[edges], self.target[edges]
        near = np.zeros(len(self.score), dtype=bool)
        near[source[target == gene]] = near[target[source == gene]] = near[gene] = True
        drop = near[source] & near[target] & (rng.random(len(edges)) < rng.uniform(0.5, 1))
        return edges[drop], rng.random(drop.sum()) < 0.5

    def kick(self, kicks: list[tuple[np.ndarray, np.ndarray]]) -> None:
        """Climb after each of several kicks. Keep the results that lower the score and change the parents of different genes."""

        def attempt(k: int) -> tuple:
            other = self.on.copy(), self.score.copy(), self.gain.copy()
            stale = np.zeros(len(self.score), dtype=bool)
            perturb(self.slots, other[0], stale, *kicks[k])
            climb(self.slots, *other, stale, self.data, self.memo[k])
            return other[1].sum() - self.score.sum(), k, stale, other

        taken = np.zeros(len(self.score), dtype=bool)
        tried = sorted(self.pool.map(attempt, range(len(kicks))), key=lambda attempt: attempt[:2])
        # Results are taken in order of their gain, not in order of completion: so the outcome does not depend on threads.
        for change, _, stale, (on, score, gain) in tried:
            if change > -TOLERANCE or (stale & taken).any():
                continue
            # Two kicks that change different genes can be merged, unless their union has a cycle.
            slot = stale[self.target]
            merged = np.where(slot, on, self.on)
            if taken.any() and not self._acyclic(merged):
                continue
            self.on = merged
            self.score, self.gain = np.where(stale, score, self.score), np.where(slot, gain, self.gain)
            taken |= stale

    def _acyclic(self, on: np.ndarray) -> bool:
        d, edges = len(self.score), (self.slots.source[on], self.target[on])
        graph = sp.csr_matrix((np.ones(len(edges[0])), edges), shape=(d, d))
        return connected_components(graph, connection="strong")[0] == d
