"""Columns of a screen: drug, dose, line, batch and split of every cell, with their validation."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scgim._checks import (
    check_control,
    check_doses,
    check_names,
    control_names,
    has_replicates,
    is_control,
    listed,
    no_replicates,
    warn,
)
from scgim._combinations import Combinations, TreatmentColumns, Treatments
from scgim._doses import rounded
from scgim._genetic_arms import COLUMNS, genetic_arms
from scgim._look_alikes import doubted_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData


LEAST_CONTROLS = {"cell": 4, "well": 2}  # control rows of a line and batch; fewer are warned of


@dataclass(frozen=True)
class ScreenColumns:
    """Arguments of :meth:`scgim.GIM.setup_anndata` that name columns of ``.obs`` and the controls."""

    drug_key: str | Sequence[str]
    control: str | Sequence[str]
    dose_key: str | Sequence[str] | None = None
    dose_unit: str | None = None
    cell_line_key: str | None = None
    batch_key: str | None = None
    split_key: str | None = None
    intervention_key: str | None = None
    replicate_key: str | None = None
    unit: str | None = None
    combination_sep: str | None = None
    known_doses: Sequence[float] | None = (
        None  # doses of a trained model, which equal doses become; no argument of set-up
    )

    @classmethod
    def of_setup(cls, arguments: dict) -> ScreenColumns:
        """Select these columns from the arguments of :meth:`scgim.GIM.setup_anndata`."""
        return cls(**{field.name: arguments.get(field.name) for field in fields(cls)})

    @property
    def combined(self) -> bool:
        """Whether the columns may contain combinations of drugs."""
        return self.combination_sep is not None or not isinstance(self.drug_key, str)

    def treatments(self, adata: AnnData | pd.DataFrame) -> Treatments:
        """Treatments of all cells in a screen with combinations."""
        return TreatmentColumns(
            self.drug_key, self.dose_key, self.control, self.combination_sep, self.known_doses or ()
        ).read(adata)

    def combinations(self, adata: AnnData) -> Combinations:
        """Drugs and doses of every combination, by the name in :meth:`table`."""
        return self.treatments(adata).combinations if self.combined else {}

    def names(self, adata: AnnData | pd.DataFrame) -> pd.Series:
        """Name of the control, drug or combination of every cell."""
        if not self.combined:
            return check_names(adata, self.first_key)
        obs = adata if isinstance(adata, pd.DataFrame) else adata.obs
        return pd.Series(self.treatments(adata).name, index=obs.index)

    def table(self, adata: AnnData, *, split: bool = True) -> pd.DataFrame:
        """Columns drug, dose, line, batch (str, float, str, str), control and train (bool); one row per cell.

        Without ``split`` every cell is a training cell. Controls of several names have the first of the names as their drug. The drug of
        a combination is its name, and its dose is NaN.
        """
        dose: np.ndarray | float = np.nan
        if self.combined:
            found = self.treatments(adata)
            drug, dose = pd.Series(found.name, index=adata.obs.index), found.dose
            control = is_control(drug, self.control)
        else:
            drug = check_names(adata, self.first_key)
            control = is_control(drug, self.control)
            if self.dose_key is not None:
                dose = check_doses(adata, self.dose_key, treated=~control, known=self.known_doses or ())
        table = pd.DataFrame(
            {
                "drug": drug.mask(control, control_names(self.control)[0]),
                "dose": dose,
                "line": "" if self.cell_line_key is None else check_names(adata, self.cell_line_key),
                "batch": "" if self.batch_key is None else check_names(adata, self.batch_key),
                "control": control,
                "train": True if self.split_key is None or not split else check_names(adata, self.split_key) == "train",
            }
        )
        return table.rename_axis(index=None)  # pandas takes an index called "drug" for a column

    @property
    def first_key(self) -> str:
        """The column of drugs, or the first of several."""
        return self.drug_key if isinstance(self.drug_key, str) else self.drug_key[0]

    def genetic_arms(self, adata: AnnData) -> pd.DataFrame:
        """Perturbed genes of the genetic arms: columns drug, gene and kind; no row without ``intervention_key``."""
        if self.intervention_key is None:
            return pd.DataFrame(columns=list(COLUMNS), dtype=object)
        return genetic_arms(adata, self.intervention_key, self.table(adata), self.combinations(adata))

    def with_replicates(self, table: pd.DataFrame, adata: AnnData) -> pd.DataFrame:
        """The table with the replicate of every cell in a column of its own, if replicates are declared."""
        if self.replicate_key is not None:
            return table.assign(replicate=check_names(adata, self.replicate_key).to_numpy())
        return table.assign(replicate=np.arange(len(table))) if self.unit == "well" else table

    def validate(self, adata: AnnData) -> pd.DataFrame:
        """Validate the columns and return the table.

        Raises
        ------
        KeyError, TypeError, ValueError
            If the columns do not describe a valid screen. The message names the column and the value.
        """
        if (self.dose_key is None) != (self.dose_unit is None):
            missing = "dose_unit" if self.dose_unit is None else "dose_key"
            raise ValueError(
                f"dose_key and dose_unit come together, but {missing} is missing (e.g. dose_key='dose', dose_unit='uM')."
            )
        if self.split_key is not None:
            other = sorted(set(check_names(adata, self.split_key)) - {"train", "test"})
            if other:
                raise ValueError(
                    f"obs[{self.split_key!r}] may hold 'train' and 'test', but also holds {listed(other)}. Rename these, or "
                    "drop their cells: validation conditions are drawn in training (train_size)."
                )
        # The control is checked before the doses, because a wrong control would cause misleading errors on doses of controls.
        check_control(self.names(adata), self.control, key=self.first_key)
        table = self.table(adata)
        if table["control"].all():
            raise ValueError(
                f"All cells are controls ({self.control!r}): without a perturbation there is nothing to learn."
            )
        self._check_controls(table, "")
        self._warn_of_look_alikes(adata, table)
        if self.split_key is not None:
            train = table[table["train"]]
            if not train["control"].any() or train["control"].all():
                raise ValueError(
                    f"The 'train' rows of obs[{self.split_key!r}] must hold controls and at least one drug."
                )
            self._check_controls(train, "in the 'train' rows ")
            self._check_split(table)
        self._check_replicates(self.with_replicates(table, adata))
        if self.dose_key is not None and not self.combined:
            exact = check_doses(adata, self.dose_key, treated=~table["control"].to_numpy(), exact=True)
            for doubt in rounded(exact, str(self.dose_key)):
                warn(" ".join(doubt))
        treated = table.loc[~table["control"], "dose"].dropna()
        if len(treated) and treated.max() > 1e5 * treated.min():
            warn(
                f"Doses range from {treated.min():g} to {treated.max():g} with dose_unit={self.dose_unit!r}. Are they all in one unit?"
            )
        return table

    def _warn_of_look_alikes(self, adata: AnnData, table: pd.DataFrame) -> None:
        """Warn of names of drugs, lines and batches that look the same; :func:`check_control` warns of those of controls."""
        drugs = self.treatments(adata).drugs.ravel() if self.combined else table.loc[~table["control"], "drug"]
        for names, key, kind in (
            (set(pd.unique(drugs)) - {""}, self.first_key, "drugs"),
            (table["line"].unique(), self.cell_line_key, "cell lines"),
            (table["batch"].unique(), self.batch_key, "batches"),
        ):
            for doubt in () if key is None else doubted_names(names, key, kind, but=control_names(self.control)):
                warn(" ".join(doubt))

    def _check_controls(self, table: pd.DataFrame, which: str) -> None:
        """Raise if a line and batch with treated cells has no controls; warn if there are hardly any."""
        groups = pd.MultiIndex.from_frame(table[["line", "batch"]])
        control = table["control"].to_numpy()
        lone = ~control & ~groups.isin(groups[control].unique())
        if lone.any():
            where = [
                " and ".join(
                    f"{key}={value!r}"
                    for key, value in zip((self.cell_line_key, self.batch_key), group, strict=True)
                    if key is not None
                )
                for group in sorted(groups[lone].unique())
            ]
            more = f"; and {len(where) - 3} more" if len(where) > 3 else ""
            raise ValueError(
                f"No control cells ({self.control!r}) {which}where {'; '.join(where[:3])}{more}, so the effect of "
                f"{listed(sorted(set(table['drug'][lone])))} there cannot be separated from it. "
                f"Add controls or drop these {int(lone.sum()):,} cells."
            )
        fewest = groups[control & groups.isin(groups[~control].unique())].value_counts().min()
        # Data that are bound to a loaded model have no unit, and their controls are not what it measured effects against.
        if self.unit is not None and fewest < LEAST_CONTROLS[self.unit]:
            rows = f"{fewest} control {self.unit}{'s' if fewest > 1 else ''}"
            place = "" if self.cell_line_key is None and self.batch_key is None else " in a cell line or batch"
            warn(
                f"Only {rows} {which}({self.control!r}){place}. Every effect there is measured against these, and their SD is the unit. Add "
                "controls; scgim.pp.check lists the places."
            )

    def _check_replicates(self, table: pd.DataFrame) -> None:
        """Raise if replicates are declared and the training rows do not show how replicates of a condition differ."""
        if "replicate" in table and not has_replicates(table[table["train"]]):
            raise ValueError(no_replicates(self.replicate_key, self.batch_key))

    def _check_split(self, table: pd.DataFrame) -> None:
        sides = table[~table["control"]].groupby(["drug", "dose", "line"], dropna=False)["train"].agg(["sum", "size"])
        leak = sides[(sides["sum"] > 0) & (sides["sum"] < sides["size"])]
        if len(leak):
            (drug, dose, line), row = leak.index[0], leak.iloc[0]
            what = ", ".join([drug] + [f"{dose:g}"] * (not np.isnan(dose)) + [line] * (self.cell_line_key is not None))
            more = f" (and {len(leak) - 1} more conditions)" if len(leak) > 1 else ""
            raise ValueError(
                f"Leak: condition ({what}) has {row['sum']:,} cells in train and {row['size'] - row['sum']:,} in test{more}. "
                "Split by whole conditions: scgim.pp.split(adata, ...)."
            )
