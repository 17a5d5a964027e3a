"""Set-up of an AnnData for the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

from scvi import REGISTRY_KEYS
from scvi.data.fields import LayerField

from scgim._arguments import check_arguments
from scgim._checks import UNITS, check_option, one_or_list
from scgim._combinations import plain_key
from scgim.data._columns import ScreenColumns
from scgim.data._matrix_check import check_matrix
from scgim.pp._smiles import SmilesConflict

from ._fields import ConditionField, CovariateField, DrugFeaturesField, FingerprintField, ReadoutField
from ._manager import Manager, register
from ._state import ModelState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from scgim.data._matrix import Scale


class SetupMixin(ModelState):
    """Declaration of the columns of a screen."""

    @classmethod
    def setup_anndata(
        cls,
        adata: AnnData,
        drug_key: str | Sequence[str],
        control: str | Sequence[str],
        scale: Scale,
        *,
        layer: str | None = None,
        dose_key: str | Sequence[str] | None = None,
        dose_unit: str | None = None,
        smiles_key: str | Sequence[str] | None = None,
        features_key: str | None = None,
        cell_line_key: str | None = None,
        batch_key: str | None = None,
        size_factor_key: str | None = None,
        split_key: str | None = None,
        readout: str | None = None,
        covariate_keys: Sequence[str] = (),
        intervention_key: str | None = None,
        smiles_conflict: SmilesConflict = "error",
        replicate_key: str | None = None,
        unit: Literal["cell", "well"] = "cell",
        combination_sep: str | None = None,
    ) -> None:
        """Declare the columns of a screen and validate the data.

        The AnnData is unchanged except for scvi-tools' two identifiers in ``.uns``.

        Parameters
        ----------
        adata
            AnnData in memory, backed or on dask, dense or sparse, but not a view.
        drug_key
            Column of ``.obs`` with the drug of every cell, including controls. In a screen with combinations, a list of columns, one for
            each drug of a cell (missing, blank or a control where there is none), or one column with ``combination_sep``.
        control
            Value of ``drug_key`` for control cells, or a list of values, such as two vehicles. All of them are controls of their line and
            batch; :func:`scgim.pp.check` says how far they differ.
        scale
            ``"counts"``: whole counts, trained as log1p(1e4 x / size factor); ``"lognorm"``: log-normalized; ``"continuous"``:
            other real values. Every value is checked against the declared scale.
        layer
            Layer of the matrix; ``.X`` by default.
        dose_key, dose_unit
            Column of doses (positive numbers; ignored for controls) and their unit. Both or neither must be given. With combinations, as
            many columns as ``drug_key``, or one column with texts such as ``"0.1+2"`` or with one dose for all drugs of a cell.
        smiles_key
            Column with one SMILES per drug. Morgan fingerprints are computed from it unless ``features_key`` is given. Drugs without a
            SMILES in any of their cells, such as cytokines, are learned on their own, and a warning lists them. With combinations, a
            list of as many columns as ``drug_key``, or one column, of which the cells of single drugs are read.
        features_key
            Key of ``.uns`` with a DataFrame of drug features, index = drug names. A row of NaN says that a drug has no features.
        cell_line_key, batch_key
            Columns of cell lines and batches. Every line and batch must have controls; effects are measured against these controls.
        size_factor_key
            Column of size factors for ``scale="counts"``; row sums by default.
        split_key
            Column of ``"train"`` / ``"test"``; test rows are not used in training.
        readout
            Genes that are predicted but not in the graph: a bool column of ``.var`` (True: readout only), or a key of ``.obsm`` with a
            DataFrame of further genes on the same scale. The other genes are the panel. Readout genes are regressed on all genes of the
            panel and have changes of their own under measured drugs (:class:`~scgim.module.Readout`). They may be constant.
        covariate_keys
            Columns of covariates, such as a score of the cell cycle, time or donor. Numbers are continuous; text, categories and bools are
            categorical. Their linear effect on every gene, estimated in the controls within line and batch, is subtracted from all cells.
            Counts are log-normalized first and need ``GIM(likelihood="cells")``.
        intervention_key
            Column with the perturbed gene of genetic arms (CRISPR), missing or blank for drugs. An arm, a value of ``drug_key``, perturbs
            one gene. If the gene is measured, it is the known and only target of the arm.
        smiles_conflict
            Several SMILES of one drug: ``"error"``; ``"first"``, the most frequent SMILES, then the first in alphabetical order; or
            ``"same_parent"``, the same if all SMILES have one parent (:func:`scgim.pp.standardize`), as salts of a compound have.
        replicate_key
            Column of replicates: wells, guides or animals, the units of evidence. Cells of a replicate differ less than replicates of a
            condition, so the variance between replicates enters all errors. Equal names in a condition are one replicate, in all batches.
            For donors with controls and treated cells, use ``batch_key``: effects are then measured within donors.
        unit
            What a row is: ``"cell"``, or ``"well"`` (bulk, RPPA, L1000). Wells are replicates, unless ``replicate_key`` groups them.
        combination_sep
            Separator of drugs in ``drug_key``, such as ``"+"``. By default a name is one drug, whatever characters it contains.

        Raises
        ------
        KeyError
            If a key does not exist. The message names the nearest key.
        TypeError
            If an argument is not a name, or not a list of names where several are possible.
        ValueError
            If values contradict the declaration. The message names the values and a remedy.

        Examples
        --------
        >>> import scgim
        >>> adata = scgim.datasets.sachs()
        >>> scgim.setup_anndata(adata, drug_key="drug", control="cd3cd28", scale="continuous", smiles_key="smiles")
        """
        check_arguments(locals(), several=True)
        # plain values, because the arguments are saved
        control = one_or_list(control)
        covariate_keys = list(covariate_keys)
        drug_key, dose_key, smiles_key = plain_key(drug_key), plain_key(dose_key), plain_key(smiles_key)
        setup_method_args = cls._get_setup_method_args(
            **locals()
        )  # before others, because it records all local variables
        check_option("unit", unit, UNITS)
        check_option("smiles_conflict", smiles_conflict, get_args(SmilesConflict))
        cls._register(adata, setup_method_args)

    @classmethod
    def _register(
        cls, adata: AnnData, setup_method_args: dict[str, Any], source_registry: dict[str, Any] | None = None
    ) -> None:
        """Validate the data and register them with scvi-tools; data of a loaded model (its registry is given) may have no replicates."""
        setup = setup_method_args["setup_args"]
        check_matrix(adata, **{name: setup.get(name) for name in ("layer", "scale", "size_factor_key", "readout")})
        columns = ScreenColumns.of_setup(setup)
        drugs = {name: setup.get(name) for name in ("features_key", "smiles_key")}
        fields = [
            LayerField(REGISTRY_KEYS.X_KEY, setup.get("layer"), is_count_data=False, correct_data_format=False),
            ConditionField(columns),
            DrugFeaturesField(columns, **drugs, smiles_conflict=setup.get("smiles_conflict", "error")),
            FingerprintField(setup),
        ]
        if (readout := setup.get("readout")) is not None:
            fields.append(ReadoutField(readout))
        if len(covariate_keys := setup.get("covariate_keys") or ()):
            fields.append(CovariateField(columns, covariate_keys, setup.get("size_factor_key")))
        # A copied AnnData has the identifier of its original and would replace the original in scvi-tools' store.
        own = adata.uns.pop("_scvi_uuid", None)
        manager = Manager(fields=fields, setup_method_args=setup_method_args)
        try:
            manager.register_fields(adata, source_registry)
        except Exception:
            if own is not None:  # an earlier set-up remains valid
                adata.uns["_scvi_uuid"] = own
            raise
        register(cls, manager, replaced=own)
