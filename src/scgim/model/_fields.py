"""Registry fields of scvi-tools: the conditions of a screen and the drugs' features. They are not batched and do not write into obs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scvi.data.fields import BaseAnnDataField

from scgim._checks import one_or_list, warn
from scgim._covariates import Covariates, check_covariates
from scgim._genes import GeneColumns
from scgim.data._columns import ScreenColumns
from scgim.data._drug_table import DrugTable
from scgim.data._fingerprint import fingerprint
from scgim.data._registered_screen import RegisteredScreen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from scgim.pp._smiles import SmilesConflict

CONDITION, DRUG_TABLE, READOUT, COVARIATES = "context", "drug_table", "readout", "covariates"
FINGERPRINT = "fingerprint"


class _TableField(BaseAnnDataField):
    """A field that stores small tables in the registry and provides no data to the DataLoader."""

    @property
    def is_empty(self) -> bool:
        return False

    def get_data_registry(self) -> dict:
        return {}  # a registered uns table would be indexed by cell

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **kwargs: Any) -> dict:
        return self.register_field(adata_target)

    def view_state_registry(self, state_registry: dict) -> None:
        return None


class ConditionField(_TableField):
    """Drug, dose, line, batch and split of every cell."""

    registry_key = property(lambda self: CONDITION)
    attr_name = property(lambda self: "obs")
    attr_key = property(lambda self: self.columns.first_key)

    def __init__(self, columns: ScreenColumns) -> None:
        super().__init__()
        self.columns = columns

    def validate_field(self, adata: AnnData) -> None:
        """Raise if the columns do not describe a valid screen."""
        super().validate_field(adata)
        self.columns.validate(adata)

    def register_field(self, adata: AnnData) -> dict:
        """Distinct values of the columns, and numbers of conditions and controls."""
        super().register_field(adata)
        table = self.columns.table(adata)
        treated, arms = table[~table["control"]], self.columns.genetic_arms(adata)
        combinations = self.columns.combinations(adata)
        drugs = {name for parts in combinations.values() for name, _ in parts} | set(treated["drug"]) - set(
            combinations
        )
        return {
            "control": one_or_list(self.columns.control),
            "drugs": np.array(sorted(drugs), dtype=str),
            "combinations": np.array(sorted(combinations), dtype=str),
            "lines": np.unique(table["line"].to_numpy(str)),
            "n_contexts": int(len(treated[["drug", "dose", "line"]].drop_duplicates())),
            "n_controls": int(table["control"].sum()),
            "genetic_arms": {name: arms[name].to_numpy(str) for name in arms},
        }

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **kwargs: Any) -> dict:
        """The same for data of a loaded model, which may have no replicates: only training and evaluation read them."""
        return ConditionField(replace(self.columns, replicate_key=None, unit=None)).register_field(adata_target)

    def get_summary_stats(self, state_registry: dict) -> dict:
        """Sizes for the registry's summary."""
        return {
            "n_drugs": len(state_registry["drugs"]),
            "n_contexts": state_registry["n_contexts"],
            "n_cell_lines": len(state_registry["lines"]),
        }


class FingerprintField(_TableField):
    """Hashes of the data at set-up."""

    registry_key = property(lambda self: FINGERPRINT)
    attr_name = property(lambda self: "obs")
    attr_key = property(lambda self: self.first_key)

    def __init__(self, setup: dict[str, Any]) -> None:
        super().__init__()
        self.setup, self.first_key = setup, ScreenColumns.of_setup(setup).first_key

    def validate_field(self, adata: AnnData) -> None:
        """No validation here, because other fields validate the data."""

    def register_field(self, adata: AnnData) -> dict:
        """Hashes by name."""
        super().register_field(adata)
        return fingerprint(RegisteredScreen(adata, self.setup))

    def transfer_field(self, state_registry: dict, adata_target: AnnData, **kwargs: Any) -> dict:
        """The same without replicates, which data of a loaded model may not have."""
        return FingerprintField(self.setup | {"replicate_key": None, "unit": None}).register_field(adata_target)

    def get_summary_stats(self, state_registry: dict) -> dict:
        """No sizes."""
        return {}


class DrugFeaturesField(_TableField):
    """A row of features for every drug, from ``uns``, from SMILES, or without features."""

    registry_key = property(lambda self: DRUG_TABLE)
    attr_name = property(lambda self: "uns")
    attr_key = property(lambda self: self.features_key)

    def __init__(
        self,
        columns: ScreenColumns,
        *,
        features_key: str | None,
        smiles_key: str | Sequence[str] | None,
        smiles_conflict: SmilesConflict = "error",
    ) -> None:
        super().__init__()
        self.columns, self.features_key, self.smiles_key = columns, features_key, smiles_key
        self.smiles_conflict: SmilesConflict = smiles_conflict

    def validate_field(self, adata: AnnData) -> None:
        """No validation here, because :meth:`register_field` validates the table."""

    def register_field(self, adata: AnnData) -> dict:
        """Names, feature columns (sorted), values, SMILES, and source of the features."""
        return DrugTable.read(
            adata,
            self.columns.table(adata),
            control=self.columns.control,
            smiles_conflict=self.smiles_conflict,
            treatments=self.columns.treatments(adata) if self.columns.combined else None,
            features_key=self.features_key,
            smiles_key=self.smiles_key,
        ).state()

    def get_summary_stats(self, state_registry: dict) -> dict:
        """Number of features."""
        return {"n_features": len(state_registry["columns"])}


class ReadoutField(_TableField):
    """Names of panel and readout genes. Only screens with a readout have this field."""

    registry_key = property(lambda self: READOUT)
    attr_name = property(lambda self: "var")
    attr_key = property(lambda self: self.key)

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key

    def validate_field(self, adata: AnnData) -> None:
        """No validation here, because :meth:`register_field` validates the genes."""

    def register_field(self, adata: AnnData) -> dict:
        """Names of all genes in order, and a mask of the readout genes."""
        genes = GeneColumns.read(adata, self.key)
        return {"names": genes.names, "is_readout": genes.is_readout}

    def get_summary_stats(self, state_registry: dict) -> dict:
        """Number of readout genes."""
        return {"n_readout": int(state_registry["is_readout"].sum())}


class CovariateField(_TableField):
    """Covariates of cells. Only screens with covariates have this field."""

    registry_key = property(lambda self: COVARIATES)
    attr_name = property(lambda self: "obs")
    attr_key = property(lambda self: self.keys[0])

    def __init__(self, columns: ScreenColumns, keys: Sequence[str], size_factor_key: str | None) -> None:
        super().__init__()
        self.columns, self.keys, self.size_factor_key = columns, keys, size_factor_key

    def validate_field(self, adata: AnnData) -> None:
        """Raise if the controls do not determine the effects of the covariates; warn of confounding with drugs."""
        super().validate_field(adata)
        for sentence in check_covariates(adata, self.keys, self.columns.table(adata), self._taken()):
            warn(sentence)

    def _taken(self) -> list[str | None]:
        of_screen = (
            "drug_key",
            "dose_key",
            "cell_line_key",
            "batch_key",
            "split_key",
            "intervention_key",
            "replicate_key",
        )
        keys = [getattr(self.columns, name) for name in of_screen]
        several = [key for each in keys if isinstance(each, list) for key in each]
        return [*(key for key in keys if not isinstance(key, list)), *several, self.size_factor_key]

    def register_field(self, adata: AnnData) -> dict:
        """Names of the columns."""
        super().register_field(adata)
        return {"names": np.array(Covariates.read(adata, self.keys).names)}

    def get_summary_stats(self, state_registry: dict) -> dict:
        """Number of columns."""
        return {"n_covariates": len(state_registry["names"])}
