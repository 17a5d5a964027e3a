"""RDKit's two-dimensional descriptors on a scale that is robust to unusual compounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from rdkit import rdBase
from rdkit.Chem import Descriptors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._chemistry import StandardizedMolecule

LARGEST = 20.0  # e^20 exceeds every descriptor except the information content of very large rings
# Fragment counts (fr_*) are left out: a fingerprint holds the same information.
DESCRIPTORS = {name: f for name, f in Descriptors.descList if not name.startswith("fr_")}


def descriptors(structures: Mapping[str, StandardizedMolecule]) -> pd.DataFrame:
    r"""Descriptors of every structure, (drugs, descriptors) float32, columns ``"rdkit_MolWt"``, ...

    Every descriptor :math:`x` is compressed to :math:`\mathrm{sign}(x) \log(1 + |x|)` and cut off at 20. Raw descriptors span eight
    orders of magnitude, so a single unusual drug would set the scale for all drugs. Descriptors that RDKit cannot compute (partial
    charges of metals) are 0.
    """
    with rdBase.BlockLogs():
        rows = [[_value(f, structure.mol) for f in DESCRIPTORS.values()] for structure in structures.values()]
    values = np.asarray(rows, dtype=np.float64).reshape(len(structures), len(DESCRIPTORS))
    values = np.where(np.isfinite(values), np.sign(values) * np.log1p(np.abs(values)), 0.0).clip(-LARGEST, LARGEST)
    return pd.DataFrame(
        values.astype(np.float32),
        index=pd.Index(structures, name="drug", dtype=object),
        columns=[f"rdkit_{name}" for name in DESCRIPTORS],
    )


def _value(function, mol) -> float:
    try:
        return float(function(mol))
    except (ValueError, RuntimeError, ZeroDivisionError, OverflowError):
        return np.nan
