from __future__ import annotations

import numba as nb
import numpy as np


@nb.njit(cache=True, nogil=True, error_model="numpy")
def center(
    x: np.ndarray, origin: np.ndarray, order: np.ndarray, stop: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Cells minus the mean of their condition, sorted by condition.

    numpy would make five passes and three temporary arrays, as slow as the product of the cells. So the function is compiled. It
    runs in one thread and without the GIL, because several threads of dask may call it at once.

    Parameters
    ----------
    x
        Cells, ``(rows, columns)`` float.
    origin
        Subtracted first, ``(columns,)`` float64: one of the cells. Means far from zero would otherwise lose digits.
    order
        Row numbers, condition by condition, ``(rows,)`` int.
    stop
        End of each condition in ``order``, ``(conditions,)`` int. No condition is empty.
    y
        Output: centered cells, ``(rows, columns)`` float. They are rounded to this type only after the mean is subtracted.

    Returns
    -------
    Means minus the origin, and sums of squares about the means, both ``(conditions, columns)`` float64.
    """
    columns = x.shape[1]
    means, squares = np.zeros((len(stop), columns)), np.zeros((len(stop), columns))
    start = 0
    for k in range(len(stop)):
        # The compiler vectorizes loops over columns only if each row is a one-dimensional view.
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
