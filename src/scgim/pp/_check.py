from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal, get_args

import pandas as pd

from scgim._anndata import refuse_view
from scgim._arguments import check_arguments
from scgim._checks import UNITS, check_option, control_names

from ._check_arms import check_arms
from ._check_design import (
    check_batches,
    check_columns,
    check_conditions,
    check_controls,
    check_covariate_columns,
    check_dose_range,
    check_replicates,
)
from ._check_drugs import check_features, check_split, check_structures
from ._check_labels import check_labels
from ._check_resources import check_resources
from ._check_values import check_genes, check_readout, check_scale, check_sizes, scan
from ._screen import Finding, UncheckedScreen
from ._smiles import SmilesConflict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from anndata import AnnData

    from scgim.statistics._value_scan import ValueScan

STATUS = ["PASS", "WARN", "FAIL"]
BAD_DATA = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def check(
    adata: AnnData,
    *,
    drug_key: str = "drug",
    control: str | Sequence[str],
    scale: Literal["counts", "lognorm", "continuous"],
    layer: str | None = None,
    dose_key: str | None = None,
    dose_unit: str | None = None,
    smiles_key: str | None = None,
    features_key: str | None = None,
    cell_line_key: str | None = None,
    batch_key: str | None = None,
    size_factor_key: str | None = None,
    split_key: str | None = None,
    smiles_conflict: SmilesConflict = "error",
    intervention_key: str | None = None,
    replicate_key: str | None = None,
    unit: Literal["cell", "well"] = "cell",
    readout: str | None = None,
    covariate_keys: Sequence[str] = (),
) -> pd.DataFrame:
    """Check a screen before set-up. Takes the arguments of `scgim.setup_anndata` and returns a table of findings.

    Set-up stops at the first error. `check` continues and reports every error. If no row is FAIL, `scgim.setup_anndata` accepts
    the screen. Every value of the matrix is read once, in blocks of cells, and values of controls with several labels twice.
    Nothing is written to `adata`.

    Parameters
    ----------
    adata
        Cells, in memory, backed or on dask; not a view.
    drug_key, control
        Column of ``obs`` with the drug, and the name of untreated cells in this column, or a list of names.
    scale, layer
        Scale of the matrix, and the layer that holds it (``None``: ``X``), as in `scgim.setup_anndata`.
    dose_key, dose_unit, cell_line_key, batch_key, size_factor_key, split_key, replicate_key
        Columns of ``obs``, and the unit of the doses.
    unit
        What a row is, ``"cell"`` or ``"well"``.
    smiles_key, features_key
        Column of ``obs`` with the SMILES of each drug; table of ``uns`` with drug features.
    smiles_conflict
        Several SMILES of one drug, as in `scgim.setup_anndata`.
    intervention_key
        Column of ``obs`` with the perturbed gene of genetic arms.
    readout
        Bool column of ``var``, or key of ``obsm`` with a DataFrame, of the genes that are readout only.
    covariate_keys
        Columns of ``obs`` with covariates that are regressed out.

    Returns
    -------
    One row per check, always the same checks in the same order. Columns: ``check``; ``status`` (``"PASS"``; ``"WARN"``: the model can
    be trained, but the finding needs attention; ``"FAIL"``: the model cannot be trained); ``finding``; ``fix`` (empty for PASS).
    The checks:

    ``scale``
        Values are finite and of the declared scale.
    ``size factors``, ``genes``, ``readout``, ``columns``
        Sizes are positive. Genes vary, and no two genes are identical. Panel and readout are distinct; readout genes may be constant.
        No value is missing in ``obs``.
    ``controls``, ``cells per condition``
        Every cell line and batch with treated cells has controls. WARN below 20 cells or 2 wells.
    ``control labels``
        The means of cells of several control labels agree in every cell line and batch. WARN if a difference exceeds 0.2 SD and its
        bound by chance (Welch's test at 5 %, Bonferroni over genes and comparisons).
    ``replicates``
        Some condition or controls have two replicates in a batch, which show how much replicates differ. WARN if rows look like wells.
    ``doses``
        Doses are positive numbers within five orders of magnitude.
    ``structures``, ``features``
        SMILES can be read. No drug is a duplicate of another (salt, stereoisomer, equal fingerprint). No drug is without features. At
        least 8 drugs differ in their features.
    ``genetic arms``
        Every arm perturbs one gene. WARN if no perturbed gene is measured.
    ``drugs and batches``
        Every drug occurs in two batches or more. Otherwise its effect is confounded with the deviation of its batch.
    ``covariates``
        Controls determine the effects of the covariates. WARN if covariates differ between a drug and its controls.
    ``split``
        No leakage from training into test, see `audit_split`.
    ``resources``
        Memory and processor time of set-up, training and prediction, extrapolated from a benchmark with linear mechanisms; accurate to a
        factor of 2 on simulated screens. WARN if the memory is not available, by the least limit of machine, container and process.

    Raises
    ------
    KeyError
        If a column, layer or table does not exist. The message names the nearest one.
    TypeError, ValueError
        If an argument is not a name, `adata` is not an AnnData or is a view, or `scale` does not exist. Problems of the data never raise.

    Examples
    --------
    >>> import scgim
    >>> adata = scgim.datasets.sachs()
    >>> sheet = scgim.pp.check(adata, control="cd3cd28", scale="continuous", smiles_key="smiles")
    >>> sheet.set_index("check")["status"]["controls"]
    'PASS'
    >>> print(sheet.set_index("check")["finding"]["features"])
    7 drugs with distinct features to learn from: nothing is learned across drugs below 8.
    """
    arguments = locals()
    check_arguments(arguments)
    screen = UncheckedScreen(controls=control_names(arguments.pop("control")), **arguments)
    refuse_view(adata)
    check_option("scale", scale, ["counts", "lognorm", "continuous"])
    check_option("smiles_conflict", smiles_conflict, get_args(SmilesConflict))
    check_option("unit", unit, UNITS)
    screen.require_keys()
    seen = _values(screen)
    checks: dict[str, Callable[[UncheckedScreen], Iterator[Finding]]] = {
        "scale": partial(check_scale, found=seen),
        "size factors": partial(check_sizes, found=seen),
        "genes": partial(check_genes, found=seen),
        "readout": partial(check_readout, found=seen),
        "columns": check_columns,
        "controls": check_controls,
        "control labels": partial(check_labels, found=seen),
        "cells per condition": check_conditions,
        "replicates": check_replicates,
        "doses": check_dose_range,
        "structures": check_structures,
        "features": check_features,
        "genetic arms": check_arms,
        "drugs and batches": check_batches,
        "covariates": check_covariate_columns,
        "split": check_split,
        "resources": check_resources,
    }
    rows = [(name, *_worst(look, screen)) for name, look in checks.items()]
    return pd.DataFrame(rows, columns=["check", "status", "finding", "fix"], dtype=object)


def _values(screen: UncheckedScreen) -> ValueScan | Finding:
    try:
        return scan(screen)
    except BAD_DATA as error:
        return _unforeseen(error)


def _unforeseen(error: Exception) -> Finding:
    # Data can be wrong in ways that no list of checks foresees: an unforeseen error becomes a finding too.
    return Finding("FAIL", f"Could not be checked: {type(error).__name__}: {error}", "See the other rows.")


def _worst(look: Callable[[UncheckedScreen], Iterator[Finding]], screen: UncheckedScreen) -> Finding:
    """All findings of a check merged into one, the worst status first; PASS only if nothing is wrong."""
    found = []
    try:
        found += look(screen)
    except BAD_DATA as error:
        found.append(_unforeseen(error))
    amiss = [finding for finding in found if finding.status != "PASS"]
    if not amiss:
        return found[-1]
    amiss.sort(key=lambda finding: -STATUS.index(finding.status))
    return Finding(amiss[0].status, *(" ".join(getattr(f, part) for f in amiss) for part in ("finding", "fix")))
