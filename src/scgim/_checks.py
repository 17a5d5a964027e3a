"""Checks of what the user passes in; every error names the value, the nearest right one and the fix."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from anndata import AnnData


def nearest(value: object, options: Iterable[object], *, n: int = 3, cutoff: float = 0.0) -> list[str]:
    """The `n` options most like `value`, best first, blind to case and to spaces around; fewer if there are fewer.

    `cutoff` is difflib's. Its own default of .6 hides a short name behind its long form, as in "JQ1" for "(+/-)-JQ1".

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
    """The first `n` values, quoted, and how many more there are.

    Examples
    --------
    >>> listed(["A-485", "JQ1", "SAHA"], n=2)
    "'A-485', 'JQ1' and 1 more"
    """
    values = [repr(value if isinstance(value, str) else str(value)) for value in values]
    more = f" and {len(values) - n} more" if len(values) > n else ""
    return ", ".join(values[:n]) + more


def refuse_view(adata: AnnData) -> None:
    """Raise ValueError for a view: what is written to it never reaches the AnnData that it shows."""
    if adata.is_view:
        raise ValueError(
            "adata is a view of another AnnData, which would not get the result. Pass a copy: adata = adata.copy()."
        )


def check_obs_column(adata: AnnData | pd.DataFrame, key: str, *, allow_missing: bool = False) -> pd.Series:
    """The column `key` of `adata.obs` (or of `obs` itself), as it is.

    Raises
    ------
    KeyError
        If there is no such column, with the nearest ones.
    ValueError
        If there are two of that name, or if values are missing and `allow_missing` is false.
    """
    obs = adata if isinstance(adata, pd.DataFrame) else adata.obs
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
    """`check_obs_column` without missing values, as strings; values that differ only in type are refused."""
    column = check_obs_column(adata, key)
    names = column.astype(str).astype(object)
    if names.nunique() < column.nunique():
        raise ValueError(
            f"obs[{key!r}] holds values that differ only in type, such as 1 and '1'. Make them all strings."
        )
    return names


def check_control(names: pd.Series, control: str, *, key: str) -> None:
    """Raise ValueError if no cell is called `control`, with the nearest and the most frequent names in ``obs[key]``."""
    if not (names == str(control)).any():
        counts = names.value_counts()
        # the control often has the most cells, whatever it is called
        close = dict.fromkeys([*nearest(control, sorted(counts.index)), *counts.index[:1]])
        known = ", ".join(f"{name!r} ({counts[name]:,} cells)" for name in close)
        raise ValueError(
            f"No cell equals control={control!r} in obs[{key!r}]. Nearest and most frequent: {known or 'none'}."
        )


CONTROL_NAMES = {"dmso", "vehicle", "control", "ctrl", "untreated", "mock", "none", "non-targeting"}


def find_control(adata: AnnData, names: Iterable[str]) -> str | None:
    """The control among `names`: ``uns["control"]``, or the one conventional name; ``None`` if there is none, or several."""
    values, noted = sorted(set(names)), adata.uns.get("control")
    found = [noted] if noted in values else [name for name in values if name.strip().casefold() in CONTROL_NAMES]
    return found[0] if len(found) == 1 else None


def check_doses(adata: AnnData | pd.DataFrame, key: str, *, treated: np.ndarray) -> np.ndarray:
    """Doses of the treated cells as float64, NaN for the others, whose own are ignored; (cells,).

    Raises
    ------
    KeyError
        If there is no such column.
    ValueError
        If the dose of a treated cell is missing, not a number, not positive or not finite.
    """
    column = check_obs_column(adata, key, allow_missing=True).astype(object)
    dose = pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    bad = treated & ~(np.isfinite(dose) & (dose > 0))
    if bad.any():
        raise ValueError(
            f"obs[{key!r}] holds {listed(dict.fromkeys(column[bad]))} for {int(bad.sum()):,} treated cells. "
            "Their doses must be positive numbers, all in one unit; untreated cells carry the control's name."
        )
    return np.where(treated, dose, np.nan)


def check_option(argument: str, value: object, options: Sequence[str]) -> None:
    """Raise ValueError if `value` is not among `options`."""
    if value not in options:
        close = nearest(value, options, n=1, cutoff=0.6)
        meant = f"Did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"{argument}={value!r} does not exist. {meant}There is: {listed(options, n=len(options))}.")


def check_key_added(key: str) -> None:
    """Raise ValueError for a key that h5ad and zarr cannot hold."""
    if not isinstance(key, str) or not key:
        raise ValueError(f"key_added={key!r} must be a string that is not empty.")
    if "/" in key:
        raise ValueError(
            f"key_added={key!r} contains '/', which h5ad and zarr cannot round-trip. Use {key.replace('/', '_')!r}."
        )
