"""Files shipped inside the package."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable


def resource(name: str) -> Traversable:
    """The shipped file ``name``, for any installation of the package (zip archives included)."""
    return files("scgim.datasets") / "data" / name


def read_table(name: str) -> pd.DataFrame:
    """A shipped CSV file. Empty fields stay empty strings, because an empty SMILES is not a missing value here."""
    with resource(name).open(encoding="utf-8") as file:
        return pd.read_csv(file, keep_default_na=False)
