"""Tables of drug features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scgim._anndata import in_memory
from scgim._checks import control_names, listed, nearest, warn, warn_of_featureless

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from scgim._combinations import Treatments
    from scgim.pp._smiles import SmilesConflict


@dataclass(frozen=True)
class DrugTable:
    """Raw features of every registered drug and their source ("features", "smiles", "identity").

    A drug without features among drugs with features, such as a cytokine among small molecules, has a row of NaN.
    """

    frame: pd.DataFrame
    smiles: dict[str, str]
    source: str

    @classmethod
    def read(
        cls,
        adata: AnnData,
        cells: pd.DataFrame,
        *,
        control: str | Sequence[str],
        features_key: str | None,
        smiles_key: str | Sequence[str] | None,
        smiles_conflict: SmilesConflict,
        treatments: Treatments | None = None,
    ) -> DrugTable:
        """Drugs of a screen's treated cells, with features from ``uns``, from SMILES, or without features; names and columns sorted.

        Parameters
        ----------
        adata
            The screen.
        cells
            Table of :meth:`ScreenColumns.table`.
        control, features_key, smiles_key, smiles_conflict
            Arguments of :meth:`scgim.GIM.setup_anndata`.
        treatments
            Treatments of the cells in a screen with combinations.
        """
        treated = ~cells["control"].to_numpy()
        drugs, smiles = sorted(set(cells["drug"][treated])), pd.Series(dtype=object)
        if treatments is not None:
            drugs = sorted(set(np.unique(treatments.drugs.astype(str)).tolist()) - {""})
        if smiles_key is not None:
            from scgim.pp._smiles import read_smiles, warn_of_mixtures

            smiles = read_smiles(adata, smiles_key, cells["drug"], treated, treatments, smiles_conflict)
            if features_key is not None:  # without a table of features, fingerprints warn of them
                warn_of_mixtures(smiles)
        if features_key is not None:
            source = "features"
            frame = feature_table(adata, features_key, drugs=drugs, control=control)
        elif smiles_key is not None:
            from scgim.pp import fingerprints
            from scgim.pp._smiles import with_structure

            source, (frame, audit) = "smiles", fingerprints(with_structure(smiles, str(smiles_key)))
            warn_of_duplicates(cells[treated], audit["parent"])
            frame = frame.reindex(drugs)
        else:
            source, frame = "identity", pd.DataFrame(index=pd.Index(drugs, dtype=object))
        table = cls(frame.sort_index().sort_index(axis=1), smiles.to_dict(), source)
        warn_of_featureless(sorted(table.featureless & set(drugs)), len(drugs))
        return table

    @property
    def featureless(self) -> set[str]:
        """Names of the drugs without features among drugs with features."""
        return set(self.frame.index[self.frame.isna().any(axis=1)])

    @classmethod
    def from_registry(cls, state: dict) -> DrugTable:
        """Restore the table from the values of :meth:`state`."""
        frame = pd.DataFrame(
            state["values"], index=state["names"].astype(object), columns=state["columns"].astype(object)
        )
        return cls(
            frame, dict(zip(state["names"].tolist(), state["smiles"].tolist(), strict=True)), str(state["source"])
        )

    def state(self) -> dict:
        """Return plain arrays for :meth:`from_registry`."""
        return {
            "source": self.source,
            "names": self.frame.index.to_numpy(str),
            "columns": self.frame.columns.to_numpy(str),
            "values": self.frame.to_numpy(np.float64).reshape(len(self.frame), -1),
            "smiles": np.array([self.smiles.get(name, "") for name in self.frame.index], dtype=str),
        }

    def joined(self, bound: DrugTable) -> DrugTable:
        """Join these drugs and the drugs of newly bound data.

        Raises
        ------
        ValueError
            If the columns differ, or the features of a drug in both tables.
        """
        if not self.frame.columns.equals(bound.frame.columns):
            odd = sorted(set(self.frame.columns) ^ set(bound.frame.columns))
            raise ValueError(f"adata's drug features are not the model's: {listed(odd)} in one of them only.")
        both = self.frame.index.intersection(bound.frame.index)
        one, two = self.frame.loc[both], bound.frame.loc[both]
        differ = ((one != two) & ~(one.isna() & two.isna())).any(axis=1)
        if differ.any():
            raise ValueError(
                f"Drugs have other features in adata than in the model: {listed(both[differ])}. Fit a new model: GIM(adata)."
            )
        new = bound.frame.drop(index=both)
        return DrugTable(pd.concat([self.frame, new]), bound.smiles | self.smiles, self.source)


def feature_table(adata: AnnData, key: str, *, drugs: Sequence[str], control: str | Sequence[str]) -> pd.DataFrame:
    """``uns[key]`` without the row of the control. It must be a valid feature table with a row for each of ``drugs``."""
    if key not in adata.uns:
        close = listed(nearest(key, list(adata.uns))) or "none"
        raise KeyError(
            f"uns[{key!r}] does not exist. Nearest keys: {close}. scgim.pp.featurize_drugs(adata, ...) writes one."
        )
    where, table = f"uns[{key!r}]", in_memory(adata.uns[key])
    table = table.drop(index=control_names(control), errors="ignore") if _is_frame(table) else table
    table = check_feature_table(table, where, allow_missing=True)
    missing = sorted(set(drugs) - set(table.index))
    if missing:
        close = listed(nearest(missing[0], list(table.index), n=1)) or "none"
        raise ValueError(
            f"{len(missing)} drugs have no row in {where}: {listed(missing)} (nearest row to the first: {close}). "
            "The index holds the drugs' names as they are in obs. A row of NaN says that a drug has no features."
        )
    if table.loc[list(drugs)].isna().all(axis=None):
        raise ValueError(
            f"No drug has features in {where}. Leave features_key out: every drug is then learned on its own."
        )
    return table


def check_feature_table(table: pd.DataFrame, where: str, *, allow_missing: bool = False) -> pd.DataFrame:
    """Validate a feature table and return it as float64.

    Raises
    ------
    TypeError, ValueError
        If it is not a DataFrame of finite numbers with unique strings as index and columns. With ``allow_missing``, whole rows may be
        NaN, for drugs without features.
    """
    if not _is_frame(table):
        raise TypeError(f"{where} is a {type(table).__name__}; drug features are a DataFrame with drug names as index.")
    for axis, labels in (("index", table.index), ("columns", table.columns)):
        wrong = [label for label in labels if not isinstance(label, str)]
        if wrong:
            raise TypeError(
                f"The {axis} of {where} must be strings, but holds {wrong[0]!r}: table.{axis} = table.{axis}.astype(str)."
            )
        if labels.has_duplicates:
            raise ValueError(f"The {axis} of {where} holds {labels[labels.duplicated()][0]!r} more than once.")
    if not table.shape[1]:
        raise ValueError(f"{where} has no columns, so it says nothing of the drugs.")
    numbers = table.astype(object).apply(pd.to_numeric, errors="coerce").astype(np.float64)
    missing = table.isna().all(axis=1).to_numpy() & allow_missing
    bad = np.argwhere(~np.isfinite(numbers.to_numpy()) & ~missing[:, None])
    if len(bad):
        row, column = bad[0]
        raise ValueError(
            f"{where} must hold finite numbers, but is not finite for drug {table.index[row]!r}, feature "
            f"{table.columns[column]!r}: {listed([table.iloc[row, column]])}."
        )
    return numbers


def _is_frame(table: object) -> bool:
    return isinstance(table, pd.DataFrame)


def warn_of_duplicates(treated: pd.DataFrame, parent: pd.Series) -> None:
    """Warn of test drugs with the structure of a training drug at the same dose and in the same line."""
    sides = treated.assign(parent=treated["drug"].map(parent)).dropna(subset="parent")
    sides = sides.groupby(["parent", "dose", "line"], dropna=False)
    for _, rows in sides if not treated["train"].all() else ():
        train, test = (sorted(set(rows["drug"][side])) for side in (rows["train"], ~rows["train"]))
        if train and test:
            warn(
                f"Leak: test drug {test[0]!r} has the same structure as training drug {train[0]!r}. "
                "scgim.pp.split(adata, smiles_key=...) keeps such duplicates on one side."
            )
            return
