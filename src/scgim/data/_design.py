"""The design of a screen in plain arrays: which drugs, doses and lines were measured, and what is known of the drugs."""

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
        Their features divided by ``feature_scale``, ``(drugs, features)``.
    feature_scale
        Largest absolute value of each feature over training drugs, 1 where that is 0.
    lines
        Cell lines, sorted; one nameless line where there is no ``cell_line_key``.
    drug, dose, line
        Of every condition: index, value (NaN without doses), index.
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
        """From conditions (columns drug, dose, line) and the raw feature table (index = drugs)."""
        drugs = np.unique(conditions["drug"].to_numpy(str))
        raw = table.loc[drugs].to_numpy(np.float64) if table.shape[1] else np.zeros((len(drugs), 0))
        scale = np.abs(raw).max(0) if len(raw) else np.ones(raw.shape[1])
        scale = np.where(scale > 0, scale, 1.0)
        return cls(
            drugs=drugs,
            features=np.ascontiguousarray(
                raw / scale
            ),  # the layout of a file: others differ in the last bit of a product
            feature_scale=scale,
            lines=lines,
            drug=np.searchsorted(drugs, conditions["drug"].to_numpy(str)),
            dose=conditions["dose"].to_numpy(np.float64),
            line=np.searchsorted(lines, conditions["line"].to_numpy(str)),
        )

    @property
    def dosed(self) -> bool:
        """Whether conditions have doses."""
        return not np.isnan(self.dose).any()

    @property
    def reference_dose(self) -> float:
        """Geometric mean of training doses, so that nothing depends on the dose's unit."""
        return float(np.exp(np.log(self.dose).mean())) if self.dosed else 1.0

    @property
    def log_doses(self) -> list[float]:
        """Distinct training doses over :attr:`reference_dose`, logged and sorted; none without doses."""
        return np.unique(np.log(self.dose / self.reference_dose)).tolist() if self.dosed else []

    def inputs(self) -> TreatmentInputs:
        """Of the training conditions."""
        return self.encode(self.features[self.drug], self.drug, self.dose, self.line)

    def encode(self, features: np.ndarray, drug: np.ndarray, dose: np.ndarray, line: np.ndarray) -> TreatmentInputs:
        """As the generator takes them: scaled features ``(rows, features)``, drug and line index (-1 unseen), dose."""
        with np.errstate(divide="ignore"):  # no drug: the log of 0 is where the dose response is 0
            log_dose = np.log(dose / self.reference_dose) if self.dosed else np.zeros(len(drug))
        drug, line = (torch.as_tensor(np.asarray(index, dtype=np.int64)) for index in (drug, line))
        return TreatmentInputs(torch.as_tensor(features), drug, torch.as_tensor(log_dose), line)

    def line_index(self, name: str) -> int:
        """Place of a line, -1 if it was not in training."""
        place = np.flatnonzero(self.lines == name)
        return int(place[0]) if len(place) else -1

    def names(self) -> pd.DataFrame:
        """Conditions by name: drug, dose, cell_line."""
        return pd.DataFrame({"drug": self.drugs[self.drug], "dose": self.dose, "cell_line": self.lines[self.line]})

    def resampling_blocks(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Conditions that a bootstrap draws together, those of one drug in one line, and their drug, within which lines are drawn.

        ``None`` with a single line: a drug's conditions are then all the evidence of what it does, and without them the data
        would not be as they might have been.
        """
        if len(self.lines) < 2:
            return None
        _, block = np.unique(self.drug * len(self.lines) + self.line, return_inverse=True)
        return block, self.drug

    def doses_of(self, drug: str) -> np.ndarray:
        """A drug's own training doses, all training doses for an unseen one; one NaN where nothing is dosed."""
        if not self.dosed:
            return np.array([np.nan])
        own = self.dose[self.drugs[self.drug] == drug]
        return np.unique(own if len(own) else self.dose)


def group_conditions(obs: pd.DataFrame, keys: Sequence[str]) -> tuple[pd.DataFrame, np.ndarray]:
    """Unique rows of some columns, sorted, and the code of every row of ``obs``."""
    groups = obs.groupby(list(keys), sort=True, dropna=False, observed=True)
    code = groups.ngroup().to_numpy()
    first = np.unique(code, return_index=True)[1]
    return obs.iloc[first][list(keys)].reset_index(drop=True), code


def condition_keys(table: pd.DataFrame) -> Iterator[tuple[str, float | None, str]]:
    """Drug, dose and line of every row as a key; NaN, which equals nothing, becomes None."""
    for drug, dose, line in table.itertuples(index=False, name=None):
        yield drug, None if np.isnan(dose) else float(dose), line
