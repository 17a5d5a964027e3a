"""Graphs by gradient descent: continuous relaxations of a DAG, learned jointly with mechanisms and generator. Needs torch."""

from .acyclicity import break_cycles, log_det
from .descent import descend_dag
from .relaxations import RELAXATIONS, GumbelEdges, SmoothOrientation
from .residuals import Residuals

__all__ = [
    "RELAXATIONS",
    "GumbelEdges",
    "Residuals",
    "SmoothOrientation",
    "break_cycles",
    "descend_dag",
    "log_det",
]
