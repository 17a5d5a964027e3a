"""The design of a screen in plain arrays: measured drugs, doses and lines, and the features of the drugs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from scgim.module import TreatmentInputs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True)
class ScreenDesign:
    """Training conditions (drug x dose x line, sorted) and the drugs' features.

    Parameters
    ----------
    drugs
        Names of training drugs, sorted, ``(drugs,)``.
    features
        Features of the drugs divided by ``feature_scale``, ``(drugs, features)``; NaN for a drug without features.
    feature_scale
        Largest absolute value of each feature over training drugs; 1 for features that are 0 in all of them.
    lines
        Cell lines, sorted; a single line without name if there is no ``cell_line_key``.
    drug, dose, line
        Index of the drug, dose (NaN without doses) and index of the line of every condition.
    """

    drugs: np.ndarray
    features: np.ndarray
    feature_scale: np.ndarray
    lines: np.ndarray
    drug: np.ndarray
    dose: np.ndarray
    line: np.ndarray

    @classmethod
    def build(cls, conditions: pd.DataFrame, table: pd.DataFrame, lines: np.ndarray) -> ScreenDesign:
        """Build the design from conditions (columns drug, dose, line) and the raw feature table (index = drugs)."""
        drugs = np.unique(conditions["drug"].to_numpy(str))
        raw = table.loc[drugs].to_numpy(np.float64) if table.shape[1] else np.zeros((len(drugs), 0))
        known = raw[~np.isnan(raw).any(1)]
        scale = np.abs(known).max(0) if len(known) else np.ones(raw.shape[1])
        scale = np.where(scale > 0, scale, 1.0)
        return cls(
            drugs=drugs,
            # A contiguous layout, as in a loaded file. Matrix products of other layouts differ in the last bit.
            features=np.ascontiguousarray(raw / scale),
            feature_scale=scale,
            lines=lines,
            drug=np.searchsorted(drugs, conditions["drug"].to_numpy(str)),
            dose=conditions["dose"].to_numpy(np.float64),
            line=np.searchsorted(lines, conditions["line"].to_numpy(str)),
        )

    @property
    def featured(self) -> np.ndarray:
        """Drugs with features, ``(drugs,)`` bool; all drugs in a screen without features."""
        return ~np.isnan(self.features).any(1)

    @property
    def dosed(self) -> bool:
        """Whether conditions have doses."""
        return not np.isnan(self.dose).any()

    @property
    def reference_dose(self) -> float:
        """Geometric mean of training doses, the unit of doses in the model."""
        return float(np.exp(np.log(self.dose).mean())) if self.dosed else 1.0

    @property
    def log_doses(self) -> list[float]:
        """Sorted logs of the distinct training doses over :attr:`reference_dose`; empty without doses."""
        return np.unique(np.log(self.dose / self.reference_dose)).tolist() if self.dosed else []

    def inputs(self) -> TreatmentInputs:
        """Inputs of the generator for the training conditions."""
        return self.encode(self.features[self.drug], self.drug, self.dose, self.line)

    def encode(self, features: np.ndarray, drug: np.ndarray, dose: np.ndarray, line: np.ndarray) -> TreatmentInputs:
        """Inputs of the generator from scaled features ``(rows, features)``, drug and line indices (-1: unseen) and doses."""
        with np.errstate(divide="ignore"):  # dose 0 has the log dose -inf, where the dose response is 0
            log_dose = np.log(dose / self.reference_dose) if self.dosed else np.zeros(len(drug))
        drug, line = (torch.as_tensor(np.asarray(index, dtype=np.int64)) for index in (drug, line))
        return TreatmentInputs(torch.as_tensor(features), drug, torch.as_tensor(log_dose), line)

    def line_index(self, name: str) -> int:
        """Index of a line, -1 for an unseen line."""
        index = np.flatnonzero(self.lines == name)
        return int(index[0]) if len(index) else -1

    def names(self) -> pd.DataFrame:
        """Names of the conditions: columns drug, dose, cell_line."""
        return pd.DataFrame({"drug": self.drugs[self.drug], "dose": self.dose, "cell_line": self.lines[self.line]})

    def resampling_blocks(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Block of every condition for the bootstrap (a drug in a line), and its drug, within which blocks are drawn.

        ``None`` with a single line: a drug then has one block, so a draw of drugs would omit all data of some drugs.
        """
        if len(self.lines) < 2:
            return None
        _, block = np.unique(self.drug * len(self.lines) + self.line, return_inverse=True)
        return block, self.drug

    def doses_of(self, drug: str) -> np.ndarray:
        """Training doses of a drug, or all training doses for an unseen drug; a single NaN without doses."""
        if not self.dosed:
            return np.array([np.nan])
        own = self.dose[self.drugs[self.drug] == drug]
        return np.unique(own if len(own) else self.dose)


def group_conditions(obs: pd.DataFrame, keys: Sequence[str]) -> tuple[pd.DataFrame, np.ndarray]:
    """Unique rows of the columns ``keys``, sorted, and the index of every row of ``obs`` among them."""
    groups = obs.groupby(list(keys), sort=True, dropna=False, observed=True)
    code = groups.ngroup().to_numpy()
    first = np.unique(code, return_index=True)[1]
    return obs.iloc[first][list(keys)].reset_index(drop=True), code


def condition_keys(table: pd.DataFrame) -> Iterator[tuple[str, float | None, str]]:
    """Drug, dose and line of every row as a key, with None in place of NaN, because NaN does not equal itself."""
    for drug, dose, line in table.itertuples(index=False, name=None):
        yield drug, None if np.isnan(dose) else float(dose), line
