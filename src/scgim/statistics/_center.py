from __future__ import annotations

import numba as nb
import numpy as np


@nb.njit(cache=True, nogil=True, error_model="numpy")
def center(
    x: np.ndarray, origin: np.ndarray, order: np.ndarray, stop: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Cells minus the mean of their condition, in the order of conditions.

    Compiled because numpy makes five passes and three temporaries of it, which cost as much as the product of the cells.
    One thread, without the GIL: threads of dask may each run their own.

    Parameters
    ----------
    x
        Cells, ``(rows, columns)`` float.
    origin
        Taken off first, ``(columns,)`` float64: a cell or so, lest means far from zero be rounded.
    order
        Row numbers, condition by condition, ``(rows,)`` int.
    stop
        Where in ``order`` each condition ends, ``(conditions,)`` int; none is empty.
    y
        Takes the centered cells, ``(rows, columns)`` float; rounded only after the mean is off.

    Returns
    -------
    Means less the origin, and sums of squares about them, both ``(conditions, columns)`` float64.
    """
    columns = x.shape[1]
    means, squares = np.zeros((len(stop), columns)), np.zeros((len(stop), columns))
    start = 0
    for k in range(len(stop)):
        # views of rows: the loops over columns vectorize over nothing else
        mean, square = means[k], squares[k]
        for i in range(start, stop[k]):
            row = x[order[i]]
            for j in range(columns):
                mean[j] += row[j] - origin[j]
        for j in range(columns):
            mean[j] /= stop[k] - start
        for i in range(start, stop[k]):
            row, out = x[order[i]], y[i]
            for j in range(columns):
                value = row[j] - origin[j] - mean[j]
                out[j] = value
                square[j] += value * value
        start = stop[k]
    return means, squares
