"""Validation of the arrays that metrics take; errors name the array and the problem."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def matrix(value: ArrayLike, name: str, *, axes: str = "(conditions, genes)") -> np.ndarray:
    """`value` as a float64 matrix. Raises if it has other axes, is empty or is not finite."""
    try:
        out = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be an array of numbers {axes}, not a {type(value).__name__}.") from error
    if out.ndim != 2 or not out.size:
        raise ValueError(f"{name} must be {axes} and not empty; its shape is {out.shape}.")
    if not (finite := np.isfinite(out)).all():
        row, column = np.argwhere(~finite)[0].tolist()
        raise ValueError(
            f"{name} of shape {out.shape} holds {int((~finite).sum()):,} values that are not finite, "
            f"the first {out[row, column]} at [{row}, {column}]."
        )
    return out


def pair(
    first: ArrayLike,
    second: ArrayLike,
    *,
    names: tuple[str, str] = ("predicted", "truth"),
    axes: str = "(conditions, genes)",
) -> tuple[np.ndarray, np.ndarray]:
    """Two matrices of the same shape."""
    a, b = (matrix(value, name, axes=axes) for value, name in zip((first, second), names, strict=True))
    if a.shape != b.shape:
        raise ValueError(f"{names[0]} and {names[1]} must have the same shape, not {a.shape} and {b.shape}.")
    return a, b


def broadcast(value: ArrayLike, shape: tuple[int, int], name: str) -> np.ndarray:
    """One matrix per screen, or one row for all conditions, as a matrix of the given shape."""
    rows = matrix(value if np.ndim(value) == 2 else [value], name)
    if rows.shape not in {shape, (1, shape[1])}:
        raise ValueError(f"{name} of shape {np.shape(value)} does not fit (conditions, genes) = {shape}.")
    return np.broadcast_to(rows, shape)


def per_row(value: ArrayLike, rows: int, name: str) -> np.ndarray:
    """One number per condition, or one number for all conditions, as a column."""
    if np.shape(value) not in {(), (rows,)}:
        raise ValueError(f"{name} of shape {np.shape(value)} does not fit the {rows} conditions.")
    return matrix(np.reshape(value, (-1, 1)), name)
