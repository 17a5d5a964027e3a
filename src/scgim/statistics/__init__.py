"""One pass over the cells: everything that training needs to know about them."""

from ._accumulate import accumulate, combine
from ._basis import BASIS_CENTRES, BASIS_SLOPE, expand
from ._blocks import row_blocks
from ._counts import Sizes, between_batches, change_of, log_changes, own_dispersion
from ._dask import accumulate_dask
from ._line_scale import relative_scales
from ._means import Means
from ._misfit import misfit_variance
from ._statistics import Statistics

__all__ = [
    "BASIS_CENTRES",
    "BASIS_SLOPE",
    "Means",
    "Sizes",
    "Statistics",
    "accumulate",
    "accumulate_dask",
    "between_batches",
    "change_of",
    "combine",
    "expand",
    "log_changes",
    "misfit_variance",
    "own_dispersion",
    "relative_scales",
    "row_blocks",
]
