"""Registry fields: the contexts of a screen and the drugs' features. Neither is ever batched, neither writes into obs."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scvi.data.fields import BaseAnnDataField

from scgim._checks import check_control, check_names, check_obs_column, listed, nearest

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
        obs = adata.obs
        drug = check_names(obs, self.drug_key)
        nameless = pd.Series("", index=obs.index)
        return pd.DataFrame(
            {
                "drug": drug,
                "dose": np.nan if self.dose_key is None else _doses(obs, self.dose_key, drug != self.control),
                "line": nameless if self.cell_line_key is None else check_names(obs, self.cell_line_key),
                "batch": nameless if self.batch_key is None else check_names(obs, self.batch_key),
                "control": drug == self.control,
                "train": True if self.split_key is None else check_names(obs, self.split_key) == "train",
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
            other = sorted(set(check_names(adata.obs, self.split_key)) - {"train", "test"})
            if other:
                raise ValueError(f"obs[{self.split_key!r}] may hold 'train' and 'test', but also holds {other[:3]}.")
        check_control(
            check_names(adata.obs, self.drug_key), self.control, key=self.drug_key
        )  # before anything depends on it
        table = self.table(adata)
        if table["control"].all():
            raise ValueError(
                f"All cells are controls ({self.control!r}): without a perturbation there is nothing to learn."
            )
        self._check_controls(table)
        if self.split_key is not None:
            self._check_split(table)
        treated = table.loc[~table["control"], "dose"].dropna()
        if len(treated) and treated.max() > 1e5 * treated.min():
            warnings.warn(
                f"Doses range from {treated.min():g} to {treated.max():g} with dose_unit={self.dose_unit!r}. Are they all in one unit?",
                stacklevel=6,
            )

    def _check_controls(self, table: pd.DataFrame) -> None:
        train = table[table["train"]]
        if not train["control"].any() or train["control"].all():
            raise ValueError("The 'train' rows must hold controls and at least one drug.")
        have = set(map(tuple, train.loc[train["control"], ["line", "batch"]].to_numpy()))
        need = train.loc[~train["control"]]
        lone = need[[pair not in have for pair in need[["line", "batch"]].itertuples(index=False, name=None)]]
        if len(lone):
            line, batch = lone.iloc[0][["line", "batch"]]
            where = " and ".join(
                f"{key}={value!r}"
                for key, value in ((self.cell_line_key, line), (self.batch_key, batch))
                if key is not None
            )
            drugs = listed(sorted(set(lone["drug"])))
            raise ValueError(
                f"No control cells ({self.control!r}) where {where}, so the effect of {drugs} there cannot be separated from it. "
                f"Add controls or drop these {len(lone):,} cells."
            )

    def _check_split(self, table: pd.DataFrame) -> None:
        sides = table[~table["control"]].groupby(["drug", "dose", "line"], dropna=False)["train"].agg(["sum", "size"])
        leak = sides[(sides["sum"] > 0) & (sides["sum"] < sides["size"])]
        if len(leak):
            (drug, dose, line), row = leak.index[0], leak.iloc[0]
            what = ", ".join(
                [drug] + [f"{dose:g}"] * (self.dose_key is not None) + [line] * (self.cell_line_key is not None)
            )
            raise ValueError(
                f"Leak: condition ({what}) has {row['sum']:,} cells in train and {row['size'] - row['sum']:,} in test "
                f"(and {len(leak) - 1} more conditions). Split by whole conditions: scgim.pp.split(adata, ...)."
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
        drugs = sorted(set(table.loc[~table["control"], "drug"]))
        smiles = {} if self.smiles_key is None else _smiles(adata.obs, self.smiles_key, table, drugs)
        if self.features_key is not None:
            source, features = "features", _feature_table(adata, self.features_key, drugs, self.context.control)
        elif self.smiles_key is not None:
            from scgim.pp import fingerprints

            source, features = "smiles", fingerprints(smiles)[0]
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


def _doses(obs: pd.DataFrame, key: str, treated: pd.Series) -> pd.Series:
    """Doses of treated cells as float, NaN for controls."""
    column = check_obs_column(obs, key, allow_missing=True)
    dose = pd.to_numeric(column.astype(object), errors="coerce").astype(np.float64)
    text = treated & dose.isna() & column.notna()
    if text.any():
        raise ValueError(
            f"obs[{key!r}] holds {column[text].iloc[0]!r}, which is no number. Doses are plain numbers; the unit goes into dose_unit."
        )
    bad = treated & ~(np.isfinite(dose) & (dose > 0))
    if bad.any():
        raise ValueError(
            f"obs[{key!r}] holds {dose[bad].iloc[0]:g} for {int(bad.sum()):,} treated cells (e.g. {bad.index[bad][0]!r}). "
            "Doses of treated cells are positive and finite; untreated cells carry the control's name."
        )
    return dose.where(treated)


def _smiles(obs: pd.DataFrame, key: str, table: pd.DataFrame, drugs: list[str]) -> dict[str, str]:
    """One SMILES a drug; an empty one is left for the fingerprints to refuse."""
    column = check_obs_column(obs, key, allow_missing=True).astype(object).where(lambda s: s.notna(), "")
    pairs = pd.DataFrame({"drug": table["drug"], "smiles": column})[~table["control"]].drop_duplicates()
    twice = pairs[pairs["drug"].duplicated(keep=False)]
    if len(twice):
        drug = twice["drug"].iloc[0]
        both = twice.loc[twice["drug"] == drug, "smiles"].tolist()
        raise ValueError(
            f"Drug {drug!r} has {len(both)} SMILES in obs[{key!r}]: {both[0]!r} and {both[1]!r}. Give it one."
        )
    return dict(zip(pairs["drug"], pairs["smiles"].astype(str), strict=True))


def _feature_table(adata: AnnData, key: str, drugs: list[str], control: str) -> pd.DataFrame:
    if key not in adata.uns:
        raise KeyError(
            f"uns[{key!r}] does not exist. Nearest keys: {nearest(key, list(adata.uns))}. scgim.pp.featurize_drugs writes one."
        )
    table = adata.uns[key]
    check_feature_table(table, f"uns[{key!r}]")
    missing = sorted(set(drugs) - set(table.index))
    if missing:
        hint = nearest(missing[0], list(table.index), n=1)
        raise ValueError(
            f"{len(missing)} drugs have no row in uns[{key!r}], e.g. {missing[0]!r} (nearest row: {hint})."
        )
    return table.drop(index=control, errors="ignore")


def check_feature_table(table: pd.DataFrame, where: str) -> None:
    """A DataFrame with unique string index and columns and finite numbers, or a clear error."""
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"{where} is a {type(table).__name__}; drug features are a DataFrame with drug names as index.")
    for axis, labels in (("index", table.index), ("columns", table.columns)):
        if not all(isinstance(label, str) for label in labels):
            raise TypeError(
                f"The {axis} of {where} must be strings, but holds {next(v for v in labels if not isinstance(v, str))!r}."
            )
        if labels.has_duplicates:
            raise ValueError(f"The {axis} of {where} holds {labels[labels.duplicated()][0]!r} more than once.")
    values = table.apply(pd.to_numeric, errors="coerce").to_numpy(np.float64).reshape(table.shape)
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise ValueError(
            f"{where} is not finite for drug {table.index[row]!r}, feature {table.columns[column]!r}: {table.iloc[row, column]!r}."
        )
