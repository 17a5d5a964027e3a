"""Queries of a model: drugs by name, SMILES or features, at doses, with their validation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scgim._checks import control_names, listed, nearest, warn_of_alike
from scgim._combinations import combination_name
from scgim._doses import as_one
from scgim.data._drug_table import check_feature_table
from scgim.module import Rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scgim.data._design import ScreenDesign
    from scgim.data._drug_table import DrugTable
    from scgim.module import TreatmentInputs


@dataclass(frozen=True)
class Query:
    """Drugs or combinations x doses, one row each, in the order of the request. A row has a part for each of its drugs."""

    drug: np.ndarray  # (rows,) name; the names of a combination are joined by " + " in alphabetical order
    dose: np.ndarray  # (rows,) NaN for combinations
    smiles: np.ndarray  # (rows,)
    row: np.ndarray  # (parts,) row of the part, ascending
    part: np.ndarray  # (parts,) name of the drug
    part_dose: np.ndarray  # (parts,)
    index: np.ndarray  # (parts,) training index, -1 if unseen
    features: np.ndarray  # (parts, features) scaled; NaN for a drug without features

    @property
    def featured(self) -> np.ndarray:
        """Parts with features, ``(parts,)`` bool; all parts in a screen without features."""
        return ~np.isnan(self.features).any(1)

    @property
    def combined(self) -> np.ndarray:
        """Rows that are combinations, ``(rows,)`` bool."""
        return np.bincount(self.row, minlength=len(self.drug)) > 1

    @property
    def doses(self) -> np.ndarray:
        """Doses of every row as text: ``"0.5 + 2"`` for a combination."""
        text = np.array([f"{dose:g}" for dose in self.part_dose], dtype=object)
        known = ~np.isnan(self.part_dose)  # a row without doses has an empty text
        return np.array([" + ".join(text[known & (self.row == i)]) for i in range(len(self.drug))], dtype=object)

    @property
    def treatments(self) -> np.ndarray:
        """Names of drugs and combinations as in the design, ``(rows,)``."""
        names = self.drug.copy()
        for i in np.flatnonzero(self.combined):
            at = self.row == i
            names[i] = combination_name(tuple(zip(self.part[at], self.part_dose[at], strict=True)))
        return names

    def with_treatments(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Predicted rows (columns drug and, with combinations, doses) with the names of treatments as drugs."""
        if not self.combined.any():
            return rows
        names = dict(zip(zip(self.drug, self.doses, strict=True), self.treatments, strict=True))
        return rows.assign(drug=[names[each] for each in zip(rows["drug"], rows["doses"], strict=True)])

    def rows(self, design: ScreenDesign, line: str) -> Rows:
        """Arguments of :class:`~scgim.module.Responses` for the rows in a cell line, with the dose of the first drug of every row."""
        first = np.searchsorted(self.row, np.arange(len(self.drug)))
        inputs = self.inputs(design, line)
        index = np.where(self.combined, pd.Index(design.treatments).get_indexer(self.treatments), self.index[first])
        return Rows(index, inputs.log_dose.numpy()[first], np.full(len(first), design.line_index(line)))

    @classmethod
    def concatenated(cls, queries: Sequence[Query]) -> Query:
        """The rows of several queries, one query after the other."""
        sizes = np.array([len(query.drug) for query in queries])
        start = np.cumsum(sizes) - sizes
        row = np.concatenate([query.row + first for query, first in zip(queries, start, strict=True)])
        joined = {
            name: np.concatenate([getattr(query, name) for query in queries])
            for name in ("drug", "dose", "smiles", "part", "part_dose", "index", "features")
        }
        return cls(row=row, **joined)

    def alone(self, row: int) -> Query:
        """The drugs of a row, each as a separate row."""
        at = np.flatnonzero(self.row == row)
        name, dose = self.part[at], self.part_dose[at]
        blank = np.full(len(at), "", dtype=object)
        return Query(name, dose, blank, np.arange(len(at)), name, dose, self.index[at], self.features[at])

    def inputs(self, design: ScreenDesign, line: str) -> TreatmentInputs:
        """Inputs of the generator for every part in a cell line."""
        at = np.full(len(self.index), design.line_index(line))
        return design.encode(self.features, self.index, self.part_dose, at)


def resolve(
    design: ScreenDesign,
    table: DrugTable,
    *,
    control: str | Sequence[str],
    pools_drugs: bool,
    drug: str | tuple[str, ...] | Sequence[str | tuple[str, ...]] | None = None,
    smiles: str | Sequence[str] | None = None,
    features: pd.DataFrame | None = None,
    dose: float | tuple[float, ...] | Sequence[float | tuple[float, ...]] | None = None,
) -> Query:
    """Validate the arguments of :meth:`scgim.GIM.predict` and look up the drugs."""
    if drug is None and (smiles is not None or features is not None):
        what = "smiles" if smiles is not None else "features"
        raise ValueError(f"{what}= was passed without drug=, the names that it belongs to.")
    asked = _measured(design, dose) if drug is None else _names(drug, control, design.drugs)
    drugs = list(dict.fromkeys(name for names in asked for name in names))
    structures = None if smiles is None else _structures(drug, asked, smiles)
    given = _given_features(table, drugs, structures, features)
    frame = table.frame if given is None else pd.concat([table.frame.drop(index=given.index, errors="ignore"), given])
    measured, known = set(design.drugs.tolist()), set(frame.index)
    blind = set(frame.index[frame.isna().any(axis=1)])
    for name in drugs:
        if name not in measured and not pools_drugs:
            raise ValueError(
                f"{name!r} was not measured in training (nearest name: {listed(nearest(name, design.drugs, n=1))}), and "
                "generator='identity' knows nothing of other drugs. Train with drug features (features_key or smiles_key) "
                "and generator='hill'."
            )
        if name in blind and name not in measured:
            raise ValueError(
                f"{name!r} has no features and was not measured in training, so nothing is known of it. Only measured drugs can "
                "do without features."
            )
        if name not in known:
            ask, close = "smiles=" if table.source == "smiles" else "features=", listed(nearest(name, frame.index, n=1))
            raise KeyError(f"Drug {name!r} is unknown (nearest known name: {close}). For a new drug pass {ask}.")
    warn_of_alike(drugs, design.drugs.tolist(), "drug=")
    rows = list(_rows(design, asked, dose))
    parts = [
        (i, name, value) for i, (names, values) in enumerate(rows) for name, value in zip(names, values, strict=True)
    ]
    row, part, part_dose = (list(column) for column in zip(*parts, strict=True))
    structures = table.smiles | (structures or {})
    index = {name: i for i, name in enumerate(design.drugs)}
    return Query(
        drug=np.array([" + ".join(names) for names, _ in rows], dtype=object),
        dose=np.array([values[0] if len(values) == 1 else np.nan for _, values in rows], dtype=np.float64),
        # SMILES separate molecules by a dot.
        smiles=np.array(
            [".".join(filter(None, (structures.get(n, "") for n in names))) for names, _ in rows], dtype=object
        ),
        row=np.array(row),
        part=np.array(part, dtype=object),
        part_dose=np.array(part_dose, dtype=np.float64),
        index=np.array([index.get(name, -1) for name in part]),
        # A contiguous layout, because the last bit of matrix products depends on the layout of the table.
        features=np.ascontiguousarray(frame.reindex(part).to_numpy(np.float64).reshape(len(part), -1))
        / design.feature_scale,
    )


def _measured(design: ScreenDesign, dose: object) -> list[tuple[str, ...]]:
    """Drugs that were measured alone and, without requested doses, measured combinations."""
    combined = {tuple(name for name, _ in parts): None for parts in design.combinations().values()}
    return [(name,) for name in design.alone.tolist()] + (list(combined) if dose is None else [])


def _rows(
    design: ScreenDesign, asked: list[tuple[str, ...]], dose: object
) -> Iterator[tuple[tuple[str, ...], tuple[float, ...]]]:
    """Every drug or combination with its doses. The drugs of a combination are in alphabetical order."""
    most = max(map(len, asked))
    alone, together = (_doses(design, dose), []) if most == 1 else _split_doses(design, dose)
    for names in asked:
        if dose is None:
            # The drugs of a combination are in alphabetical order in the design, and in the requested order here.
            order = np.argsort(np.array(names, dtype=str), kind="stable")
            measured = design.measured_doses([names[i] for i in order]) if len(names) > 1 else []
            values = [tuple(value[i] for i in np.argsort(order)) for value in measured]
            values = values or list(product(*(design.doses_of(name) for name in names)))
        elif len(names) == 1:
            values = [(value,) for value in alone]
        else:
            values = [value for value in together if len(value) == len(names)]
        if not values:
            raise ValueError(
                f"No dose was given for {' + '.join(names)!r}: pass "
                + (f"dose={tuple([1.0] * len(names))!r}, one for each of its drugs." if len(names) > 1 else "a number.")
            )
        order = np.argsort(np.array(names, dtype=str), kind="stable")
        for value in values:
            yield tuple(names[i] for i in order), tuple(float(value[i]) for i in order)


def _split_doses(design: ScreenDesign, dose: object) -> tuple[np.ndarray, list[tuple[float, ...]]]:
    """Doses of single drugs (numbers) and of combinations (tuples). A single tuple is the dose of a combination."""
    if dose is None:
        return np.empty(0), []
    entries = [dose] if isinstance(dose, tuple) or not np.iterable(dose) else list(dose)
    together = [entry for entry in entries if isinstance(entry, tuple)]
    numbers = [entry for entry in entries if not isinstance(entry, tuple)]
    for entry in together:
        if not entry:
            raise ValueError("A combination takes a tuple of doses, one for each of its drugs; got ().")
        for value in entry:
            if np.ndim(value):
                raise ValueError(
                    f"A combination takes a tuple of numbers, got {entry!r}. Several of them come as a list of tuples: "
                    "dose=[(1.0, 2.0), (2.0, 1.0)]."
                )
    together = [tuple(float(_doses(design, value)[0]) for value in entry) for entry in together]
    if len(set(together)) < len(together):
        raise ValueError(f"A dose was asked for more than once: {dose!r}.")
    return _doses(design, numbers) if numbers else np.empty(0), together


def _structures(drug: object, asked: list[tuple[str, ...]], smiles: object) -> dict[str, str]:
    """SMILES by drug. The SMILES of a combination are a tuple, as its names."""
    if isinstance(smiles, Mapping) or isinstance(smiles, bytes) or not np.iterable(smiles):
        raise TypeError(f"smiles is one SMILES or a list of them in the order of drug, not a {type(smiles).__name__}.")
    one = isinstance(smiles, str) or (isinstance(smiles, tuple) and isinstance(drug, tuple))
    given = [smiles] if one else list(smiles)
    if len(given) != len(asked):
        raise ValueError(f"{len(asked)} drugs but {len(given)} SMILES: they are matched one by one.")
    out: dict[str, str] = {}
    for names, entry in zip(asked, given, strict=True):
        entry = entry if isinstance(entry, tuple) else (entry,)
        if len(entry) != len(names):
            raise ValueError(
                f"{' + '.join(names)!r} has {len(names)} drugs but {len(entry)} SMILES: pass a tuple of as many."
            )
        for name, text in zip(names, entry, strict=True):
            if out.setdefault(name, text) != text:
                raise ValueError(f"{name!r} came with two SMILES: {out[name]!r} and {text!r}.")
    return out


def _names(drug: object, control: str | Sequence[str], measured: np.ndarray) -> list[tuple[str, ...]]:
    """Requested drugs and combinations, each as a tuple of names."""
    one = isinstance(drug, (str, tuple)) or not np.iterable(drug)
    entries = [entry if isinstance(entry, tuple) else (entry,) for entry in ([drug] if one else drug)]
    for entry in entries:
        for name in entry:
            if not isinstance(name, str):
                close = listed(nearest(name, measured, n=1))
                raise TypeError(
                    f"A drug is a name (str), got {name!r} of type {type(name).__name__}. Nearest name: {close}."
                )
            if name in control_names(control):
                raise ValueError(f"{name!r} is the control: there is nothing to predict. Leave it out.")
        if not entry or len(set(entry)) < len(entry):
            raise ValueError(f"A combination is a tuple of different drugs, got {entry!r}.")
    entries = [tuple(map(str, entry)) for entry in entries]
    if not entries:
        raise ValueError("No drug was asked for. drug=None means all measured ones.")
    asked = [tuple(sorted(entry)) for entry in entries]
    if len(set(asked)) < len(asked):
        twice = next(entry for entry in asked if asked.count(entry) > 1)
        raise ValueError(f"Drug {' + '.join(twice)!r} was asked for more than once.")
    return entries


def _given_features(
    table: DrugTable, drugs: list[str], smiles: dict[str, str] | None, features: pd.DataFrame | None
) -> pd.DataFrame | None:
    """Features passed by the user, in the model's columns. The features of a measured drug must equal its training features."""
    if smiles is not None and features is not None:
        raise ValueError("Pass smiles or features, not both.")
    if smiles is None and features is None:
        return None
    if table.source == "identity":
        raise ValueError(
            f"{'smiles' if features is None else 'features'}= is of no use to this model, which was set up without drug "
            "features. Pass features_key or smiles_key to setup_anndata."
        )
    if smiles is not None:
        given = _fingerprints(table, drugs, smiles)
    else:
        features = check_feature_table(features, "features")
        absent = [name for name in drugs if name not in features.index]
        if absent:
            close = listed(nearest(absent[0], features.index, n=1))
            raise KeyError(f"features has no row for {absent[0]!r} (nearest: {close}).")
        given = features.loc[drugs]
    missing = sorted(set(table.frame.columns) - set(given.columns))
    if missing:
        raise KeyError(
            f"features lacks {len(missing)} of the model's {table.frame.shape[1]} columns, e.g. {missing[0]!r} "
            f"(nearest: {listed(nearest(missing[0], given.columns, n=1))}). They are matched by name."
        )
    given = given[list(table.frame.columns)].astype(np.float64)
    for name in given.index.intersection(table.frame.index):
        if not np.array_equal(given.loc[name].to_numpy(), table.frame.loc[name].to_numpy()):
            raise ValueError(f"{name!r} has other features than in training. Give a new drug a new name.")
    return given


def _fingerprints(table: DrugTable, drugs: list[str], smiles: dict[str, str]) -> pd.DataFrame:
    if table.source != "smiles":
        raise ValueError(
            f"This model's drug features do not come from SMILES but from {table.source!r}. Pass features= (a DataFrame)."
        )
    from scgim.pp import fingerprints

    return fingerprints({name: smiles[name] for name in drugs})[0]


def _doses(design: ScreenDesign, dose: object) -> np.ndarray | None:
    if dose is None:
        return None
    if not design.dosed:
        raise ValueError(f"dose={dose!r} was asked for, but the model was set up without dose_key.")
    try:
        doses = np.atleast_1d(np.asarray(dose, dtype=np.float64)).ravel()
    except (ArithmeticError, TypeError, ValueError):
        doses = np.array([])
    if not len(doses) or not (np.isfinite(doses) & (doses >= 0)).all():
        raise ValueError(f"Doses must be numbers, finite and not negative, in the unit of set-up; got {dose!r}.")
    doses = as_one(doses, design.known_doses)
    if len(np.unique(doses)) < len(doses):
        raise ValueError(f"A dose was asked for more than once: {dose!r}.")
    return doses
