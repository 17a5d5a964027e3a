from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from rdkit.Chem import rdFingerprintGenerator

from scgim._checks import check_option

from ._audit import audit_table
from ._chemistry import standardize_all
from ._descriptors import descriptors

if TYPE_CHECKING:
    from ._chemistry import StandardizedMolecule

METHODS = ("morgan", "descriptors", "morgan_descriptors")


def fingerprints(
    smiles: Mapping[str, str] | pd.Series,
    *,
    method: Literal["morgan", "descriptors", "morgan_descriptors"] = "morgan",
    n_bits: int = 1024,
    radius: int = 2,
    counts: bool | None = None,
    chirality: bool = True,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    r"""Fingerprints of the drugs' parent structures, and an audit of every structure.

    Parameters
    ----------
    smiles
        SMILES by drug name.
    method
        ``"morgan"``: circular substructures up to `radius` bonds around every atom (Rogers & Hahn 2010), hashed into `n_bits`.
        ``"descriptors"``: RDKit's two-dimensional descriptors :math:`x` (weight, polarity, charges, ring counts, ...), as
        :math:`\mathrm{sign}(x) \log(1 + |x|)` cut off at 20, so that no unusual drug sets the scale.
        ``"morgan_descriptors"``: counts of circular substructures, then descriptors; the best choice for ``generator="kernel"``.
    n_bits, radius
        Length of the fingerprint, and radius of the substructures in bonds.
    counts
        Count occurrences of a substructure instead of recording its presence, which tells chain lengths apart. ``None``: counts
        with ``"morgan_descriptors"`` only.
    chirality
        Distinguish stereoisomers.

    Returns
    -------
    features
        (drugs, features) float32, columns ``"morgan_0"``, ``"morgan_1"``, ..., ``"rdkit_MolWt"``, ...
    audit
        One row per drug: ``smiles`` as given, ``parent`` (canonical SMILES), ``inchikey``, ``n_fragments``, ``n_bits_on``, ``action``
        and ``dropped`` (see `StandardizedMolecule`), and names of other drugs, joined by ``"; "``: ``same_structure_as`` (same parent),
        ``same_skeleton_as`` (another parent, but the same atoms and bonds: stereoisomers, tautomers), ``same_fingerprint_as``.

    Raises
    ------
    ValueError
        If structures are missing or cannot be read. The message names all of them.

    Warns
    -----
    UserWarning
        If drugs share their parent or their fingerprint, so that no model can tell them apart; if a structure has several active
        components, a dropped counter-ion is larger than what is kept, or a structure is a biologic.

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
    smiles: Mapping[str, str] | pd.Series,
    *,
    method: str,
    n_bits: int,
    radius: int,
    counts: bool | None,
    chirality: bool,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`fingerprints`, shared with `featurize_drugs`, so that warnings point to the line that called either function."""
    check_option("method", method, METHODS)
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
    structures = standardize_all(smiles)
    tables = []
    if method != "descriptors":
        counts = method == "morgan_descriptors" if counts is None else counts
        tables.append(_morgan(structures, n_bits=int(n_bits), radius=int(radius), counts=counts, chirality=chirality))
    if method != "morgan":
        tables.append(descriptors(structures))
    features = pd.concat(tables, axis=1)
    audit = audit_table(features, structures, smiles)
    audit["n_bits_on"] = (features.filter(regex="^morgan_") > 0).sum(axis=1)
    return features, audit


def _morgan(
    structures: Mapping[str, StandardizedMolecule], *, n_bits: int, radius: int, counts: bool, chirality: bool
) -> pd.DataFrame:
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=radius, fpSize=n_bits, includeChirality=chirality)
    vector = generator.GetCountFingerprintAsNumPy if counts else generator.GetFingerprintAsNumPy
    values = np.stack([vector(structure.mol) for structure in structures.values()]).astype(np.float32)
    index = pd.Index(structures, name="drug", dtype=object)
    return pd.DataFrame(values, index=index, columns=[f"morgan_{i}" for i in range(n_bits)])
