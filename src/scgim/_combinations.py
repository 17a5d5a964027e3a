"""Combinations of drugs in the columns of a screen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scgim._checks import check_obs_column, control_names, listed, shown
from scgim._doses import as_one, parse_number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

Parts = tuple[tuple[str, float], ...]  # name and dose (NaN without doses) of every drug, sorted by name
Combinations = dict[str, Parts]  # by name of the combination


def combination_name(parts: Parts) -> str:
    """Name of a combination: its drugs in alphabetical order, with their doses.

    Examples
    --------
    >>> combination_name((("JQ1", 0.1), ("SAHA", 2.0)))
    'JQ1 (0.1) + SAHA (2)'
    """
    return " + ".join(name if np.isnan(dose) else f"{name} ({dose:.12g})" for name, dose in parts)


def parts_of(treatment: str, dose: float, combinations: Mapping[str, Parts]) -> Parts:
    """Drugs and doses of a combination, or the treatment itself if it is a single drug."""
    return combinations.get(treatment, ((treatment, dose),))


@dataclass(frozen=True)
class Treatments:
    """Treatments of all cells.

    Parameters
    ----------
    name
        Name of the control, the drug or the combination of every cell, ``(cells,)``.
    dose
        Dose of single drugs, ``(cells,)``; NaN for controls and combinations, and without doses.
    combinations
        Drugs and doses of every combination.
    drugs
        The drug of every cell in every column, ``(cells, columns)``; ``""`` for none.
    """

    name: np.ndarray
    dose: np.ndarray
    combinations: Combinations
    drugs: np.ndarray


class TreatmentColumns:
    """Columns of ``.obs`` with the drugs and doses of combinations.

    Parameters
    ----------
    drug_key, dose_key, control, sep
        Arguments ``drug_key``, ``dose_key``, ``control`` and ``combination_sep`` of :meth:`scgim.GIM.setup_anndata`.
    known
        Doses that equal doses become (:func:`scgim._doses.as_one`).
    """

    def __init__(
        self,
        drug_key: str | Sequence[str],
        dose_key: str | Sequence[str] | None,
        control: str | Sequence[str],
        sep: str | None,
        known: Sequence[float] = (),
    ) -> None:
        self.known = known
        self.drug_keys, self.dose_keys, self.sep = _keys(drug_key, "drug_key"), _keys(dose_key, "dose_key"), sep
        self.controls = control_names(control)
        if sep is not None and (not isinstance(sep, str) or not sep.strip()):
            raise ValueError(f"combination_sep={shown(sep)} is no separator: pass a string such as '+', or None.")
        if sep is not None and len(self.drug_keys) > 1:
            raise ValueError(
                "drug_key is a list of columns, and combination_sep splits a single column. Leave one of them out."
            )
        if len(self.dose_keys) > 1 and len(self.dose_keys) != len(self.drug_keys):
            raise ValueError(
                f"drug_key has {len(self.drug_keys)} columns but dose_key has {len(self.dose_keys)}: pass as many, or one for all drugs."
            )

    def read(self, adata: AnnData | pd.DataFrame) -> Treatments:
        """Parse the columns; every distinct row is parsed once.

        Raises
        ------
        KeyError, ValueError
            If a column does not exist, or a row is no valid treatment.
        """
        keys = [*self.drug_keys, *self.dose_keys]
        columns = [_as_written(check_obs_column(adata, key, allow_missing=True)) for key in keys]
        frame = pd.concat(columns, axis=1, keys=range(len(keys)))
        code = frame.groupby(list(frame), dropna=False, sort=False).ngroup().to_numpy()
        distinct = frame.iloc[np.unique(code, return_index=True)[1]]
        combinations: Combinations = {}
        names, doses, slots = [], [], []
        rows = list(distinct.itertuples(index=False, name=None))
        drugs_of = [self._drugs(row[: len(self.drug_keys)]) for row in rows]
        parts_of = [self._parts(drugs, row[len(self.drug_keys) :]) for drugs, row in zip(drugs_of, rows, strict=True)]
        for drugs, parts in zip(drugs_of, self._of_one_dose(parts_of), strict=True):
            slots.append(["" if name in self.controls else name for name in drugs])
            name, dose = parts[0] if len(parts) == 1 else (combination_name(parts), np.nan)
            if not parts:
                name, dose = next(name for name in drugs if name), np.nan
            elif len(parts) > 1:
                combinations[name] = parts
            names.append(name)
            doses.append(dose)
        if clash := sorted({name for name in names if name in combinations} & {n for s in slots for n in s}):
            raise ValueError(
                f"obs[{self.drug_keys[0]!r}] holds the drug {clash[0]!r}, which is also the name of a combination. Rename the drug."
            )
        width = max(map(len, slots))
        table = np.array([slot + [""] * (width - len(slot)) for slot in slots], dtype=object)
        return Treatments(np.array(names, dtype=object)[code], np.array(doses)[code], combinations, table[code])

    def _drugs(self, values: Sequence[object]) -> list[str]:
        """Names in a row, ``""`` for a missing name; at least one name."""
        text = ["" if pd.isna(value) else str(value).strip() for value in values]
        if self.sep is not None and text[0]:
            whole, text = text[0], [name.strip() for name in text[0].split(self.sep)]
            if not all(text):
                raise ValueError(
                    f"obs[{self.drug_keys[0]!r}] holds {whole!r}, which combination_sep={self.sep!r} splits into an empty name. Choose "
                    "a separator that is in no drug's name, or pass drug_key as a list of columns."
                )
        if not any(text):
            raise ValueError(
                f"obs{self.drug_keys!r} names neither a drug nor a control for some cells. Write control={self.controls[0]!r} into "
                "the first column of untreated cells."
            )
        named = [name for name in text if name and name not in self.controls]
        if len(set(named)) < len(named):
            raise ValueError(
                f"obs{self.drug_keys!r} holds {listed(text)} for one cell: a combination has different drugs."
            )
        return text

    def _parts(self, drugs: list[str], values: Sequence[object]) -> Parts:
        """Drugs and doses of a row, sorted by name; empty for a control."""
        doses = self._doses(values, len(drugs))
        parts = [(name, dose) for name, dose in zip(drugs, doses, strict=True) if name and name not in self.controls]
        bad = [name for name, dose in parts if self.dose_keys and not (np.isfinite(dose) and dose > 0)]
        if bad:
            raise ValueError(
                f"obs{self.dose_keys!r} holds {listed(values)} for {' + '.join(filter(None, drugs))!r}, and no dose of {bad[0]!r} in it. Doses of drugs must be "
                "positive and finite numbers, all in one unit, one for each drug or one for all. The unit goes into dose_unit."
            )
        return tuple(sorted(parts))

    def _of_one_dose(self, rows: list[Parts]) -> list[Parts]:
        """The same treatments, with doses that differ by rounding made equal."""
        every = [dose for parts in rows for _, dose in parts]
        same = dict(zip(every, as_one(every, self.known).tolist(), strict=True))
        return [tuple((name, same.get(dose, dose)) for name, dose in parts) for parts in rows]

    def _doses(self, values: Sequence[object], n: int) -> list[float]:
        """A dose for each of ``n`` drugs, NaN if it cannot be read."""
        if not values:
            return [np.nan] * n
        if self.sep is not None and isinstance(values[0], str) and self.sep in values[0]:
            values = values[0].split(self.sep)
        doses = [parse_number(value) for value in values]
        return doses * n if len(doses) == 1 else doses if len(doses) == n else [np.nan] * n


def _as_written(column: pd.Series) -> pd.Series:
    """Values as objects; a float32 number becomes the number as written."""
    return (column.astype(str).astype(float) if column.dtype == np.float32 else column).astype(object)


def plain_key(key: Any) -> Any:
    """A column, or several columns as a list, which can be saved."""
    return key if key is None or isinstance(key, str) else list(key)


def _keys(key: str | Sequence[str] | None, what: str) -> list[str]:
    """Names of one or several columns."""
    if key is None:
        return []
    keys = [key] if isinstance(key, str) else list(key)
    if not keys or len(set(keys)) < len(keys):
        raise ValueError(f"{what}={key!r} must name at least one column, and every column once.")
    return keys
