"""Directed acyclic graphs (DAGs) on plain arrays: the score of a parent set, the search, and questions about a DAG."""

from .dag import ancestors, levels, order
from .decisive import Calls, decisive_edges
from .ensemble import GraphEnsemble, resample
from .kernels import local_score
from .likely import drop_unsupported_edges
from .orient import orient_equivalent_edges, turn_edges
from .refine import refine_dag
from .score import FLOOR, SLAB, LocalFit, edge_price, fit_graph
from .search import SearchState, search_dag

__all__ = [
    "FLOOR",
    "SLAB",
    "Calls",
    "GraphEnsemble",
    "LocalFit",
    "SearchState",
    "ancestors",
    "decisive_edges",
    "drop_unsupported_edges",
    "edge_price",
    "fit_graph",
    "levels",
    "local_score",
    "order",
    "orient_equivalent_edges",
    "refine_dag",
    "resample",
    "search_dag",
    "turn_edges",
]
