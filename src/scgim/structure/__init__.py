"""Graphs on plain arrays: the score of a parent set, the search, and what one asks of a DAG."""

from .dag import ancestors, levels, order
from .kernels import local_score
from .orient import orient_ties
from .refine import refine_dag
from .score import FLOOR, SLAB, LocalFit, fit_graph
from .search import SearchState, search_dag

__all__ = [
    "FLOOR",
    "SLAB",
    "LocalFit",
    "SearchState",
    "ancestors",
    "fit_graph",
    "levels",
    "local_score",
    "order",
    "orient_ties",
    "refine_dag",
    "search_dag",
]
