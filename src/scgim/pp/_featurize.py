from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from scgim import _keys
from scgim._anndata import refuse_view
from scgim._checks import (
    check_key_added,
    check_names,
    find_control,
    listed,
    warn,
    warn_of_featureless,
)

from ._cell_drugs import CellDrugs, is_combined
from ._descriptors import DESCRIPTORS
from ._fingerprints import compute
from ._smiles import SmilesConflict, check_smiles, with_structure

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData

# Column names are stored in an attribute of the h5 file, which overflows from 4,093 names on. From 5,001 names on, anndata
# stores them elsewhere.
H5AD_GAP = range(4001, 5001)


def featurize_drugs(
    adata: AnnData,
    *,
    drug_key: str | Sequence[str] = "drug",
    smiles_key: str | Sequence[str] = "smiles",
    method: Literal["morgan", "descriptors", "morgan_descriptors"] = "morgan",
    n_bits: int = 1024,
    radius: int = 2,
    counts: bool | None = None,
    chirality: bool = True,
    control: str | Sequence[str] | None = None,
    key_added: str = _keys.FEATURES,
    smiles_conflict: SmilesConflict = "error",
    combination_sep: str | None = None,
) -> pd.DataFrame:
    """Compute a fingerprint for every drug of a screen, from the SMILES of its cells.

    Structures are reduced to their parents (`scgim.pp.standardize`) before the fingerprints are computed
    (`scgim.pp.fingerprints`).

    Parameters
    ----------
    adata
        Cells; not a view.
    drug_key, smiles_key
        Columns of ``obs``: name of the drug, and its SMILES, the same one in all of its cells. A drug without a SMILES, such as a
        cytokine, gets a row of NaN, and `scgim.setup_anndata` takes this row for the absence of features. In a screen with combinations,
        lists of columns or a separator as in `scgim.setup_anndata`; every drug of a combination gets one row, and a single column of
        SMILES is read in cells of single drugs.
    method, n_bits, radius, counts, chirality
        Kind and settings of the fingerprint, as in `scgim.pp.fingerprints`.
    control
        Name of the untreated cells in ``obs[drug_key]``, or a list of names. A control gets no features and needs no SMILES. ``None``:
        ``uns["control"]``, or the only conventional name ("DMSO", ...) if it has no SMILES; a warning names it.
    key_added
        Key of ``uns`` under which the features are written.
    smiles_conflict
        Several SMILES of one drug: ``"error"``; ``"first"``, the most frequent SMILES, then the first in alphabetical order; or
        ``"same_parent"``, the same if all SMILES have one parent (`scgim.pp.standardize`), as salts of a compound have.
    combination_sep
        Separator of drugs in ``obs[drug_key]``.

    Returns
    -------
    The audit table of `scgim.pp.fingerprints`: the action on each drug's structure, and which drugs are duplicates. Drugs without a
    SMILES have no row.

    Writes ``uns[key_added]``: a DataFrame (drugs, features), float32, indexed by drug name, sorted.

    Raises
    ------
    KeyError
        If a column does not exist. The message names the nearest one.
    ValueError
        If a cell has no drug, a drug has an unusable SMILES or two, no drug has a SMILES, no cell is called `control`, `adata` is a view,
        or the table could not be written to h5ad under `key_added` or with `n_bits` columns.

    Warns
    -----
    UserWarning
        If drugs share their parent or their fingerprint, drugs have no SMILES, or the control was inferred.

    Examples
    --------
    >>> import anndata as ad, numpy as np, pandas as pd
    >>> obs = pd.DataFrame(
    ...     {"drug": ["DMSO", "aspirin", "ethanol"], "smiles": ["", "CC(=O)Oc1ccccc1C(=O)O", "CCO"]}, index=list("abc")
    ... )
    >>> adata = ad.AnnData(np.zeros((3, 2)), obs=obs)
    >>> audit = featurize_drugs(adata, control="DMSO")
    >>> adata.uns["drug_features"].iloc[:, :3]
             morgan_0  morgan_1  morgan_2
    drug
    aspirin       0.0       0.0       0.0
    ethanol       0.0       0.0       0.0
    """
    refuse_view(adata)
    check_key_added(key_added)
    n_columns = (n_bits if method != "descriptors" else 0) + (len(DESCRIPTORS) if method != "morgan" else 0)
    if n_columns in H5AD_GAP:
        raise ValueError(
            f"n_bits={n_bits}: a table of {H5AD_GAP[0]:,} to {H5AD_GAP[-1]:,} columns cannot be written to h5ad. Use 2048."
        )
    if is_combined(drug_key, combination_sep) and control is None:
        raise ValueError("A screen with combinations needs control=, the name of its untreated cells.")
    if control is None:
        drug = check_names(adata, str(drug_key))
        smiles = check_smiles(
            adata, str(smiles_key), names=drug, treated=np.ones(len(drug), bool), conflict=smiles_conflict
        )
    else:
        cells = CellDrugs.read(adata, drug_key, control, sep=combination_sep)
        smiles = cells.smiles(smiles_key, smiles_conflict)
    if smiles.empty:
        raise ValueError(f"obs[{drug_key!r}] holds no drug besides the control {control!r}.")
    found = find_control(adata, smiles.index) if control is None else None
    if found is not None and not str(smiles[found]).strip():
        warn(f"{found!r} has no SMILES and was taken for the control. Pass control={found!r} to say so.")
        smiles = smiles.drop(found)
    known = with_structure(smiles, str(smiles_key))
    bare = smiles.index.difference(known.index)
    if control is None and len(bare):
        raise ValueError(
            f"{listed(bare)} has no SMILES. Name the control in `control`: other drugs without a SMILES then get a row of NaN."
        )
    features, audit = compute(known, method=method, n_bits=n_bits, radius=radius, counts=counts, chirality=chirality)
    warn_of_featureless(bare, len(smiles))
    adata.uns[key_added] = features.reindex(smiles.index)
    return audit
