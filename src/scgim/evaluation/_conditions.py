from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ConditionTable:
    """Conditions (drug x dose x cell line) as baselines see them: their inputs, and the change of the mean cell.

    Parameters
    ----------
    names
        Columns drug, dose (NaN without doses), cell_line.
    features
        Features of each condition's drug, ``(conditions, features)``, NaN for a drug without features; no columns in a screen without
        features.
    change
        Mean change from the condition's own controls in control SD, ``(conditions, genes)``.
    n
        Number of cells, ``(conditions,)``.
    """

    names: pd.DataFrame
    features: np.ndarray
    change: np.ndarray
    n: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    @property
    def drug(self) -> np.ndarray:
        """Names of drugs, ``(conditions,)``."""
        return self.names["drug"].to_numpy(str)

    @property
    def line(self) -> np.ndarray:
        """Names of lines, ``(conditions,)``."""
        return self.names["cell_line"].to_numpy(str)

    @property
    def log_dose(self) -> np.ndarray:
        """Natural log of the dose, 0 without doses, ``(conditions,)``."""
        dose = self.names["dose"].to_numpy(float)
        return np.where(np.isnan(dose), 0.0, np.log(np.where(np.isnan(dose), 1.0, dose)))

    def take(self, rows: np.ndarray) -> Self:
        """Some conditions."""
        return replace(
            self,
            names=self.names.iloc[rows].reset_index(drop=True),
            features=self.features[rows],
            change=self.change[rows],
            n=self.n[rows],
        )
