"""The design of a screen in plain arrays: measured drugs, doses and lines, and the features of the drugs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from scgim.module import TreatmentInputs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scgim._combinations import Combinations, Parts


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
        Index of the treatment, dose (NaN without doses and for combinations) and index of the line of every condition. The index of a
        combination is its place after the drugs.
    combination, part, part_dose
        Names of the measured combinations, sorted, ``(combinations,)``; index of their drugs (-1 for none) and doses (0 for none),
        ``(combinations, most drugs)``. Empty in models of older versions.
    """

    drugs: np.ndarray
    features: np.ndarray
    feature_scale: np.ndarray
    lines: np.ndarray
    drug: np.ndarray
    dose: np.ndarray
    line: np.ndarray
    combination: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=str))
    part: np.ndarray = field(default_factory=lambda: np.zeros((0, 1), dtype=np.int64))
    part_dose: np.ndarray = field(default_factory=lambda: np.zeros((0, 1)))

    @classmethod
    def build(
        cls, conditions: pd.DataFrame, table: pd.DataFrame, lines: np.ndarray, combinations: Combinations
    ) -> ScreenDesign:
        """Build the design from conditions (columns drug, dose, line), the raw feature table (index = drugs) and the combinations."""
        treatments = np.unique(conditions["drug"].to_numpy(str))
        combined = np.isin(treatments, list(combinations))
        parts = [combinations[name] for name in treatments[combined]]
        drugs = np.unique([*treatments[~combined], *(name for each in parts for name, _ in each)])
        part, part_dose = padded(parts, drugs)
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
            drug=pd.Index([*drugs, *treatments[combined]]).get_indexer(conditions["drug"]),
            dose=conditions["dose"].to_numpy(np.float64),
            line=np.searchsorted(lines, conditions["line"].to_numpy(str)),
            combination=treatments[combined],
            part=part,
            part_dose=part_dose,
        )

    @property
    def featured(self) -> np.ndarray:
        """Drugs with features, ``(drugs,)`` bool; all drugs in a screen without features."""
        return ~np.isnan(self.features).any(1)

    @property
    def treatments(self) -> np.ndarray:
        """Names of the drugs and of the measured combinations."""
        return np.concatenate([self.drugs, self.combination])

    @property
    def alone(self) -> np.ndarray:
        """Names of the drugs that were measured alone, sorted."""
        return self.drugs[np.unique(self.drug[self.drug < len(self.drugs)])]

    @property
    def _drug_doses(self) -> tuple[np.ndarray, np.ndarray]:
        """Index and dose of every drug of every condition, ``(parts,)`` each."""
        if not len(self.combination):
            return self.drug, self.dose
        index, dose = self._parts()
        return index[index >= 0], dose[index >= 0]

    def _parts(self) -> tuple[np.ndarray, np.ndarray]:
        """Index and dose of the drugs of every condition, ``(conditions, most drugs)`` each; -1 and 0 for no drug."""
        index, dose = (np.full((len(self.drugs), self.part.shape[1]), empty) for empty in (-1, 0.0))
        index[:, 0] = np.arange(len(self.drugs))
        index, dose = np.vstack([index, self.part])[self.drug], np.vstack([dose, self.part_dose])[self.drug]
        single = self.drug < len(self.drugs)
        dose[single, 0] = self.dose[single]
        return index, dose

    @property
    def dosed(self) -> bool:
        """Whether conditions have doses."""
        return not np.isnan(self._drug_doses[1]).any()

    @property
    def reference_dose(self) -> float:
        """Geometric mean of training doses, the unit of doses in the model."""
        return float(np.exp(np.log(self._drug_doses[1]).mean())) if self.dosed else 1.0

    @property
    def log_doses(self) -> list[float]:
        """Sorted logs of the distinct training doses over :attr:`reference_dose`; empty without doses."""
        return np.unique(np.log(self._drug_doses[1] / self.reference_dose)).tolist() if self.dosed else []

    @property
    def known_doses(self) -> list[float]:
        """Sorted distinct training doses of all drugs; empty without doses."""
        return np.unique(self._drug_doses[1]).tolist() if self.dosed else []

    def inputs(self) -> TreatmentInputs:
        """Inputs of the generator for the training conditions."""
        if not len(self.combination):
            return self.encode(self.features[self.drug], self.drug, self.dose, self.line)
        index, dose = self._parts()
        return self.encode_parts(self.features[index], index, dose, self.line)

    def encode_parts(
        self, features: np.ndarray, index: np.ndarray, dose: np.ndarray, line: np.ndarray
    ) -> TreatmentInputs:
        """Inputs of drugs and combinations; ``features`` are ``(rows, most drugs, features)``, and a drug of dose 0 is none."""
        more = None
        for slot in reversed(range(dose.shape[1])):
            known = np.where(dose[:, slot, None] == 0, 0.0, features[:, slot])
            more = self.encode(np.ascontiguousarray(known), index[:, slot], dose[:, slot], line)._replace(more=more)
        return more

    def encode(self, features: np.ndarray, drug: np.ndarray, dose: np.ndarray, line: np.ndarray) -> TreatmentInputs:
        """Inputs of the generator from scaled features ``(rows, features)``, drug and line indices (-1: unseen) and doses."""
        with np.errstate(divide="ignore"):  # dose 0 has the log dose -inf, where the dose response is 0
            log_dose = np.log(dose / self.reference_dose) if self.dosed else np.where(dose == 0, -np.inf, 0.0)
        drug, line = (torch.as_tensor(np.asarray(index, dtype=np.int64)) for index in (drug, line))
        return TreatmentInputs(torch.as_tensor(features), drug, torch.as_tensor(log_dose), line)

    def line_index(self, name: str) -> int:
        """Index of a line, -1 for an unseen line."""
        index = np.flatnonzero(self.lines == name)
        return int(index[0]) if len(index) else -1

    def names(self) -> pd.DataFrame:
        """Names of the conditions: columns drug, dose, cell_line."""
        return pd.DataFrame({"drug": self.treatments[self.drug], "dose": self.dose, "cell_line": self.lines[self.line]})

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
        index, dose = self._drug_doses
        own = dose[self.drugs[index] == drug]
        return np.unique(own if len(own) else dose)

    def combinations(self) -> Combinations:
        """Drugs and doses of the measured combinations."""
        doses = self.part_dose if self.dosed else np.where(self.part >= 0, np.nan, 0.0)
        parts = (
            tuple((str(self.drugs[i]), float(dose)) for i, dose in zip(*each, strict=True) if i >= 0)
            for each in zip(self.part, doses, strict=True)
        )
        return dict(zip(self.combination.tolist(), parts, strict=True))

    def measured_doses(self, names: Sequence[str]) -> list[tuple[float, ...]]:
        """Doses of the drugs ``names``, sorted, in measured combinations of them, sorted."""
        found = (parts for parts in self.combinations().values() if [name for name, _ in parts] == list(names))
        return sorted(tuple(dose for _, dose in parts) for parts in found)


def padded(parts: Sequence[Parts], drugs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index among ``drugs`` (-1: unseen or none) and dose (0 for none) of the drugs of every row, ``(rows, most drugs)`` each."""
    most = max(map(len, parts), default=1)
    index, dose = np.full((len(parts), most), -1), np.zeros((len(parts), most))
    for row, each in enumerate(parts):
        index[row, : len(each)] = pd.Index(drugs).get_indexer([name for name, _ in each])
        dose[row, : len(each)] = [value for _, value in each]
    return index, dose


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
