"""Prior knowledge of the graph as masks of allowed and required edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import networkx as nx
import numpy as np
import pandas as pd

from scgim._checks import listed, nearest
from scgim.structure import ancestors

if TYPE_CHECKING:
    from collections.abc import Sequence

KINDS = ("required", "forbidden")
COLUMNS = ("source", "target", "kind")


def check_prior(
    prior_graph: pd.DataFrame | None, regulators: Sequence[str] | None, genes: np.ndarray
) -> tuple[pd.DataFrame | None, list[str] | None]:
    """Validate a prior graph and regulators: a frame of strings with columns source, target, kind; a list of gene names.

    Raises
    ------
    TypeError
        If ``prior_graph`` is not a DataFrame, or ``regulators`` not a list of names.
    ValueError
        If a column or gene does not exist, an edge is a loop, or the constraints contradict each other.
    """
    known = set(genes.tolist())
    if regulators is not None:
        if isinstance(regulators, str) or not np.iterable(regulators):
            raise TypeError(f"regulators is a list of gene names, got {regulators!r}.")
        regulators = list(dict.fromkeys(map(str, regulators)))
        _check_genes(regulators, known, "regulators")
    if prior_graph is None:
        return None, regulators
    if not isinstance(prior_graph, pd.DataFrame):
        raise TypeError(
            f"prior_graph is a DataFrame with columns source, target, kind, got a {type(prior_graph).__name__}."
        )
    missing = [column for column in COLUMNS if column not in prior_graph]
    if missing:
        close = listed(nearest(missing[0], list(prior_graph.columns), n=1)) or "none"
        raise ValueError(f"prior_graph has no column {missing[0]!r} (nearest: {close}); it needs source, target, kind.")
    table = prior_graph[list(COLUMNS)].astype(str).reset_index(drop=True)
    for column in ("source", "target"):
        _check_genes(table[column].tolist(), known, f"prior_graph[{column!r}]")
    wrong = sorted(set(table["kind"]) - set(KINDS))
    if wrong:
        raise ValueError(f"prior_graph['kind'] holds {listed(wrong)}; it may hold 'required' and 'forbidden'.")
    loops = table.loc[(table["source"] == table["target"]) & (table["kind"] == "required"), "source"]
    if len(loops):
        raise ValueError(f"prior_graph requires {loops.iloc[0]!r} to cause itself. Drop that row.")
    _check_agreement(table, regulators)
    return table, regulators


@dataclass(frozen=True)
class EdgeConstraints:
    """Allowed and required edges, ``(genes, genes)`` bool, row = source; ``None`` without a constraint."""

    allowed: np.ndarray | None = None
    required: np.ndarray | None = None

    def asdict(self) -> dict[str, np.ndarray | None]:
        """Keyword arguments of the search."""
        return {"allowed": self.allowed, "required": self.required}

    def may_follow(self, genes: list[int], n_genes: int) -> np.ndarray:
        """Genes that may be downstream of given genes: at the end of a path of allowed edges, and no ancestor by required edges.

        ``(n_genes,)`` bool, false for the given genes.
        """
        found = np.ones(n_genes, dtype=bool)
        if self.allowed is not None and self.required is not None:
            found = self.allowed[genes].any(0)
            while ((further := found | self.allowed[found].any(0)) != found).any():
                found = further
            found &= ~ancestors(self.required)[:, genes].any(1)
        found[genes] = False
        return found


def edge_constraints(table: pd.DataFrame | None, regulators: list[str] | None, genes: np.ndarray) -> EdgeConstraints:
    """Constraints of a validated prior graph and validated regulators."""
    if table is None and regulators is None:
        return EdgeConstraints()
    d = len(genes)
    allowed, required = ~np.eye(d, dtype=bool), np.zeros((d, d), dtype=bool)
    if regulators is not None:
        allowed[~np.isin(genes, regulators)] = False
    if table is not None:
        place = pd.Index(genes)
        for kind, mask, value in (("forbidden", allowed, False), ("required", required, True)):
            rows = table[table["kind"] == kind]
            mask[place.get_indexer(rows["source"]), place.get_indexer(rows["target"])] = value
    return EdgeConstraints(allowed, required)


def _check_genes(names: list[str], known: set[str], where: str) -> None:
    unknown = [name for name in dict.fromkeys(names) if name not in known]
    if unknown:
        raise ValueError(
            f"{where} contains {len(unknown)} genes that are not in adata: {listed(unknown)} "
            f"(nearest to {unknown[0]!r}: {listed(nearest(unknown[0], sorted(known), n=2)) or 'none'})."
        )


def _check_agreement(table: pd.DataFrame, regulators: list[str] | None) -> None:
    """Raise if no DAG satisfies all constraints."""
    sets = {kind: set(zip(*(table.loc[table["kind"] == kind, c] for c in COLUMNS[:2]), strict=True)) for kind in KINDS}
    both = sorted(sets["required"] & sets["forbidden"])
    if both:
        raise ValueError(
            f"prior_graph both requires and forbids {both[0][0]!r} -> {both[0][1]!r}. Keep one of the rows."
        )
    graph = nx.DiGraph(sorted(sets["required"]))
    if not nx.is_directed_acyclic_graph(graph):
        cycle = [a for a, _ in nx.find_cycle(graph)]
        raise ValueError(
            f"The required edges of prior_graph form a cycle: {' -> '.join([*cycle, cycle[0]])}. A causal graph has none: "
            "drop one of these edges."
        )
    if regulators is not None:
        outside = sorted({source for source, _ in sets["required"]} - set(regulators))
        if outside:
            raise ValueError(
                f"prior_graph requires {outside[0]!r} to have a child, but it is not among regulators. Add it there, or drop "
                "the edge."
            )
