"""Checks of user input. Every error names the value, the nearest valid value and the fix."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Set
from difflib import get_close_matches
from numbers import Integral, Real
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scgim._doses import as_one, parse_number
from scgim._look_alikes import plain

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from anndata import AnnData
    from numpy.typing import ArrayLike

UNITS = ("cell", "well")  # what a row of a screen may be
# Usual names of untreated cells, compared without case, spaces and punctuation.
_CONTROL_NAMES = frozenset("dmso vehicle control ctrl untreated mock none nontargeting".split())


def nearest(value: object, options: Iterable[object], *, n: int = 3, cutoff: float = 0.0) -> list[str]:
    """The `n` options most similar to `value`, best first, ignoring case and surrounding spaces; fewer if there are fewer.

    `cutoff` is that of difflib, whose default of 0.6 would hide a short name behind its long form, as in "JQ1" for "(+/-)-JQ1".

    Examples
    --------
    >>> nearest("dmso", ["A-485", "DMSO ", "JQ1"], n=1)
    ['DMSO ']
    """
    plain = {}
    for option in options:
        plain.setdefault(str(option).strip().casefold(), str(option))
    return [plain[name] for name in get_close_matches(str(value).strip().casefold(), plain, n=n, cutoff=cutoff)]


def listed(values: Iterable[object], *, n: int = 3) -> str:
    """The first `n` values, quoted, and the number of further values.

    Examples
    --------
    >>> listed(["A-485", "JQ1", "SAHA"], n=2)
    "'A-485', 'JQ1' and 1 more"
    """
    values = [repr(str(value)) for value in values]  # str, because the repr of NumPy's strings shows their type
    more = f" and {len(values) - n} more" if len(values) > n else ""
    return ", ".join(values[:n]) + more


def shown(value: object) -> str:
    """A value in messages: its repr, or its type if that is long.

    Examples
    --------
    >>> shown(["drug", "dose"]), shown(pd.DataFrame({"drug": ["JQ1"]}))
    ("['drug', 'dose']", 'DataFrame(...)')
    """
    text = repr(value)
    return text if len(text) <= 60 and "\n" not in text else f"{type(value).__name__}(...)"


def warn(message: str) -> None:
    """Issue a UserWarning that points to the user's line that called into the package, from any depth."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in {"scgim", "scvi"}:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


def check_obs_column(adata: AnnData | pd.DataFrame, key: str, *, allow_missing: bool = False) -> pd.Series:
    """The column `key` of `adata.obs` (or of `obs` itself), unchanged.

    Raises
    ------
    KeyError
        If there is no such column. The message names the nearest ones.
    ValueError
        If two columns have this name, or if values are missing and `allow_missing` is false.
    """
    obs = adata if isinstance(adata, pd.DataFrame) else adata.obs
    if not isinstance(key, str):
        raise TypeError(
            f"One column of obs is needed here, got {shown(key)}. Pass its name as a string; columns of a combination are joined in one "
            "column, such as 'JQ1+SAHA'."
        )
    if key not in obs:
        found = nearest(key, obs.columns)
        raise KeyError(
            f"obs has no column {key!r}. " + (f"Nearest: {listed(found)}." if found else "It has no columns at all.")
        )
    column = obs[key]
    if isinstance(column, pd.DataFrame):
        raise ValueError(f"obs has {column.shape[1]} columns called {key!r}. Rename all but one.")
    missing = int(column.isna().sum())
    if missing and not allow_missing:
        raise ValueError(
            f"obs[{key!r}] is missing for {missing:,} of {len(column):,} cells ({100 * missing / len(column):.2g} %). "
            f"Drop them: adata = adata[adata.obs[{key!r}].notna()].copy()."
        )
    return column


def check_names(adata: AnnData | pd.DataFrame, key: str) -> pd.Series:
    """`check_obs_column` as strings without missing or blank values. Values that differ only in type are refused.

    Whole numbers are named alike whether they are stored as integers or, beside missing values elsewhere, as floats: 2.0 is "2".
    """
    column = check_obs_column(adata, key)
    if pd.api.types.is_float_dtype(column.dtype) and np.equal(np.mod(column, 1), 0).all():
        column = column.map("{:.0f}".format)
    names = column.astype(str).astype(object)
    blank = [name for name in names.unique() if not name.strip()]
    if blank:
        n = int(names.isin(blank).sum())
        raise ValueError(f"obs[{key!r}] is blank for {n:,} of {len(names):,} cells. Name them, or drop these cells.")
    # As strings, 1 and "1" are one name but two values; 1 and 1.0 are one value to pandas but two names.
    if names.nunique() != column.nunique():
        raise ValueError(
            f"obs[{key!r}] holds values that differ only in type, such as 1 and '1'. Make them all strings."
        )
    return names


def control_names(control: str | Iterable[str]) -> list[str]:
    """Names of the untreated cells: of one kind, or of several kinds in their order, and in alphabetical order for a set.

    Examples
    --------
    >>> control_names("DMSO"), control_names({"untreated", "DMSO"})
    (['DMSO'], ['DMSO', 'untreated'])
    """
    if isinstance(control, str) or not np.iterable(control):
        return [str(control)]
    names = list(dict.fromkeys(map(str, control)))
    if not names:
        raise ValueError("control is empty. Name the untreated cells, e.g. control='DMSO'.")
    return sorted(names) if isinstance(control, Set) else names


def one_or_list(control: str | Iterable[str]) -> str | list[str]:
    """`control_names` in the form for messages and files: a single name as a string."""
    names = control_names(control)
    return names[0] if len(names) == 1 else names


def is_control(names: pd.Series, control: str | Iterable[str]) -> np.ndarray:
    """Whether each cell is untreated, ``(cells,)`` bool, from the names of the cells' drugs."""
    return names.isin(control_names(control)).to_numpy()


def check_control(names: pd.Series, control: str | Iterable[str], *, key: str) -> None:
    """Raise ValueError if no cell has the name `control`, or one of several such names.

    The message has the nearest and the most frequent names in ``obs[key]``. Warns of names that differ from a control only in case or
    spaces, and of other names that are usual for controls.
    """
    controls, values = control_names(control), sorted(set(names))
    for each in controls:
        if each not in values:
            counts = names.value_counts()
            # The control often has the most cells, so the most frequent name is a good suggestion.
            close = dict.fromkeys([*nearest(each, sorted(counts.index)), *counts.index[:1]])
            known = ", ".join(f"{name!r} ({counts[name]:,} cells)" for name in close)
            raise ValueError(
                f"No cell equals control={each!r} in obs[{key!r}]. Nearest and most frequent: {known or 'none'}."
            )
    for problem, fix in doubted_controls(values, controls, key=key):
        warn(f"{problem} {fix}")


def doubted_controls(names: Iterable[str], control: str | Iterable[str], *, key: str) -> Iterator[tuple[str, str]]:
    """Names besides the control that may be controls too: a sentence and a fix for every kind of them."""
    controls = control_names(control)
    others = sorted(set(names) - set(controls))
    for each in controls:
        alike = [name for name in others if plain(name) == plain(each)]
        if alike:
            others = [name for name in others if name not in alike]
            yield (
                f"obs[{key!r}] also holds {listed(alike)}, which count as drugs.",
                f"If these cells are controls, call them {each!r}.",
            )
    if usual := [name for name in others if _plain(name) in _CONTROL_NAMES]:
        yield (
            f"obs[{key!r}] also holds {listed(usual)}, which count as drugs and have usual names of controls.",
            f"If these cells are controls too, pass control={[*controls, *usual]!r}.",
        )


def find_control(adata: AnnData, names: Iterable[str]) -> str | None:
    """The control among `names`: ``uns["control"]``, or the only conventional name. ``None`` if there is none or several."""
    values, noted = sorted(set(names)), adata.uns.get("control")
    found = (
        [noted]
        if isinstance(noted, str) and noted in values
        else [name for name in values if _plain(name) in _CONTROL_NAMES]
    )
    return found[0] if len(found) == 1 else None


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold() or name


def check_doses(
    adata: AnnData | pd.DataFrame, key: str, *, treated: np.ndarray, known: ArrayLike = (), exact: bool = False
) -> np.ndarray:
    """Doses of the treated cells as float64, (cells,); NaN for other cells, whose doses are ignored.

    A float32 dose becomes the number as written, and doses that differ by rounding are one, or one of the `known` doses
    (`scgim._doses.as_one`). With `exact`, they stay as they are.

    Raises
    ------
    KeyError
        If there is no such column.
    ValueError
        If the dose of a treated cell is missing, not a number, not positive or not finite.
    """
    column = check_obs_column(adata, key, allow_missing=True)
    code, values = pd.factorize(column)
    number = np.array([*map(parse_number, np.asarray(values)), np.nan])
    dose = number[code]
    bad = treated & ~(np.isfinite(dose) & (dose > 0))
    if bad.any():
        text = any(isinstance(value, str) for value in column[bad])
        unit = " The unit goes into dose_unit." if text else ""
        raise ValueError(
            f"obs[{key!r}] holds {listed(dict.fromkeys(column[bad]))} for {int(bad.sum()):,} treated cells. Their doses must be "
            f"positive and finite numbers, all in one unit; untreated cells carry the control's name.{unit}"
        )
    return np.where(treated, dose if exact else as_one(number, known)[code], np.nan)


def warn_of_alike(names: Iterable[str], known: Iterable[str], where: str) -> None:
    """Warn of names that are not known but look like known names."""
    own, by_look = set(known), {plain(name): name for name in known}
    for name in sorted(set(names) - own):
        if (other := by_look.get(plain(name))) is not None:
            warn(
                f"{where}: {name!a} looks like the drug {other!a} of the screen, and is another name. Correct it if they are one drug."
            )


def warn_of_featureless(names: Collection[str], of: int) -> None:
    """Warn that drugs without features are learned on their own; `of` is the number of all drugs."""
    if len(names):
        warn(
            f"{len(names)} of {of} drugs have no features: {listed(names, n=10)}. The model learns them on their own, from their own "
            "cells, and learns nothing about other drugs from them."
        )


def has_replicates(table: pd.DataFrame) -> bool:
    """Whether some condition, or the controls of some line, have two replicates in a batch."""
    parts = table.groupby(["control", "drug", "dose", "line", "batch"], dropna=False, observed=True)
    return bool((parts["replicate"].nunique() > 1).any())


def no_replicates(replicate_key: str | None, batch_key: str | None) -> str:
    """The error of a screen in which nothing shows how replicates differ."""
    of = "rows" if replicate_key is None else f"values of obs[{replicate_key!r}]"
    within = "" if batch_key is None else f" in a batch (obs[{batch_key!r}])"
    fix = (
        "Name a column that tells apart the replicates of the controls at least, or leave replicate_key out"
        if replicate_key is not None
        else "Add wells of the controls at least, or set unit='cell'"
    )
    return f"No condition and no line's controls have two {of}{within}, so the variance between replicates cannot be estimated. {fix}."


def check_option(argument: str, value: object, options: Collection[str]) -> None:
    """Raise ValueError if `value` is not among `options`."""
    if not isinstance(value, str) or value not in options:
        close = nearest(value, options, n=1, cutoff=0.6)
        meant = f"Did you mean {close[0]!r}? " if close else ""
        raise ValueError(
            f"{argument}={shown(value)} does not exist. {meant}There is: {listed(options, n=len(options))}."
        )


def check_whole(argument: str, value: object, *, least: int = 0) -> None:
    """Raise ValueError unless `value` is a whole number of at least `least`."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{argument} must be at least {least}, and a whole number, got {value!r}.")


def warn_of_columns(table: pd.DataFrame, optional: Collection[str], where: str) -> None:
    """Warn of columns that are probably misspelled names of optional columns, which would be ignored in silence."""
    absent = [name for name in optional if name not in table]
    for column in [str(name) for name in table.columns if name not in optional]:
        if close := nearest(column, absent, n=1, cutoff=0.75):
            warn(f"{where} has a column {column!r}, which is not read. If it is {close[0]!r}, rename it.")


def check_effect(value: object) -> float | None:
    """A smallest effect in control SD; ``None`` stands for the default.

    Raises
    ------
    ValueError
        If it is not a number, not finite, or negative.
    """
    if value is None:
        return None
    number = isinstance(value, Real) and not isinstance(value, bool | np.bool_)
    if not number or not np.isfinite(value) or value < 0:
        raise ValueError(
            f"min_effect={value!r} is no effect: pass a finite number of control standard deviations, 0 (every effect counts) or "
            "more, or None for the default."
        )
    return float(value)


def check_key_added(key: str) -> None:
    """Raise ValueError for a key that h5ad and zarr cannot hold."""
    if not isinstance(key, str) or not key:
        raise ValueError(f"key_added={key!r} must be a string that is not empty.")
    if "/" in key:
        raise ValueError(
            f"key_added={key!r} contains '/', which h5ad and zarr cannot round-trip. Use {key.replace('/', '_')!r}."
        )
