"""Metrics: functions on arrays whose docstrings hold the formula."""

from scgim import _keywords

from ._distribution import energy_distance, per_gene_w1, rmse_sd, sinkhorn_divergence, wasserstein2
from ._graph import edge_average_precision, edge_precision_recall, shd, sid, sort_and_regress, varsortability
from ._mean import centroid_rank, deg_weights, pearson_delta, rmse_delta, wmse
from ._targets import recall_at_k, target_average_precision, target_f1

__all__ = [
    "centroid_rank",
    "deg_weights",
    "edge_average_precision",
    "edge_precision_recall",
    "energy_distance",
    "pearson_delta",
    "per_gene_w1",
    "recall_at_k",
    "rmse_delta",
    "rmse_sd",
    "shd",
    "sid",
    "sinkhorn_divergence",
    "sort_and_regress",
    "target_average_precision",
    "target_f1",
    "varsortability",
    "wasserstein2",
    "wmse",
]

_keywords.spell_functions(globals(), __all__)
