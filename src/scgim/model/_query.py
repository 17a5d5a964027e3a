"""What a user asks of a model: drugs by name, SMILES or features, at doses. Resolved and checked in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from torch import Tensor

from scgim._checks import listed, nearest
from scgim.module import Contexts

from ._design import similarity
from ._features import check_feature_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._design import Design


@dataclass(frozen=True)
class DrugTable:
    """Raw features of every registered drug and where they come from ("features", "smiles", "identity")."""

    frame: pd.DataFrame
    smiles: dict[str, str]
    source: str

    @classmethod
    def from_registry(cls, state: dict) -> DrugTable:
        """From the state of :class:`~scgim.model._fields.DrugTableField`."""
        frame = pd.DataFrame(
            state["values"], index=state["names"].astype(object), columns=state["columns"].astype(object)
        )
        return cls(
            frame, dict(zip(state["names"].tolist(), state["smiles"].tolist(), strict=True)), str(state["source"])
        )


@dataclass(frozen=True)
class Query:
    """Drugs x doses, in the order asked: one row each."""

    drug: np.ndarray  # (rows,) names
    dose: np.ndarray  # (rows,)
    smiles: np.ndarray  # (rows,)
    index: np.ndarray  # (rows,) training index, -1 if unseen
    features: np.ndarray  # (rows, features) scaled

    def take(self, rows: np.ndarray) -> Query:
        """Some rows."""
        return Query(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def contexts(self, design: Design) -> Contexts:
        """As the module takes them; nothing is measured, so cells and means are empty."""
        nothing = Tensor(len(self.drug), 0)
        return Contexts(nothing, nothing, *design.encode(self.features, self.index, self.dose))

    def trust(self, design: Design) -> pd.DataFrame:
        """Columns nearest_drug, similarity, dose_in_range, trust; one row a query.

        trust: "in-domain" for a measured drug within its doses; "edge" for an unseen drug of similarity >= 0.4 or a
        dose outside the range by a factor of up to 2; "extrapolation" beyond. These thresholds are conventions, not
        calibrated on held-out drugs.
        """
        alike = (
            similarity(self.features, design.features)
            if self.features.shape[1]
            else np.zeros((len(self.drug), len(design.drugs)))
        )
        alike[self.index >= 0, self.index[self.index >= 0]] = 1.0
        best = np.where(self.index >= 0, self.index, alike.argmax(1))
        value = alike[np.arange(len(best)), best]
        distance = np.zeros(len(best))
        if design.dosed:
            low, high = np.array([(d.min(), d.max()) for d in map(design.doses_of, self.drug)]).T
            with np.errstate(divide="ignore"):
                distance = np.maximum(np.log2(low / self.dose), np.log2(self.dose / high)).clip(min=0)
        near = (self.index >= 0) | (value >= 0.4)
        trust = np.where(
            (self.index >= 0) & (distance == 0), "in-domain", np.where(near & (distance <= 1), "edge", "extrapolation")
        )
        nearest_drug = np.where(value > 0, design.drugs[best], "")
        return pd.DataFrame(
            {"nearest_drug": nearest_drug, "similarity": value, "dose_in_range": distance == 0, "trust": trust}
        )


def resolve(
    design: Design,
    table: DrugTable,
    *,
    control: str,
    pools_drugs: bool,
    drug: str | Sequence[str] | None = None,
    smiles: str | Sequence[str] | None = None,
    features: pd.DataFrame | None = None,
    dose: float | Sequence[float] | None = None,
) -> Query:
    """Check a request and look its drugs up; see :meth:`scgim.GIM.predict` for what may be asked."""
    if drug is None and (smiles is not None or features is not None):
        what = "smiles" if smiles is not None else "features"
        raise ValueError(f"{what}= was passed without drug=, the names that it belongs to.")
    drugs = design.drugs.tolist() if drug is None else _names(drug, control, design.drugs)
    given = _given_features(table, drugs, smiles, features)
    frame = table.frame if given is None else pd.concat([table.frame.drop(index=given.index, errors="ignore"), given])
    measured, known = set(design.drugs.tolist()), set(frame.index)
    for name in drugs:
        close = listed(nearest(name, design.drugs if not pools_drugs else frame.index, n=1))
        if name not in measured and not pools_drugs:
            raise ValueError(
                f"{name!r} was not measured in training (nearest name: {close}), and generator='identity' knows nothing of "
                "other drugs. Train with drug features (features_key or smiles_key) and generator='hill'."
            )
        if name not in known:
            ask = "smiles=" if table.source == "smiles" else "features="
            raise KeyError(f"Drug {name!r} is unknown (nearest known name: {close}). For a new drug pass {ask}.")
    doses = _doses(design, dose)
    pairs = [(name, value) for name in drugs for value in (design.doses_of(name) if doses is None else doses)]
    names = [name for name, _ in pairs]
    structures = table.smiles | ({} if smiles is None else dict(zip(drugs, _listed(smiles), strict=True)))
    index = {name: i for i, name in enumerate(design.drugs)}
    return Query(
        drug=np.array(names, dtype=object),
        dose=np.array([value for _, value in pairs], dtype=np.float64),
        smiles=np.array([structures.get(name, "") for name in names], dtype=object),
        index=np.array([index.get(name, -1) for name in names]),
        features=frame.reindex(names).to_numpy(np.float64).reshape(len(names), -1) / design.feature_scale,
    )


def _names(drug: object, control: str, measured: np.ndarray) -> list[str]:
    one = isinstance(drug, (str, tuple)) or not np.iterable(drug)
    drugs = [str(name) if isinstance(name, str) else name for name in ([drug] if one else drug)]
    for name in drugs:
        if isinstance(name, tuple):
            raise ValueError(
                f"{name!r} is a combination; this version predicts single drugs. Several of them, each on its own: "
                f"drug={list(name)!r}."
            )
        if not isinstance(name, str):
            close = listed(nearest(name, measured, n=1))
            raise TypeError(
                f"A drug is a name (str), got {name!r} of type {type(name).__name__}. Nearest name: {close}."
            )
        if name == control:
            raise ValueError(f"{name!r} is the control: there is nothing to predict. Leave it out.")
    if not drugs:
        raise ValueError("No drug was asked for. drug=None means all measured ones.")
    if len(set(drugs)) < len(drugs):
        raise ValueError(f"Drug {next(n for n in drugs if drugs.count(n) > 1)!r} was asked for more than once.")
    return drugs


def _listed(value: str | Sequence[str]) -> list:
    return [value] if isinstance(value, str) else list(value)


def _given_features(
    table: DrugTable, drugs: list[str], smiles: object, features: pd.DataFrame | None
) -> pd.DataFrame | None:
    """Rows that the caller brought, in the model's columns; a measured drug must agree with its own."""
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


def _fingerprints(table: DrugTable, drugs: list[str], smiles: object) -> pd.DataFrame:
    if table.source != "smiles":
        raise ValueError(
            f"This model's drug features do not come from SMILES but from {table.source!r}. Pass features= (a DataFrame)."
        )
    if isinstance(smiles, Mapping) or not np.iterable(smiles):
        raise TypeError(f"smiles is one SMILES or a list of them in the order of drug, not a {type(smiles).__name__}.")
    given = _listed(smiles)
    if len(given) != len(drugs):
        raise ValueError(f"{len(drugs)} drugs but {len(given)} SMILES: they are matched one by one.")
    from scgim.pp import fingerprints

    return fingerprints(dict(zip(drugs, given, strict=True)))[0]


def _doses(design: Design, dose: object) -> np.ndarray | None:
    if dose is None:
        return None
    if not design.dosed:
        raise ValueError(f"dose={dose!r} was asked for, but the model was set up without dose_key.")
    try:
        doses = np.atleast_1d(np.asarray(dose, dtype=np.float64)).ravel()
    except (TypeError, ValueError):
        doses = np.array([])
    if not len(doses) or not (np.isfinite(doses) & (doses >= 0)).all():
        raise ValueError(f"Doses must be numbers, finite and not negative, in the unit of set-up; got {dose!r}.")
    if len(np.unique(doses)) < len(doses):
        raise ValueError(f"A dose was asked for more than once: {dose!r}.")
    return doses
