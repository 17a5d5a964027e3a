"""Registry fields: the contexts of a screen and the drugs' features. Neither is ever batched, neither writes into obs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scvi.data.fields import BaseAnnDataField

from scgim._checks import check_control, check_doses, check_names, check_smiles, listed, warn
from scgim.data._drug_table import feature_table, warn_of_duplicates

if TYPE_CHECKING:
    from anndata import AnnData

CONTEXT, DRUG_TABLE = "context", "drug_table"


class _TableField(BaseAnnDataField):
    """A field that keeps small tables in the registry and gives the DataLoader nothing."""

    @property
    def is_empty(self) -> bool:
        return False

    def get_data_registry(self) -> dict:
        return {}  # a registered uns table would be indexed by cell

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **kwargs: Any) -> dict:
        return self.register_field(adata_target)

    def view_state_registry(self, state_registry: dict) -> None:
        return None


class ContextField(_TableField):
    """Drug, dose, line, batch and split of every cell, checked; see :meth:`scgim.GIM.setup_anndata`."""

    registry_key = property(lambda self: CONTEXT)
    attr_name = property(lambda self: "obs")
    attr_key = property(lambda self: self.drug_key)

    def __init__(
        self,
        drug_key: str,
        control: str,
        *,
        dose_key: str | None = None,
        dose_unit: str | None = None,
        cell_line_key: str | None = None,
        batch_key: str | None = None,
        split_key: str | None = None,
    ) -> None:
        super().__init__()
        self.drug_key, self.control = drug_key, str(control)
        self.dose_key, self.dose_unit = dose_key, dose_unit
        self.cell_line_key, self.batch_key, self.split_key = cell_line_key, batch_key, split_key

    def table(self, adata: AnnData) -> pd.DataFrame:
        """Columns drug, dose, line, batch (str, float, str, str), control and train (bool); one row a cell."""
        drug = check_names(adata, self.drug_key)
        control = (drug == self.control).to_numpy()
        return pd.DataFrame(
            {
                "drug": drug,
                "dose": np.nan if self.dose_key is None else check_doses(adata, self.dose_key, treated=~control),
                "line": "" if self.cell_line_key is None else check_names(adata, self.cell_line_key),
                "batch": "" if self.batch_key is None else check_names(adata, self.batch_key),
                "control": control,
                "train": True if self.split_key is None else check_names(adata, self.split_key) == "train",
            }
        )

    def validate_field(self, adata: AnnData) -> None:
        """Raise on anything that would be found out only in training, or never."""
        super().validate_field(adata)
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
                    "drop their cells: validation contexts are drawn in training (train_size)."
                )
        # before the doses: with a wrong control every control's dose is wrong too
        check_control(check_names(adata, self.drug_key), self.control, key=self.drug_key)
        table = self.table(adata)
        if table["control"].all():
            raise ValueError(
                f"All cells are controls ({self.control!r}): without a perturbation there is nothing to learn."
            )
        self._check_controls(table, "")
        if self.split_key is not None:
            train = table[table["train"]]
            if not train["control"].any() or train["control"].all():
                raise ValueError(
                    f"The 'train' rows of obs[{self.split_key!r}] must hold controls and at least one drug."
                )
            self._check_controls(train, "in the 'train' rows ")
            self._check_split(table)
        treated = table.loc[~table["control"], "dose"].dropna()
        if len(treated) and treated.max() > 1e5 * treated.min():
            warn(
                f"Doses range from {treated.min():g} to {treated.max():g} with dose_unit={self.dose_unit!r}. Are they all in one unit?"
            )

    def _check_controls(self, table: pd.DataFrame, which: str) -> None:
        """Every line and batch with treated cells has controls."""
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

    def _check_split(self, table: pd.DataFrame) -> None:
        sides = table[~table["control"]].groupby(["drug", "dose", "line"], dropna=False)["train"].agg(["sum", "size"])
        leak = sides[(sides["sum"] > 0) & (sides["sum"] < sides["size"])]
        if len(leak):
            (drug, dose, line), row = leak.index[0], leak.iloc[0]
            what = ", ".join(
                [drug] + [f"{dose:g}"] * (self.dose_key is not None) + [line] * (self.cell_line_key is not None)
            )
            more = f" (and {len(leak) - 1} more conditions)" if len(leak) > 1 else ""
            raise ValueError(
                f"Leak: condition ({what}) has {row['sum']:,} cells in train and {row['size'] - row['sum']:,} in test{more}. "
                "Split by whole conditions: scgim.pp.split(adata, ...)."
            )

    def register_field(self, adata: AnnData) -> dict:
        """Levels of every column."""
        super().register_field(adata)
        table = self.table(adata)
        drugs = np.unique(table.loc[~table["control"], "drug"].to_numpy(str))
        return {
            "control": self.control,
            "drugs": drugs,
            "lines": np.unique(table["line"].to_numpy(str)),
            "n_contexts": int(len(table.loc[~table["control"], ["drug", "dose", "line"]].drop_duplicates())),
            "n_controls": int(table["control"].sum()),
        }

    def get_summary_stats(self, state_registry: dict) -> dict:
        """Sizes for the registry's summary."""
        return {
            "n_drugs": len(state_registry["drugs"]),
            "n_contexts": state_registry["n_contexts"],
            "n_cell_lines": len(state_registry["lines"]),
        }


class DrugTableField(_TableField):
    """One row of features for every drug, from ``uns``, from SMILES, or none."""

    registry_key = property(lambda self: DRUG_TABLE)
    attr_name = property(lambda self: "uns")
    attr_key = property(lambda self: self.features_key)

    def __init__(self, context: ContextField, *, features_key: str | None, smiles_key: str | None) -> None:
        super().__init__()
        self.context, self.features_key, self.smiles_key = context, features_key, smiles_key

    def validate_field(self, adata: AnnData) -> None:
        """The table is checked where it is read."""

    def register_field(self, adata: AnnData) -> dict:
        """Names, feature columns (sorted), values, SMILES, and where the features come from."""
        table = self.context.table(adata)
        treated = ~table["control"].to_numpy()
        drugs, smiles = sorted(set(table["drug"][treated])), {}
        if self.smiles_key is not None:
            smiles = check_smiles(adata, self.smiles_key, names=table["drug"], treated=treated).to_dict()
        if self.features_key is not None:
            source = "features"
            features = feature_table(adata, self.features_key, drugs=drugs, control=self.context.control)
        elif self.smiles_key is not None:
            from scgim.pp import fingerprints

            source, (features, audit) = "smiles", fingerprints(smiles)
            warn_of_duplicates(table[treated], audit["parent"])
        else:
            source, features = "identity", pd.DataFrame(index=pd.Index(drugs, dtype=object))
        features = features.sort_index().sort_index(axis=1)
        names = features.index.to_numpy(str)
        return {
            "source": source,
            "names": names,
            "columns": features.columns.to_numpy(str),
            "values": features.to_numpy(np.float64).reshape(len(names), -1),
            "smiles": np.array([smiles.get(name, "") for name in names], dtype=str),
        }

    def get_summary_stats(self, state_registry: dict) -> dict:
        """Number of features."""
        return {"n_features": len(state_registry["columns"])}
