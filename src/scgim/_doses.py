"""Doses as keys of conditions: numbers that differ by rounding are one dose."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike

SAME_DOSE = 1e-6  # relative difference below which two doses are one; rounding to single precision changes a number by at most 6e-8


def parse_number(value: object) -> float:
    """The number that a value is or spells, NaN if there is none.

    A float32 value becomes the number as written: 0.1, not 0.10000000149.
    """
    text = str(value)
    try:
        return np.nan if "_" in text else float(text)  # Python reads "1_0" as 10
    except ValueError:
        return np.nan


def as_one(doses: ArrayLike, known: ArrayLike = ()) -> np.ndarray:
    """Doses of which those that differ by less than 1e-6 of their value are equal; zeros and NaN stay.

    Parameters
    ----------
    doses
        Doses, of any shape.
    known
        Doses to take where they are among the equal ones. Otherwise the dose with the shortest decimal form is taken, where a number in
        single precision has the form as which it was written.

    Examples
    --------
    >>> as_one([0.1, 0.10000000149011612, 10.000000000000002, 10.0]).tolist()
    [0.1, 0.1, 10.0, 10.0]
    >>> as_one([0.33333334], known=[1 / 3]).tolist()
    [0.3333333333333333]
    """
    doses, known = np.asarray(doses, dtype=np.float64), np.unique(np.asarray(known, dtype=np.float64))
    positive = np.isfinite(doses) & (doses > 0)
    values = np.unique(doses[positive])
    if not len(values):
        return doses
    group = np.concatenate([[0], np.cumsum(np.diff(values) > SAME_DOSE * values[:-1])])
    names = np.array([_name(each, known) for each in np.split(values, np.flatnonzero(np.diff(group)) + 1)])
    out = doses.copy()
    out[positive] = names[group[np.searchsorted(values, doses[positive])]]
    return out


def _name(equal: np.ndarray, known: np.ndarray) -> float:
    """The dose that stands for equal ones."""
    near = known[(known >= equal[0] * (1 - SAME_DOSE)) & (known <= equal[-1] * (1 + SAME_DOSE))]
    if len(near):
        return float(near[np.abs(near - equal[0]).argmin()])
    with np.errstate(over="ignore"):
        written = [float(str(single)) for value in equal if (single := np.float32(value)) == value]
    return min([*equal.tolist(), *written], key=lambda value: (len(repr(value)), value))


def rounded(doses: np.ndarray, key: str) -> Iterator[tuple[str, str]]:
    """A sentence and a fix, if doses differ by rounding; ``key`` is their column."""
    values = np.unique(doses[np.isfinite(doses) & (doses > 0)])
    one = as_one(values)
    several = one[np.isin(one, one[:-1][np.diff(one) == 0])]
    if not len(several):
        return
    change = {old: new for old, new in zip(values.tolist(), one.tolist(), strict=True) if new in several and old != new}
    first = values[one == several[0]].tolist()
    yield (
        f"obs[{key!r}] holds {' and '.join(map(repr, first))}, which differ by rounding and are taken for one dose"
        + (
            f"; the same holds for {len(set(several.tolist())) - 1} more doses."
            if len(set(several.tolist())) > 1
            else "."
        ),
        f"Write it in one way: adata.obs[{key!r}] = adata.obs[{key!r}].replace({change!r}).",
    )
