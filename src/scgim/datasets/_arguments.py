"""Validation of the arguments of a simulation. Every error names the argument, its value and the permitted values."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable


def integer(name: str, value: object, low: int) -> int:
    """``value`` as an int of at least ``low``."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < low:
        raise ValueError(f"{name}={value!r} must be an integer of at least {low}.")
    return int(value)


def real(name: str, value: object, low: float, high: float, *, open_low: bool = False) -> float:
    """``value`` as a float in ``[low, high)``, or in ``(low, high)`` with ``open_low``."""
    inside = isinstance(value, Real) and (low < value if open_low else low <= value) and value < high
    if not inside:
        raise ValueError(f"{name}={value!r} must be a number in {'(' if open_low else '['}{low:g}, {high:g}).")
    return float(value)


def positive(name: str, values: Iterable[float]) -> np.ndarray:
    """``values`` as a sorted array of distinct, positive, finite numbers."""
    try:
        array = np.atleast_1d(np.asarray(values, dtype=float))
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name}={values!r} must be a sequence of at least one number.")
    wrong = array[~(np.isfinite(array) & (array > 0))]
    if wrong.size:
        raise ValueError(f"{name} contains {wrong[0]:g}: a dose must be positive and finite (controls have none).")
    unique, count = np.unique(array, return_counts=True)
    if (count > 1).any():
        raise ValueError(f"{name} contains {unique[count > 1][0]:g} more than once: name each dose once.")
    return unique


def size_range(name: str, value: object) -> tuple[int, int]:
    """An int, or a pair ``(low, high)``, as ``(low, high)``."""
    if isinstance(value, Integral):
        low = high = integer(name, value, 1)
    elif isinstance(value, (tuple, list, np.ndarray)) and len(value) == 2:
        low, high = (integer(name, v, 1) for v in value)
    else:
        raise ValueError(f"{name}={value!r} must be a positive integer, or a pair (low, high) of them.")
    if low > high:
        raise ValueError(f"{name}={value!r} must be (low, high) with low <= high: did you mean ({high}, {low})?")
    return low, high
