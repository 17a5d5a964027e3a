"""One pass over the cells: everything that training needs to know about them."""

from ._accumulate import accumulate, combine
from ._basis import BASIS_CENTRES, BASIS_SLOPE, expand
from ._blocks import row_blocks
from ._dask import accumulate_dask
from ._statistics import Statistics

__all__ = [
    "BASIS_CENTRES",
    "BASIS_SLOPE",
    "Statistics",
    "accumulate",
    "accumulate_dask",
    "combine",
    "expand",
    "row_blocks",
]
