"""Prior knowledge of the graph: allowed, required and likely edges."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import networkx as nx
import numpy as np
import pandas as pd

from scgim._checks import listed, nearest, warn_of_columns
from scgim._gene_names import match_genes, positions, table_names
from scgim.structure import ancestors

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger("scgim")

KINDS = ("required", "forbidden", "likely")
COLUMNS = ("source", "target", "kind", "log_odds", "weight")
LIKELY = 2.0  # log odds of a likely edge of weight 1 in prices of an edge; chosen on measured wells (RPPA)


def check_regulators(regulators: Sequence[str] | None, genes: np.ndarray) -> list[str] | None:
    """The regulators that are genes of the screen.

    Raises
    ------
    TypeError
        If ``regulators`` is no list of names.
    ValueError
        If none of the names is a gene.
    """
    if regulators is None:
        return None
    if isinstance(regulators, str) or not np.iterable(regulators):
        raise TypeError(f"regulators is a list of gene names, got {regulators!r}.")
    names = table_names(pd.Series(list(regulators), dtype=object), "regulators").drop_duplicates()
    found = match_genes(names, genes, "regulators").dropna()
    if len(names) and found.empty:
        raise _no_gene("regulators", names, genes)
    if len(found) < len(names):
        logger.info("regulators: %d of %d names are genes of adata.", len(found), len(names))
    return list(dict.fromkeys(found))


def check_prior(
    prior_graph: pd.DataFrame | None, regulators: list[str] | None, genes: np.ndarray
) -> pd.DataFrame | None:
    """Validate a prior graph and return its rows for genes of the screen: columns source, target, kind, log_odds, weight.

    A table without the column ``kind``, such as decoupler's networks, contains likely edges. A likely edge with a gene outside the
    screen is left out. Missing ``log_odds`` of a likely edge are given by its ``weight``: the absolute value, divided by the largest weight
    of the table if weights exceed 1; by default 1.

    Raises
    ------
    TypeError
        If ``prior_graph`` is not a DataFrame, or names are bytes.
    ValueError
        If a column or gene does not exist, a required edge is a loop, no edge is left, or the constraints contradict each other.
    """
    if prior_graph is None:
        return None
    if not isinstance(prior_graph, pd.DataFrame):
        raise TypeError(
            f"prior_graph is a DataFrame with columns source, target, kind, got a {type(prior_graph).__name__}."
        )
    missing = [column for column in COLUMNS[:2] if column not in prior_graph]
    if missing:
        close = listed(nearest(missing[0], list(prior_graph.columns), n=1)) or "none"
        raise ValueError(f"prior_graph has no column {missing[0]!r} (nearest: {close}); it needs source, target, kind.")
    warn_of_columns(prior_graph, COLUMNS, "prior_graph")
    given = prior_graph.reset_index(drop=True)
    table = pd.DataFrame({name: table_names(given[name], f"prior_graph[{name!r}]") for name in COLUMNS[:2]})
    table["kind"] = given["kind"].astype(str) if "kind" in given else "likely"
    wrong = sorted(set(table["kind"]) - set(KINDS))
    if wrong:
        raise ValueError(
            f"prior_graph['kind'] holds {listed(wrong)}; it may hold 'required', 'forbidden' and 'likely'."
        )
    likely = (table["kind"] == "likely").to_numpy()
    table["log_odds"], weight = _numbers(given, "log_odds", likely), np.abs(_numbers(given, "weight", likely))
    table["weight"] = np.where(
        likely, np.nan_to_num(weight / max(1.0, np.nanmax(weight, initial=0.0)), nan=1.0), np.nan
    )
    table = _of_genes(table, genes)
    loops = table.loc[(table["source"] == table["target"]) & (table["kind"] == "required"), "source"]
    if len(loops):
        raise ValueError(f"prior_graph requires {loops.iloc[0]!r} to cause itself. Drop that row.")
    _check_agreement(table, regulators)
    # Of several rows of an edge the largest odds count: copies of a row are no further evidence.
    table = table.sort_values(list(COLUMNS), ascending=[True, True, True, False, False], kind="stable")
    return table.drop_duplicates(list(COLUMNS[:3])).reset_index(drop=True)


@dataclass(frozen=True)
class EdgeConstraints:
    """Allowed and required edges, bool, and log odds of edges in nats; ``(genes, genes)``, row = source; ``None`` without a constraint."""

    allowed: np.ndarray | None = None
    required: np.ndarray | None = None
    edge_log_odds: np.ndarray | None = None

    def asdict(self) -> dict[str, np.ndarray | None]:
        """Keyword arguments of the search."""
        return dict(vars(self))

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


def edge_constraints(
    table: pd.DataFrame | None, regulators: list[str] | None, genes: np.ndarray, price: float
) -> EdgeConstraints:
    """Constraints of a validated prior graph and validated regulators; ``price`` is the price of an edge in nats."""
    if table is None and regulators is None:
        return EdgeConstraints()
    d = len(genes)
    allowed, required, log_odds = ~np.eye(d, dtype=bool), np.zeros((d, d), dtype=bool), np.zeros((d, d))
    if regulators is not None:
        allowed[~np.isin(genes, regulators)] = False
    if table is None:
        return EdgeConstraints(allowed, required)
    of = {kind: (table["kind"] == kind).to_numpy() for kind in KINDS}
    source, target = (positions(genes, table[column], "adata") for column in COLUMNS[:2])
    allowed[source[of["forbidden"]], target[of["forbidden"]]] = False
    required[source[of["required"]], target[of["required"]]] = True
    likely = of["likely"]
    odds = table["log_odds"].fillna(LIKELY * price * table["weight"]).to_numpy(float)
    log_odds[source[likely], target[likely]] = odds[likely]
    return EdgeConstraints(allowed, required, log_odds if log_odds.any() else None)


def _numbers(table: pd.DataFrame, column: str, likely: np.ndarray) -> np.ndarray:
    """Numbers of likely edges in a column; NaN where there is none."""
    if column not in table:
        return np.full(len(table), np.nan)
    given = pd.to_numeric(table[column], errors="coerce").to_numpy(float)
    bad = likely & table[column].notna().to_numpy() & ~np.isfinite(given)
    if bad.any():
        raise ValueError(
            f"prior_graph[{column!r}] contains {listed(table[column][bad])}. It must be a finite number, or missing; use "
            "kind='required' or 'forbidden' for certain edges."
        )
    return np.where(likely, given, np.nan)


def _of_genes(table: pd.DataFrame, genes: np.ndarray) -> pd.DataFrame:
    """The table with names of the screen's genes, without likely edges of other genes and likely loops."""
    named = table.copy()
    for column in ("source", "target"):
        named[column] = match_genes(table[column], genes, f"prior_graph[{column!r}]")
        unknown = table.loc[named[column].isna() & (table["kind"] != "likely"), column]
        if len(unknown):
            raise _no_gene(f"prior_graph[{column!r}]", unknown.drop_duplicates(), genes)
    inside = named[["source", "target"]].notna().all(axis=1)
    used = inside & ((named["kind"] != "likely") | (named["source"] != named["target"]))
    if len(table) and not used.any():
        outside = table.loc[~inside, ["source", "target"]].melt()["value"].drop_duplicates()
        raise _no_gene("prior_graph", outside if len(outside) else table["source"], genes)
    if not used.all():
        logger.info("prior_graph: %d of %d edges join genes of adata and are used.", used.sum(), len(table))
    return named[used].reset_index(drop=True)


def _no_gene(where: str, names: pd.Series, genes: np.ndarray) -> ValueError:
    close = listed(nearest(names.iloc[0], genes.tolist(), n=2)) or "none"
    return ValueError(
        f"{where} contains {len(names)} genes that are not in adata: {listed(names)} (nearest to {names.iloc[0]!r}: {close})."
    )


def _check_agreement(table: pd.DataFrame, regulators: list[str] | None) -> None:
    """Raise if no DAG satisfies all constraints."""
    edges = {kind: set(zip(*(table.loc[table["kind"] == kind, c] for c in COLUMNS[:2]), strict=True)) for kind in KINDS}
    both = sorted(edges["required"] & edges["forbidden"])
    if both:
        raise ValueError(
            f"prior_graph both requires and forbids {both[0][0]!r} -> {both[0][1]!r}. Keep one of the rows."
        )
    graph = nx.DiGraph(sorted(edges["required"]))
    if not nx.is_directed_acyclic_graph(graph):
        cycle = [a for a, _ in nx.find_cycle(graph)]
        raise ValueError(
            f"The required edges of prior_graph form a cycle: {' -> '.join([*cycle, cycle[0]])}. A causal graph has none: "
            "drop one of these edges, or pass them as kind='likely', which may form cycles."
        )
    if regulators is not None:
        outside = sorted({source for source, _ in edges["required"]} - set(regulators))
        if outside:
            raise ValueError(
                f"prior_graph requires {outside[0]!r} to have a child, but it is not among regulators. Add it there, or drop "
                "the edge."
            )
