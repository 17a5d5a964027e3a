"""A screen read without raising: problems become findings, and the remaining checks can still run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import pandas as pd

from scgim._checks import check_obs_column, is_control, listed, nearest
from scgim._doses import as_one
from scgim._genes import GeneColumns

from ._chemistry import standardize
from ._smiles import check_smiles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from ._chemistry import StandardizedMolecule
    from ._smiles import SmilesConflict

Status = Literal["PASS", "WARN", "FAIL"]


class Finding(NamedTuple):
    """Result of a check and its fix; the fix is empty if the check passes."""

    status: Status
    finding: str
    fix: str = ""

    @classmethod
    def of(cls, error: Exception, status: Status = "FAIL") -> Finding:
        """From an error of `scgim._checks`, whose first sentence is the finding and whose other sentences are the fix."""
        finding, *fix = re.split(r"(?<=\.) (?=[A-Z])", str(error), maxsplit=1)
        return cls(status, finding, *(fix or ["Correct these values."]))


@dataclass(frozen=True)
class UncheckedScreen:
    """Arguments of `scgim.pp.check`, and the screen that they describe, not yet known to be valid."""

    adata: AnnData
    drug_key: str
    controls: list[str]
    scale: str
    layer: str | None
    dose_key: str | None
    dose_unit: str | None
    smiles_key: str | None
    features_key: str | None
    cell_line_key: str | None
    batch_key: str | None
    size_factor_key: str | None
    split_key: str | None
    smiles_conflict: SmilesConflict
    intervention_key: str | None
    replicate_key: str | None
    unit: str
    readout: str | None = None
    covariate_keys: Sequence[str] = ()

    @property
    def rows(self) -> str:
        """What a row is called in findings."""
        return f"{self.unit}s"

    def require_keys(self) -> None:
        """Raise KeyError for columns, layers and tables that do not exist; the message names the nearest ones."""
        for key in [*(getattr(self, name) for name in KEYS), *self.covariate_keys]:
            if key is not None and key not in self.adata.obs:
                check_obs_column(self.adata, key, allow_missing=True)
        for where, key in (("layers", self.layer), ("uns", self.features_key)):
            found = getattr(self.adata, where)
            if key is not None and key not in found:
                close = listed(nearest(key, [name for name in found if name is not None])) or "none"
                raise KeyError(f"{where}[{key!r}] does not exist. Nearest: {close}.")
        key = self.readout
        if key is not None and key not in self.adata.var and key not in self.adata.obsm:
            GeneColumns.read(self.adata, key)

    @cached_property
    def genes(self) -> GeneColumns | Finding:
        """Panel and readout genes, or what is wrong with the readout."""
        try:
            return GeneColumns.read(self.adata, self.readout)
        except (TypeError, ValueError) as error:
            return Finding.of(error)

    def column(self, key: str) -> pd.Series:
        """A column of obs; the first one if several have this name."""
        found = self.adata.obs[key]
        return found.iloc[:, 0] if isinstance(found, pd.DataFrame) else found

    def _names(self, key: str | None) -> list[str | None] | str:
        if key is None:
            return ""
        column = self.column(key)
        names = zip(map(str, column.astype(object)), column.isna(), strict=True)
        return [None if gone or not name.strip() else name for name, gone in names]

    def place(self, group: tuple[str, str]) -> str:
        """A cell line and batch in messages."""
        keys = (self.cell_line_key, self.batch_key)
        named = [f"{key}={name}" for key, name in zip(keys, group, strict=True) if key is not None]
        return " and ".join(named) or "all cells"

    @cached_property
    def cells(self) -> pd.DataFrame:
        """One row per cell: drug, line, batch, split as strings (None if missing, "" without key), dose (NaN), control, treated.

        ``replicate`` is the replicate of every cell: by default the row, if rows are wells, and otherwise missing.
        """
        cells = pd.DataFrame(index=range(self.adata.n_obs))
        for name, key in zip(LEVELS, (self.drug_key, self.cell_line_key, self.batch_key, self.split_key), strict=True):
            cells[name] = pd.Series(self._names(key), cells.index, dtype=object)
        cells["control"] = is_control(cells["drug"], self.controls)
        cells["treated"] = cells["drug"].notna() & ~cells["control"]
        cells["replicate"] = cells.index if self.unit == "well" else None
        if self.replicate_key is not None:
            cells["replicate"] = pd.Series(self._names(self.replicate_key), cells.index, dtype=object)
        cells["dose"] = 0.0
        if self.dose_key is not None:
            dose = pd.to_numeric(self.column(self.dose_key).astype(str), errors="coerce").to_numpy(np.float64)
            cells["dose"] = as_one(np.where(cells["treated"] & (dose > 0) & np.isfinite(dose), dose, np.nan))
        return cells

    @cached_property
    def treated(self) -> pd.DataFrame:
        """Treated cells with a known condition and batch."""
        return self.cells[self.cells["treated"]].dropna(subset=["drug", "dose", "line", "batch"])

    @cached_property
    def drugs(self) -> list[str]:
        """Names of drugs, sorted."""
        return sorted(set(self.cells.loc[self.cells["treated"], "drug"]))

    @cached_property
    def _read(self) -> tuple[dict[str, StandardizedMolecule], dict[str, str]]:
        read, failed = {}, {}
        if self.smiles_key is None:
            return read, failed
        for name, text in self.smiles.items():
            if text == "":
                continue
            try:
                read[name] = standardize(text)
            except (ValueError, RuntimeError) as error:
                failed[name] = str(error)
        return read, failed

    @cached_property
    def smiles(self) -> pd.Series:
        """The most frequent SMILES of every drug."""
        try:
            return self.read_smiles("first")
        except TypeError:  # values that cannot be compared, such as lists, are shown as text
            return self.read_smiles("first", as_text=True)

    def read_smiles(self, conflict: SmilesConflict, *, as_text: bool = False) -> pd.Series:
        """The SMILES of every drug, as in set-up."""
        key, treated = str(self.smiles_key), self.cells["treated"].to_numpy()
        column = self.column(key).map(str) if as_text else self.column(key)
        return check_smiles(column.to_frame(key), key, names=self.cells["drug"], treated=treated, conflict=conflict)

    @property
    def structureless(self) -> set[str]:
        """Drugs without a SMILES in any of their cells; empty without ``smiles_key``."""
        return set() if self.smiles_key is None else set(self.drugs) - set(self.structures) - set(self.unreadable)

    @property
    def structures(self) -> dict[str, StandardizedMolecule]:
        """Readable structures, by drug."""
        return self._read[0]

    @property
    def unreadable(self) -> dict[str, str]:
        """Error messages of unreadable SMILES, by drug."""
        return self._read[1]


LEVELS = ("drug", "line", "batch", "split")
KEYS = (
    "drug_key",
    "dose_key",
    "smiles_key",
    "cell_line_key",
    "batch_key",
    "size_factor_key",
    "split_key",
    "intervention_key",
    "replicate_key",
)
