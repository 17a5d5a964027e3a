"""Tables of drug features that users bring."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scgim._checks import listed, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData


def feature_table(adata: AnnData, key: str, *, drugs: Sequence[str], control: str) -> pd.DataFrame:
    """``uns[key]`` without the control's row; it must be sound and have a row for each of ``drugs``."""
    if key not in adata.uns:
        close = listed(nearest(key, list(adata.uns))) or "none"
        raise KeyError(
            f"uns[{key!r}] does not exist. Nearest keys: {close}. scgim.pp.featurize_drugs(adata, ...) writes one."
        )
    where, table = f"uns[{key!r}]", adata.uns[key]
    table = check_feature_table(table.drop(index=control, errors="ignore") if _is_frame(table) else table, where)
    missing = sorted(set(drugs) - set(table.index))
    if missing:
        close = listed(nearest(missing[0], list(table.index), n=1)) or "none"
        raise ValueError(
            f"{len(missing)} drugs have no row in {where}: {listed(missing)} (nearest row to the first: {close}). "
            "The index holds the drugs' names as they are in obs."
        )
    return table


def check_feature_table(table: pd.DataFrame, where: str) -> pd.DataFrame:
    """The table as float64, if it is a DataFrame with unique strings as index and columns, and finite numbers.

    Raises
    ------
    TypeError, ValueError
        Naming the label or the value, and the fix.
    """
    if not _is_frame(table):
        raise TypeError(f"{where} is a {type(table).__name__}; drug features are a DataFrame with drug names as index.")
    for axis, labels in (("index", table.index), ("columns", table.columns)):
        alien = [label for label in labels if not isinstance(label, str)]
        if alien:
            raise TypeError(
                f"The {axis} of {where} must be strings, but holds {alien[0]!r}: table.{axis} = table.{axis}.astype(str)."
            )
        if labels.has_duplicates:
            raise ValueError(f"The {axis} of {where} holds {labels[labels.duplicated()][0]!r} more than once.")
    if not table.shape[1]:
        raise ValueError(f"{where} has no columns, so it says nothing of the drugs.")
    numbers = table.astype(object).apply(pd.to_numeric, errors="coerce").astype(np.float64)
    bad = np.argwhere(~np.isfinite(numbers.to_numpy()))
    if len(bad):
        row, column = bad[0]
        raise ValueError(
            f"{where} must hold finite numbers, but is not finite for drug {table.index[row]!r}, feature "
            f"{table.columns[column]!r}: {listed([table.iloc[row, column]])}."
        )
    return numbers


def _is_frame(table: object) -> bool:
    return isinstance(table, pd.DataFrame)
