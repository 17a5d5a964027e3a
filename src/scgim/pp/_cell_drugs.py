"""Drugs of all cells, one or several of each, for splits, features and audits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import pandas as pd

from scgim._checks import check_control, check_doses, check_names, check_obs_column, is_control
from scgim._combinations import TreatmentColumns, parts_of

from ._smiles import SmilesConflict, read_smiles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from scgim._combinations import Combinations, Treatments


@dataclass(frozen=True)
class CellDrugs:
    """Treatment of every cell.

    Parameters
    ----------
    adata
        The screen.
    name, treated
        Control, drug or combination of every cell, and whether it is treated, ``(cells,)`` each.
    dose
        Dose of single drugs, ``(cells,)``; NaN for controls, for combinations, and if doses are not read.
    treatments
        The parsed columns of a screen with combinations, ``None`` for a single column.
    """

    adata: AnnData
    name: pd.Series
    treated: np.ndarray
    dose: np.ndarray
    treatments: Treatments | None

    @classmethod
    def read(
        cls,
        adata: AnnData,
        drug_key: str | Sequence[str],
        control: str | Sequence[str],
        *,
        sep: str | None = None,
        dose_key: str | Sequence[str] | None = None,
    ) -> Self:
        """Read the columns of :meth:`scgim.GIM.setup_anndata`.

        Raises
        ------
        KeyError, TypeError, ValueError
            If a column does not exist or is not valid, or no cell has the name of the control.
        """
        if not is_combined(drug_key, sep):
            name = check_names(adata, drug_key)
            check_control(name, control, key=drug_key)
            treated = ~is_control(name, control)
            dose = np.full(len(name), np.nan) if dose_key is None else check_doses(adata, dose_key, treated=treated)
            return cls(adata, name, treated, dose, None)
        found = TreatmentColumns(drug_key, dose_key, control, sep).read(adata)
        name = pd.Series(found.name, adata.obs.index)
        check_control(name, control, key=drug_key if isinstance(drug_key, str) else drug_key[0])
        return cls(adata, name, ~is_control(name, control), found.dose, found)

    @property
    def combinations(self) -> Combinations:
        """Drugs and doses of every combination."""
        return {} if self.treatments is None else self.treatments.combinations

    def rows(self) -> pd.DataFrame:
        """One row per cell and drug, in the order of the cells: columns cell (int), treatment, drug, dose, single and treated (bool)."""
        cell = np.arange(len(self.name))
        columns = {"treatment": self.name.to_numpy(), "dose": self.dose, "treated": self.treated}
        if not self.combinations:
            return pd.DataFrame({"cell": cell, "drug": self.name.to_numpy(), "single": True} | columns)
        code, names = pd.factorize(self.name)
        parts = [parts_of(name, np.nan, self.combinations) for name in names]
        width = np.array([len(part) for part in parts])[code]
        drug, dose = (
            np.array([part[i] for k in code for part in parts[k]], dtype=kind) for i, kind in ((0, object), (1, float))
        )
        rows = pd.DataFrame({name: np.repeat(values, width) for name, values in ({"cell": cell} | columns).items()})
        single = np.repeat(width == 1, width)
        return rows.assign(drug=drug, single=single, dose=np.where(single, rows["dose"], dose))

    def smiles(self, key: str | Sequence[str], conflict: SmilesConflict) -> pd.Series:
        """The SMILES of every drug, ``""`` for none."""
        found = read_smiles(self.adata, key, self.name, self.treated, self.treatments, conflict)
        # Drugs that were measured in combinations alone have no SMILES in cells of single drugs.
        drugs = {name for parts in self.combinations.values() for name, _ in parts}
        return found.reindex(sorted({*found.index, *drugs}), fill_value="")


def is_combined(drug_key: str | Sequence[str], sep: str | None) -> bool:
    """Whether the columns may contain combinations of drugs."""
    return sep is not None or not isinstance(drug_key, str)


def drug_names(adata: AnnData, drug_key: str | Sequence[str], sep: str | None) -> list[str]:
    """All names of drugs and controls, sorted, before the control is known."""
    if not is_combined(drug_key, sep):
        return sorted(set(check_names(adata, drug_key)))
    found: set[str] = set()
    for key in [drug_key] if isinstance(drug_key, str) else drug_key:
        for text in map(str, check_obs_column(adata, key, allow_missing=True).dropna().unique()):
            found |= {name.strip() for name in (text.split(sep) if sep else [text])}
    return sorted(found - {""})
