"""Which drugs belong together: forms of one compound, and compounds on one scaffold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import networkx as nx
from rdkit import Chem, rdBase
from rdkit.Chem.Scaffolds import MurckoScaffold

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._chemistry import StandardizedMolecule


def compounds(structures: Mapping[str, StandardizedMolecule]) -> dict[str, str]:
    """The first name of each drug's compound: salts, stereoisomers and tautomers are one."""
    first: dict[str, str] = {}
    return {name: first.setdefault(structures[name].skeleton, name) for name in sorted(structures)}


def scaffold(mol: Chem.Mol) -> str:
    """Rings and what links them (Bemis & Murcko 1996), as flat SMILES; empty without rings.

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


def joined(*labels: Mapping[str, object]) -> dict[str, str]:
    """The first name of each drug's group: drugs that share a label of any kind, directly or through others."""
    same = nx.Graph()
    for kind, label in enumerate(labels):
        same.add_edges_from((("drug", name), (kind, value)) for name, value in label.items())
    groups = [sorted(name for kind, name in group if kind == "drug") for group in nx.connected_components(same)]
    return {name: group[0] for group in groups for name in group}


def scaffolds(structures: Mapping[str, StandardizedMolecule]) -> dict[str, str]:
    """The first name among the drugs on each drug's scaffold; a compound without rings is alone with its own forms."""
    rings = {name: scaffold(structure.mol) for name, structure in structures.items()}
    # tautomers are one compound, though the SMILES of their scaffolds differ
    skeletons = {name: structure.skeleton for name, structure in structures.items()}
    return joined(skeletons, {name: smiles for name, smiles in rings.items() if smiles})
