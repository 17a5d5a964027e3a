"""Groups of related drugs: forms of one compound, and compounds on one scaffold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rdkit import Chem, rdBase
from rdkit.Chem.Scaffolds import MurckoScaffold

from ._duplicates import joined

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._chemistry import StandardizedMolecule


def compounds(structures: Mapping[str, StandardizedMolecule]) -> dict[str, str]:
    """First name of each drug's compound; salts, stereoisomers and tautomers are one compound."""
    first: dict[str, str] = {}
    return {name: first.setdefault(structures[name].skeleton, name) for name in sorted(structures)}


def scaffold(mol: Chem.Mol) -> str:
    """Rings and their linkers (Bemis & Murcko 1996) as SMILES without stereochemistry; empty without rings.

    Examples
    --------
    >>> from scgim.pp import standardize
    >>> scaffold(standardize("CC(=O)Oc1ccccc1C(=O)O").mol)
    'c1ccccc1'
    """
    with rdBase.BlockLogs():
        flat = Chem.Mol(mol)
        Chem.RemoveStereochemistry(flat)
        return Chem.MolToSmiles(MurckoScaffold.GetScaffoldForMol(flat))


def scaffolds(structures: Mapping[str, StandardizedMolecule]) -> dict[str, str]:
    """First name among the drugs on each drug's scaffold. A compound without rings forms a group with its own forms only."""
    rings = {name: scaffold(structure.mol) for name, structure in structures.items()}
    # Tautomers are one compound, although the SMILES of their scaffolds differ.
    skeletons = {name: structure.skeleton for name, structure in structures.items()}
    return joined(skeletons, {name: smiles for name, smiles in rings.items() if smiles})
