"""From a SMILES to the parent structure. Needs RDKit only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from rdkit import Chem, rdBase
from rdkit.Chem.MolStandardize import rdMolStandardize

from scgim._checks import listed

from ._mixtures import COUNTER_IONS, NON_METALS, split_components
from ._notations import no_smiles

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pandas as pd

Action = Literal["none", "parent taken", "metal kept whole", "combination kept whole"]

BIOLOGIC = 150  # heavy atoms; about 2,000 Da, above which are peptides of 20 residues, proteins and nucleic acids


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
        groups redrawn; ``"metal kept whole"``: the structure contains a metal and was left as given; ``"combination kept whole"``: the
        parent has several active components, each of them standardized.
    dropped
        Canonical SMILES of the components that were dropped, joined by dots; empty if there are none.
    """

    mol: Chem.Mol
    parent: str
    inchikey: str
    n_fragments: int
    action: Action
    dropped: str = ""

    @property
    def outweighed(self) -> bool:
        """Whether a dropped component has as many heavy atoms as the parent."""
        parts = [Chem.MolFromSmiles(part) for part in self.dropped.split(".") if part]
        return any(part.GetNumHeavyAtoms() >= self.mol.GetNumHeavyAtoms() for part in parts if part is not None)

    @property
    def skeleton(self) -> str:
        """First block of the InChIKey, equal for salts, stereoisomers and tautomers of one compound."""
        return self.inchikey.partition("-")[0] or self.parent


def standardize(smiles: str) -> StandardizedMolecule:
    """The parent of a structure: without counter-ions and solvents, neutral where possible.

    Counter-ions and solvents are taken off by a list, whatever their size: the parent of tafamidis meglumine is tafamidis, although
    meglumine has more atoms. Several other components are a combination, and all of them are kept. If all components are counter-ions, as in
    choline salicylate, the parent is the one with the most heavy atoms, and one that is a drug as well comes before others.

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
        If `smiles` is missing, empty, no SMILES, a SMILES followed by a name, or not one definite structure (``*``). The message recognizes
        InChI, HELM, sequences, identifiers and names, and has the call that converts them.

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
        parent, dropped, n_active = (mol, "", 1) if metals - COUNTER_IONS else _parent(mol)
        if metals and not any(atom.GetSymbol() == "C" for atom in parent.GetAtoms()):
            parent, dropped = mol, ""
        canonical = Chem.MolToSmiles(parent)
        if any(not atom.GetAtomicNum() for atom in parent.GetAtoms()):
            raise ValueError(f"a wildcard atom: {canonical!r}")
        action: Action = "parent taken" if canonical != given else "metal kept whole" if metals else "none"
        action = "combination kept whole" if n_active > 1 else action
        n_fragments = len(Chem.GetMolFrags(mol))
        return StandardizedMolecule(parent, canonical, Chem.MolToInchiKey(parent), n_fragments, action, dropped)


def _parse(smiles: str) -> Chem.Mol:
    if not isinstance(smiles, str) or not smiles.strip():
        raise ValueError(f"no SMILES: {smiles!r}")
    smiles = smiles.strip()
    # RDKit reads everything after a space as the name of the molecule: it would take "CCO DMSO" for ethanol.
    if len(smiles.split()) > 1 and Chem.MolFromSmiles(smiles.split()[0]) is not None:
        raise ValueError(f"more than a SMILES: {smiles!r}")
    mol = Chem.MolFromSmiles(smiles)
    if mol is None or not mol.GetNumAtoms():
        raise ValueError(no_smiles(smiles))
    return mol


def _parent(mol: Chem.Mol) -> tuple[Chem.Mol, str, int]:
    """The parent, what was dropped as SMILES, and the number of active components."""
    # Metals that are drawn with a bond are disconnected first, so that they are components of their own.
    components = split_components(rdMolStandardize.Cleanup(mol))
    parents = [_charge_parent(part) for part in components.active]
    whole = parents[0]
    for part in parents[1:]:
        whole = Chem.CombineMols(whole, part)
    if len(parents) > 1:
        whole = Chem.MolFromSmiles(Chem.MolToSmiles(whole))
    return whole, ".".join(map(Chem.MolToSmiles, components.dropped)), len(parents)


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
            "Correct their SMILES, leave them out, or, if it is the vehicle, name it in `control`. A biologic, such as an antibody or a cytokine, "
            "takes an empty SMILES in setup_anndata: it is then learned on its own."
        )
    return structures


def structure_doubts(structures: Mapping[str, StandardizedMolecule], smiles: Mapping[str, object]) -> Iterator[str]:
    """Sentences on structures that may not be those of their drugs: large counter-ions, biologics, and names in place of SMILES."""
    outweighed = {name: found for name, found in structures.items() if found.outweighed}
    if outweighed:
        name, found = next(iter(outweighed.items()))
        yield (
            f"{name!r}: kept {found.parent} and dropped {found.dropped}, a known counter-ion or solvent of as many heavy atoms. "
            + (f"The same holds for {listed(list(outweighed)[1:])}. " if len(outweighed) > 1 else "")
            + "If the dropped component is the drug, write its SMILES alone."
        )
    if large := [name for name, found in structures.items() if found.mol.GetNumHeavyAtoms() > BIOLOGIC]:
        yield (
            f"More than {BIOLOGIC} heavy atoms: {listed(large)}. Fingerprints say little about a biologic. Leave its SMILES empty, and it is "
            "learned on its own, or give features of your own (features_key)."
        )
    texts = {str(name): str(smiles[name]).strip() for name in structures}
    same = [name for name, text in texts.items() if text.casefold() == name.strip().casefold()]
    if (letters := [name for name in same if name.isalnum()]) and len(same) < len(
        texts
    ):  # else drugs are named by their SMILES
        yield (
            f"The SMILES of {listed(letters)} is the drug's name, which RDKit can read as a SMILES. If it is a name, write the SMILES of the "
            "drug."
        )
