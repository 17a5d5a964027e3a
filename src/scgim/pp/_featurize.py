from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from scgim import _keys
from scgim._checks import (
    check_control,
    check_key_added,
    check_names,
    check_smiles,
    find_control,
    refuse_view,
    warn,
)

from ._descriptors import DESCRIPTORS
from ._fingerprints import compute

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

# 4,093 column names and more overflow the h5 attribute that lists them; from 5,001 on, anndata stores the list elsewhere.
H5AD_GAP = range(4001, 5001)


def featurize_drugs(
    adata: AnnData,
    *,
    drug_key: str = "drug",
    smiles_key: str = "smiles",
    method: Literal["morgan", "descriptors", "morgan_descriptors"] = "morgan",
    n_bits: int = 1024,
    radius: int = 2,
    counts: bool | None = None,
    chirality: bool = True,
    control: str | None = None,
    key_added: str = _keys.FEATURES,
) -> pd.DataFrame:
    """Fingerprint every drug of a screen, from the SMILES of its cells.

    Structures are reduced to their parents (`scgim.pp.standardize`) and fingerprinted (`scgim.pp.fingerprints`).

    Parameters
    ----------
    adata
        Cells; not a view.
    drug_key, smiles_key
        Columns of ``obs``: the drug's name, the same SMILES in all of its cells.
    method, n_bits, radius, counts, chirality
        See `scgim.pp.fingerprints`.
    control
        The untreated cells' name in ``obs[drug_key]``; it gets no features and needs no SMILES. ``None``: ``uns["control"]``
        or the one conventional name ("DMSO", ...) if it has no SMILES, said in a warning.
    key_added
        Where in ``uns`` the features go.

    Returns
    -------
    The audit table of `scgim.pp.fingerprints`: what became of each drug's structure, and which drugs are duplicates.

    Writes ``uns[key_added]``: a DataFrame (drugs, features), float32, indexed by drug name, sorted.

    Raises
    ------
    KeyError
        If a column does not exist, naming the nearest.
    ValueError
        If a cell has no drug, a drug has no usable SMILES or two, `control` is nobody's name, `adata` is a view,
        or `key_added` or `n_bits` could not be written to h5ad.

    Warns
    -----
    UserWarning
        If drugs share their parent or their fingerprint.

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
    drug = check_names(adata, drug_key)
    if control is not None:
        check_control(drug, control, key=drug_key)
    smiles = check_smiles(adata, smiles_key, names=drug, treated=(drug != str(control)).to_numpy())
    if smiles.empty:
        raise ValueError(f"obs[{drug_key!r}] holds no drug besides the control {control!r}.")
    found = find_control(adata, smiles.index) if control is None else None
    if found is not None and not str(smiles[found]).strip():
        warn(f"{found!r} has no SMILES and was taken for the control. Pass control={found!r} to say so.")
        smiles = smiles.drop(found)
    features, audit = compute(smiles, method=method, n_bits=n_bits, radius=radius, counts=counts, chirality=chirality)
    adata.uns[key_added] = features
    return audit
