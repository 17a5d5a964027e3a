"""Statistics from one pass over the cells: everything about the cells that training needs."""

from ._accumulate import accumulate, combine
from ._basis import BASIS_CENTERS, BASIS_SLOPE, expand
from ._blocks import row_blocks
from ._counts import SizeFactors, between_batch_variance, log_fold_change, log_fold_changes, own_dispersion
from ._dask import accumulate_dask
from ._denoise import denoise
from ._line_scale import relative_scales
from ._means import ConditionMeans
from ._misfit import misfit_variance
from ._replicates import Replicates, ReplicateVariance
from ._statistics import LeafStatistics, SufficientStatistics

__all__ = [
    "BASIS_CENTERS",
    "BASIS_SLOPE",
    "ConditionMeans",
    "ReplicateVariance",
    "Replicates",
    "LeafStatistics",
    "SizeFactors",
    "SufficientStatistics",
    "accumulate",
    "accumulate_dask",
    "between_batch_variance",
    "log_fold_change",
    "combine",
    "denoise",
    "expand",
    "log_fold_changes",
    "misfit_variance",
    "own_dispersion",
    "relative_scales",
    "row_blocks",
]
