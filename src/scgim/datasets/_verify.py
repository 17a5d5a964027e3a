"""Consistency checks of the simulated truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import networkx as nx
import numpy as np

from ._graphs import descendants

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._truth import Oracle

_EXACT = (
    1e-6  # noise is the same in every condition, so a gene that no intervention reaches may change by rounding only
)
_SD_ERROR = 0.15  # about five standard errors of the SD of the simulated cells
_NEUTRAL, _FEW_PAIRS = 0.25, 20  # with few pairs, an order of variances may agree with the graph by chance
_RECOMPUTED = 8


def verify(oracle: Oracle, tables: Iterable[dict[str, np.ndarray]]) -> None:
    """Raise RuntimeError if graph, functions, targets, shifts and means are inconsistent.

    ``tables`` are the results of `Oracle.conditions`. Some of their rows are computed again for all genes.
    """
    graph = nx.from_numpy_array(oracle.model.graph, create_using=nx.DiGraph)
    if not nx.is_directed_acyclic_graph(graph):
        raise RuntimeError("The true graph has a cycle.")
    _verify_model(oracle)
    for table in tables:
        if ((table["shift"] != 0) != (table["targets"] != 0)).any():
            raise RuntimeError("The true targets are not the genes with a shift.")
        n_conditions = len(table["shift"])
        for k in range(0, n_conditions, 1 + n_conditions // _RECOMPUTED):
            _verify_context(oracle, graph, table["shift"][k], table["change"][k])


def _verify_model(oracle: Oracle) -> None:
    graph, weights = oracle.model.graph, oracle.model.weights()
    if (oracle.model.support() != graph).any() or (weights is not None and ((weights != 0) != graph).any()):
        raise RuntimeError("The structural equations and the true graph do not have the same edges.")
    if (np.abs(oracle.state.std(axis=1) - 1) > _SD_ERROR).any():
        raise RuntimeError("The variances of genes differ without interventions: their growth may reveal the order.")
    informative = abs(sortability(oracle.control.var(axis=1), graph) - 0.5) > _NEUTRAL
    if informative and descendants(graph).sum() >= _FEW_PAIRS:
        raise RuntimeError("The order of the measured variances agrees with the causal order.")


def _verify_context(oracle: Oracle, graph: nx.DiGraph, shift: np.ndarray, change: np.ndarray) -> None:
    x = oracle.model.sample(oracle.noise, shift[:, None], intervention=oracle.intervention)
    again = (x - oracle.state).mean(axis=1)
    if (np.abs(again - change) > _EXACT).any():
        raise RuntimeError("The true change of the means cannot be computed again.")
    targets = np.flatnonzero(shift)
    reached = set(targets).union(*(nx.descendants(graph, j) for j in targets))
    if (np.abs(np.delete(again, list(reached))) > _EXACT).any():
        raise RuntimeError("A gene moved that is neither a target nor a descendant of one.")


def sortability(score: np.ndarray, graph: np.ndarray) -> float:
    """Share of ancestor-descendant pairs in which the descendant has the higher score. 0.5 is uninformative; 0 and 1 give the order.

    With variances as ``score`` this is varsortability (Reisach et al. 2021). With the R2 of a gene given all others it is
    R2-sortability (Reisach et al. 2023). Each pair counts once. 0.5 if no gene has an ancestor.
    """
    source, target = np.nonzero(descendants(graph))
    if not len(source):
        return 0.5
    return float(np.mean((score[source] < score[target]) + 0.5 * (score[source] == score[target])))


def r2_given_others(x: np.ndarray) -> np.ndarray:
    """R2 of each gene regressed on all other genes; ``x`` is (n_genes, n_cells)."""
    return 1 - 1 / np.diag(np.linalg.pinv(np.corrcoef(x), hermitian=True))
