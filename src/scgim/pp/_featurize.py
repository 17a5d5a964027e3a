from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Literal

import pandas as pd

from scgim import _keys
from scgim._checks import (
    check_control,
    check_key_added,
    check_names,
    check_obs_column,
    find_control,
    listed,
    refuse_view,
)

from ._fingerprints import compute

if TYPE_CHECKING:
    from anndata import AnnData

# 4,093 column names and more overflow the h5 attribute that lists them; from 5,001 on, anndata stores the list elsewhere.
H5AD_GAP = range(4001, 5001)


def featurize_drugs(
    adata: AnnData,
    *,
    drug_key: str = "drug",
    smiles_key: str = "smiles",
    method: Literal["morgan"] = "morgan",
    n_bits: int = 1024,
    radius: int = 2,
    counts: bool = False,
    chirality: bool = True,
    control: str | None = None,
    key_added: str = _keys.FEATURES,
) -> pd.DataFrame:
    """Fingerprint every drug of a screen, from the SMILES of its cells.

    Structures are reduced to their parents (`scgim.pp.standardise`) and fingerprinted (`scgim.pp.fingerprints`).

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
    The audit table of `scgim.pp.fingerprints`: what became of each drug's structure, and which drugs are twins.

    Writes ``uns[key_added]``: a DataFrame (drugs, bits), float32, indexed by drug name, sorted.

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
    if n_bits in H5AD_GAP:
        raise ValueError(
            f"n_bits={n_bits}: a table of {H5AD_GAP[0]:,} to {H5AD_GAP[-1]:,} columns cannot be written to h5ad. Use 2048."
        )
    smiles = drug_smiles(adata, drug_key=drug_key, smiles_key=smiles_key, control=control)
    found = find_control(adata, smiles.index) if control is None else None
    if found is not None and not smiles[found].strip():
        warnings.warn(
            f"{found!r} has no SMILES and was taken for the control. Pass control={found!r} to say so.", stacklevel=2
        )
        smiles = smiles.drop(found)
    features, audit = compute(smiles, method=method, n_bits=n_bits, radius=radius, counts=counts, chirality=chirality)
    adata.uns[key_added] = features
    return audit


def drug_smiles(adata: AnnData, *, drug_key: str, smiles_key: str, control: str | None) -> pd.Series:
    """The SMILES of every drug but the control, sorted by name; empty where there is none."""
    drug = check_names(adata, drug_key)
    if control is not None:
        check_control(drug, control, key=drug_key)
    smiles = check_obs_column(adata, smiles_key, allow_missing=True).astype(object)
    pairs = pd.DataFrame({"drug": drug.to_numpy(), "smiles": smiles.to_numpy()}).drop_duplicates()
    pairs = pairs[pairs["drug"] != str(control)] if control is not None else pairs
    pairs["smiles"] = ["" if pd.isna(value) else value for value in pairs["smiles"]]
    found = pairs.drop_duplicates().sort_values("drug", kind="stable").set_index("drug")["smiles"]
    several = found[found.index.duplicated(keep=False)]
    if len(several):
        name, *others = several.index.unique()
        forms = " and ".join(repr(value) for value in several[[name]].iloc[:2])
        raise ValueError(
            f"Drug {name!r} has more than one SMILES in obs[{smiles_key!r}]: {forms}. Give all of its cells the same one."
            + (f" The same holds for {listed(others)}." if others else "")
        )
    if found.empty:
        raise ValueError(f"obs[{drug_key!r}] holds no drug besides the control {control!r}.")
    return found
