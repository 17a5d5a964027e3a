from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd
from rdkit.Chem import rdFingerprintGenerator

from scgim._checks import check_option

from ._audit import audit_table
from ._chemistry import standardise_all


def fingerprints(
    smiles: Mapping[str, str] | pd.Series,
    *,
    method: Literal["morgan"] = "morgan",
    n_bits: int = 1024,
    radius: int = 2,
    counts: bool = False,
    chirality: bool = True,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Fingerprints of the drugs' parent structures, and what became of each.

    Parameters
    ----------
    smiles
        SMILES by drug name.
    method
        ``"morgan"``: circular substructures up to `radius` bonds around every atom (Rogers & Hahn 2010), hashed into `n_bits`.
    n_bits, radius
        Length of the fingerprint, and size of the substructures in bonds.
    counts
        How often a substructure occurs, not only whether: tells chain lengths apart.
    chirality
        Tell stereoisomers apart.

    Returns
    -------
    features
        (drugs, bits) float32, columns ``"morgan_0"``, ``"morgan_1"``, ...
    audit
        One row a drug: ``smiles`` as given, ``parent`` (canonical SMILES), ``inchikey``, ``n_fragments``, ``n_bits_on``, ``action``
        (see `Structure`), and other drugs, joined by ``"; "``: ``same_structure_as`` (same parent), ``same_skeleton_as`` (another parent,
        but the same atoms and bonds: stereoisomers, tautomers), ``same_fingerprint_as``.

    Raises
    ------
    ValueError
        If structures are missing or cannot be read: the message names all of them.

    Warns
    -----
    UserWarning
        If drugs share their parent or their fingerprint: no model can tell them apart.

    Examples
    --------
    >>> features, audit = fingerprints({"aspirin": "CC(=O)Oc1ccccc1C(=O)[O-].[Na+]", "ethanol": "CCO"})
    >>> features.shape
    (2, 1024)
    >>> audit[["parent", "n_fragments", "action"]]
                            parent  n_fragments        action
    drug
    aspirin  CC(=O)Oc1ccccc1C(=O)O            2  parent taken
    ethanol                    CCO            1          none
    """
    return compute(smiles, method=method, n_bits=n_bits, radius=radius, counts=counts, chirality=chirality)


def compute(
    smiles: Mapping[str, str] | pd.Series, *, method: str, n_bits: int, radius: int, counts: bool, chirality: bool
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`fingerprints`, and `featurize_drugs` for its caller: warnings point to the line that called either."""
    check_option("method", method, ["morgan"])
    for argument, value, least in (("n_bits", n_bits, 1), ("radius", radius, 0)):
        if not isinstance(value, int | np.integer) or value < least:
            raise ValueError(f"{argument}={value!r} must be an integer of at least {least}.")
    if not isinstance(smiles, Mapping | pd.Series):
        raise TypeError(
            f"smiles must map drug names to SMILES, not be a {type(smiles).__name__}: {{'aspirin': 'CC(=O)...'}}."
        )
    smiles = pd.Series(smiles, dtype=object)
    smiles.index = smiles.index.map(str)
    if smiles.empty:
        raise ValueError("There are no drugs to fingerprint.")
    if smiles.index.has_duplicates:
        raise ValueError(f"Drug {smiles.index[smiles.index.duplicated()][0]!r} has more than one SMILES. Give it one.")
    structures = standardise_all(smiles)
    generator = rdFingerprintGenerator.GetMorganGenerator(
        radius=int(radius), fpSize=int(n_bits), includeChirality=chirality
    )
    vector = generator.GetCountFingerprintAsNumPy if counts else generator.GetFingerprintAsNumPy
    values = np.stack([vector(structure.mol) for structure in structures.values()]).astype(np.float32)
    features = pd.DataFrame(
        values, index=pd.Index(structures, name="drug", dtype=object), columns=[f"{method}_{i}" for i in range(n_bits)]
    )
    return features, audit_table(features, structures, smiles)
