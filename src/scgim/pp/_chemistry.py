"""From a SMILES to the parent structure. Needs RDKit only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from rdkit import Chem, rdBase
from rdkit.Chem.MolStandardize import rdMolStandardize

if TYPE_CHECKING:
    import pandas as pd

Action = Literal["none", "parent taken", "metal kept whole"]

NON_METALS = frozenset("* H He B C N O F Ne Si P S Cl Ar Ge As Se Br Kr Te I Xe At Rn".split())
# Lithium, zinc and other metals are missing here, because they are often the active component.
COUNTER_IONS = frozenset("Na K Mg Ca".split())


class StandardizedMolecule(NamedTuple):
    """A drug's standardized structure, from which fingerprints are computed.

    Attributes
    ----------
    mol
        The RDKit molecule of `parent`.
    parent
        Canonical SMILES of the parent, stereochemistry included.
    inchikey
        InChIKey of the parent; empty if InChI has none.
    n_fragments
        Number of components of the structure as given.
    action
        ``"none"``: the parent equals the structure as given; ``"parent taken"``: components were dropped, charges neutralized or
        groups redrawn; ``"metal kept whole"``: the structure contains a metal and was left as given.
    """

    mol: Chem.Mol
    parent: str
    inchikey: str
    n_fragments: int
    action: Action

    @property
    def skeleton(self) -> str:
        """First block of the InChIKey, equal for salts, stereoisomers and tautomers of one compound."""
        return self.inchikey.partition("-")[0] or self.parent


def standardize(smiles: str) -> StandardizedMolecule:
    """The parent of a structure: without counter-ions and solvents, neutral where possible.

    Compounds with a metal other than Na, K, Mg or Ca are left whole: the largest organic fragment of cisplatin would be ammonia.
    Salts of these four metals are left whole if their parent would hold no carbon. ``standardise`` is an alias.

    Parameters
    ----------
    smiles
        One structure. Surrounding spaces are ignored.

    Returns
    -------
    The parent and the action that led to it.

    Raises
    ------
    ValueError
        If `smiles` is missing, empty, no SMILES, a SMILES followed by a name, or not one definite structure (``*``).

    Examples
    --------
    >>> standardize("CC(=O)Oc1ccccc1C(=O)[O-].[Na+]").parent
    'CC(=O)Oc1ccccc1C(=O)O'
    >>> standardize("N.N.Cl[Pt]Cl").action
    'metal kept whole'
    """
    # RDKit writes every rejected SMILES and every step of standardization to stderr. The log is blocked here, not globally.
    with rdBase.BlockLogs():
        mol = _parse(smiles)
        given = Chem.MolToSmiles(mol)
        metals = {atom.GetSymbol() for atom in mol.GetAtoms()} - NON_METALS
        parent = mol if metals - COUNTER_IONS else _charge_parent(mol)
        if metals and not any(atom.GetSymbol() == "C" for atom in parent.GetAtoms()):
            parent = mol
        canonical = Chem.MolToSmiles(parent)
        if any(not atom.GetAtomicNum() for atom in parent.GetAtoms()):
            raise ValueError(f"a wildcard atom: {canonical!r}")
        action: Action = "parent taken" if canonical != given else "metal kept whole" if metals else "none"
        return StandardizedMolecule(parent, canonical, Chem.MolToInchiKey(parent), len(Chem.GetMolFrags(mol)), action)


def _parse(smiles: str) -> Chem.Mol:
    if not isinstance(smiles, str) or not smiles.strip():
        raise ValueError(f"no SMILES: {smiles!r}")
    smiles = smiles.strip()
    # RDKit reads everything after a space as the name of the molecule: it would take "CCO DMSO" for ethanol.
    if len(smiles.split()) > 1:
        raise ValueError(f"more than a SMILES: {smiles!r}")
    mol = Chem.MolFromSmiles(smiles)
    if mol is None or not mol.GetNumAtoms():
        raise ValueError(f"not a SMILES: {smiles!r}")
    return mol


def _charge_parent(mol: Chem.Mol) -> Chem.Mol:
    # Some steps return molecules without ring information, which fingerprints need: writing and reading restores it.
    parent = Chem.MolFromSmiles(Chem.MolToSmiles(rdMolStandardize.ChargeParent(mol)))
    if parent is None or not parent.GetNumAtoms():
        raise ValueError(f"no parent structure: {Chem.MolToSmiles(mol)!r}")
    return parent


def standardize_all(smiles: pd.Series) -> dict[str, StandardizedMolecule]:
    """`standardize` for every drug. One ValueError names all drugs that fail."""
    structures, failed = {}, []
    for name, value in smiles.items():
        try:
            structures[name] = standardize(value)
        except (ValueError, RuntimeError) as error:
            failed.append(f"{name!r} ({error})")
    if failed:
        some = ", ".join(failed[:5]) + (f" and {len(failed) - 5} more" if len(failed) > 5 else "")
        raise ValueError(
            f"{len(failed)} of {len(smiles)} drugs have no usable structure: {some}. "
            "Correct their SMILES, leave them out, or, if it is the vehicle, name it in `control`."
        )
    return structures
