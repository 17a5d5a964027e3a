"""Components of a structure: active components, and the counter-ions and solvents of their salts and solvates."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from rdkit import Chem, rdBase
from rdkit.Chem.MolStandardize import rdMolStandardize

if TYPE_CHECKING:
    import pandas as pd

NON_METALS = frozenset("* H He B C N O F Ne Si P S Cl Ar Ge As Se Br Kr Te I Xe At Rn".split())
# Lithium, zinc and other metals are missing here, because they are often the active component.
COUNTER_IONS = frozenset("Na K Mg Ca".split())
# Organic counter-ions and solvents, neutral and without stereochemistry, after the lists of salts and solvents of ChEMBL's structure
# pipeline (Bento et al. 2020). They are taken off whatever their size. Components without carbon are counter-ions or water.
COUNTER_COMPONENTS = (
    # acids
    "CC(=O)O OC=O OC(=O)C(F)(F)F OC(=O)C(=O)O OC(=O)CC(=O)O OC(=O)CCC(=O)O OC(=O)C=CC(=O)O OC(=O)CCCC(=O)O OC(=O)CCCCC(=O)O "
    "OC(=O)C(O)C(O)C(=O)O OC(=O)CC(O)C(=O)O OC(=O)CC(O)(CC(=O)O)C(=O)O CC(O)C(=O)O OCC(=O)O OC(=O)C(O)c1ccccc1 OC(=O)c1ccccc1 "
    "OC(=O)c1ccccc1O OC(=O)c1ccc(O)cc1O OC(=O)C=Cc1ccccc1 OC(=O)c1cccnc1 OC(=O)c1cc2ccccc2cc1O OC(=O)c1ccc2ccccc2c1O "
    "OC(=O)c1cc2ccccc2c(Cc2c(O)c(C(=O)O)cc3ccccc23)c1O CCC(=O)O CCCC(=O)O CCCCCCCC(=O)O CCCCCCCCCCCC(=O)O CCCCCCCCCCCCCCCC(=O)O "
    "CCCCCCCCCCCCCCCCCC(=O)O CC(C)(C)C(=O)O OC(=O)C(Cl)(Cl)Cl OC(=O)CCl OC(=O)C(Cl)Cl OCC(O)C(O)C(O)C(O)C(=O)O "
    "OC(=O)C(O)C(O)C(O)C(O)C(=O)O OC1OC(C(=O)O)C(O)C(O)C1O OCC(O)C1OC(=O)C(O)=C1O CC(=O)NC(CC(=O)O)C(=O)O O=C1CCC(N1)C(=O)O "
    "OC(=O)CC(=O)CC(=O)O CC(=O)CCC(=O)O OC(=O)CC(=O)C(=O)O O=C(O)CNC(=O)c1ccccc1 OC(=O)c1ccccc1C(=O)O OC(=O)c1ccc(cc1)C(=O)O "
    "CS(=O)(=O)O CCS(=O)(=O)O OS(=O)(=O)CCS(=O)(=O)O OCCS(=O)(=O)O OS(=O)(=O)c1ccccc1 Cc1ccc(cc1)S(=O)(=O)O "
    "OS(=O)(=O)c1ccc(Cl)cc1 OS(=O)(=O)c1ccc2ccccc2c1 OS(=O)(=O)c1cccc2c1cccc2S(=O)(=O)O OS(=O)(=O)C(F)(F)F COS(=O)(=O)O CCOS(=O)(=O)O "
    "CCCCCCCCCCCCOS(=O)(=O)O CC1(C)C2CCC1(CS(=O)(=O)O)C(=O)C2 OS(=O)(=O)NC1CCCCC1 O=C1NS(=O)(=O)c2ccccc12 SC#N N#CS OC(=O)O "
    "Oc1c([N+](=O)[O-])cc([N+](=O)[O-])cc1[N+](=O)[O-] OCC(O)COP(=O)(O)O O=S(=O)(O)Cc1ccccc1 OC(=O)CN(CC(=O)O)CCN(CC(=O)O)CC(=O)O "
    # bases
    "NCCO OCCNCCO OCCN(CCO)CCO CCN CCNCC CCN(CC)CC CN CNC CN(C)C NCCN C1CNCCN1 C1COCCN1 C1CCNCC1 C1CCNC1 CN1CCOCC1 CC(C)(C)N CC(C)N "
    "CC(C)NC(C)C NC(CO)(CO)CO CNCC(O)C(O)C(O)C(O)CO NCC(O)C(O)C(O)C(O)CO C[N+](C)(C)CCO C[N+](C)(C)C CC[N+](CC)(CC)CC "
    "CCCC[N+](CCCC)(CCCC)CCCC NCc1ccccc1 C(CNCc1ccccc1)NCc1ccccc1 C1CCC(CC1)NC1CCCCC1 NC1CCCCC1 OCCN1CCCC1 CN(C)CCO CCN(CC)CCO "
    "CCNCCO CN1CCCC1 OCCN1CCOCC1 c1ccncc1 c1cnc[nH]1 NC(N)=N CCCN CCCCN "
    # amino acids
    "NCCCCC(N)C(=O)O NC(CCCNC(N)=N)C(=O)O NC(CCCN=C(N)N)C(=O)O NCC(=O)O NC(CC(=O)O)C(=O)O NC(CCC(=O)O)C(=O)O OC(=O)C1CCCN1 "
    "NC(Cc1c[nH]cn1)C(=O)O NC(Cc1cnc[nH]1)C(=O)O CC(N)C(=O)O NC(N)=O "
    # solvents
    "CO CCO CCCO CC(C)O CCCCO CC(C)(C)O OCCO CC(O)CO OCC(O)CO CC(C)=O CCC(C)=O CC#N CS(C)=O CN(C)C=O CC(=O)N(C)C CN1CCCC1=O "
    "CCOC(C)=O COC(C)=O CC(=O)OC(C)C CCOCC CC(C)OC(C)C COC(C)(C)C C1CCOC1 C1COCCO1 ClCCl ClC(Cl)Cl ClC(Cl)(Cl)Cl ClCCCl Cc1ccccc1 "
    "c1ccccc1 CCCCC CCCCCC CCCCCCC C1CCCCC1 COCCOC COCCO C[N+](=O)[O-] C(=O)=O "
    # rarer acids of the same list
    "CC(=O)NCC(=O)O OC(=O)c1cc(O)ccc1O CC(=O)Nc1ccc(cc1)C(=O)O CC1(C)C(CCC1(C)C(=O)O)C(=O)O OC(C(O)C(O)C(=O)O)C(O)C(=O)O "
    "OCC(O)C(O)C(O)C(O)C(O)C(=O)O OCC(O)C(OC1OC(CO)C(O)C(O)C1O)C(O)C(O)C(=O)O C(=O)C(O)C(O)C(O)C(O)C(=O)O OC(=O)CCC(=O)C(=O)O "
    "OC(=O)c1cccc(c1O)S(=O)(=O)O OC(=O)c1ccc(O)c(c1)S(=O)(=O)O OC(=O)c1cccc(c1)S(=O)(=O)O Cc1cc(C)c(c(C)c1)S(=O)(=O)O "
    "CC(=O)OS(=O)(=O)O Nc1ccc(cc1)P(=O)(O)O OC(=O)C(c1ccccc1)(c1ccccc1)c1ccccc1 Oc1cc(Cl)c(Cl)cc1Cl "
    "OC(=O)c1cc(=O)[nH]c(=O)[nH]1 OC(=O)c1ccco1 OC(=O)c1ccccc1C(=O)c1ccc(O)cc1 OC(=O)Cc1ccccc1 OC(=O)CCc1ccccc1 OC(=O)CCC1CCCC1 "
    "CCCCC1CCC(CC1)C(=O)O CC12CCC(CC1)(C=C2)C(=O)O CC(C)C(=O)O CCCCC(=O)O CCCCCC(=O)O CCCCCCC(=O)O CCCCCCCCCC(=O)O CCCCCCCCCCC(=O)O "
    "OC(=O)CCCCCCCCC=C CCCCCCCCC=CCCCCCCCC(=O)O CC=C(C)C(=O)O CC(C)(C)CC(=O)O CCCCCCCCCCCCCCOP(=O)(O)O CCOC(=O)O CN(C)CCC(=O)O "
    "COC(=O)CC(O)(CCCC(C)(C)O)C(=O)O OS(=O)(=O)c1cccc2c(cccc12)S(=O)(=O)O "
    # rarer bases and solvents of the same list
    "C(Cc1ccccc1)NCc1ccccc1 CC(C)(N)CO CC(O)CN(C)C CCCC=O CCCC(=O)OCC CI CCC(CC)C(=O)OCO"
)
# Counter-ions that are drugs as well. If all components are counter-ions, as in piperazine citrate, one of these is the drug.
DRUGS_TOO = (
    "C1CNCCN1 C[N+](C)(C)CCO CN(C)CCO OC(=O)c1ccccc1O OC(=O)c1cccnc1 NC(CCCNC(N)=N)C(=O)O NC(CCCN=C(N)N)C(=O)O NCCCCC(N)C(=O)O "
    "OCC(O)C1OC(=O)C(O)=C1O NC(N)=O CC(=O)NC(CC(=O)O)C(=O)O OC(=O)c1cc(=O)[nH]c(=O)[nH]1 OC(=O)c1ccc(O)cc1O OC(=O)c1cc(O)ccc1O "
    "NC(N)=N CS(C)=O OC(=O)Cc1ccccc1 CCCC(=O)O"
)


class Components(NamedTuple):
    """Distinct active components of a structure, and what was left out; a combination has several active components."""

    active: list[Chem.Mol]
    dropped: list[Chem.Mol]


def split_components(mol: Chem.Mol) -> Components:
    """Separate the active components from counter-ions and solvents.

    Counter-ions and solvents are known by name (:data:`COUNTER_COMPONENTS`), not by size: pamoate has more atoms than pyrantel. If all organic
    components are counter-ions, the largest in heavy atoms is active, and one that is a drug as well (:data:`DRUGS_TOO`) comes before others.
    Components that differ in charge or stereochemistry are one active component.
    """
    parts = list(Chem.GetMolFrags(mol, asMols=True))
    if len(parts) == 1:
        return Components([mol], [])
    organic: dict[str, list[Chem.Mol]] = {}
    for part in parts:
        if _organic(part):
            organic.setdefault(_flat(part), []).append(part)
    if not organic:
        return Components([mol], [])
    active = sorted(set(organic) - _flat_set(COUNTER_COMPONENTS))
    if not active:
        active = [
            max(organic, key=lambda name: (name in _flat_set(DRUGS_TOO), organic[name][0].GetNumHeavyAtoms(), name))
        ]
    # Of two stereoisomers, the first in alphabetical order stands for both.
    chosen = [min(organic[name], key=Chem.MolToSmiles) for name in active]
    dropped = [part for part in parts if not _organic(part)]
    return Components(chosen, dropped + [part for name in organic if name not in active for part in organic[name]])


def active_components(smiles: str) -> list[str]:
    """Components of a structure that are no known counter-ion or solvent, neutral and without stereochemistry, sorted.

    It is empty for structures with a metal other than Na, K, Mg or Ca, whose components may be ligands.

    Examples
    --------
    >>> active_components("CC(=O)Oc1ccccc1C(=O)O.CS(=O)(=O)O")
    ['CC(=O)Oc1ccccc1C(=O)O']
    >>> len(active_components("CC(=O)Oc1ccccc1C(=O)O.Cn1cnc2c1c(=O)n(C)c(=O)n2C"))
    2
    """
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles) if "." in smiles else None
        if mol is None or {atom.GetSymbol() for atom in mol.GetAtoms()} - NON_METALS - COUNTER_IONS:
            return []
        parts = Chem.GetMolFrags(rdMolStandardize.Cleanup(mol), asMols=True)
        return sorted({_flat(part) for part in parts if _organic(part)} - _flat_set(COUNTER_COMPONENTS))


def mixtures(smiles: pd.Series) -> list[str]:
    """Drugs whose structure has several active components."""
    return [str(name) for name, text in smiles.items() if isinstance(text, str) and len(active_components(text)) > 1]


@cache
def _flat_set(listed: str) -> frozenset[str]:
    # Cleaned like the structures that are compared with them: RDKit redraws the sulfoxide of DMSO with formal charges.
    return frozenset(_flat(rdMolStandardize.Cleanup(Chem.MolFromSmiles(each))) for each in listed.split())


def _organic(mol: Chem.Mol) -> bool:
    return any(atom.GetSymbol() == "C" for atom in mol.GetAtoms())


def _flat(mol: Chem.Mol) -> str:
    return Chem.MolToSmiles(rdMolStandardize.Uncharger().uncharge(mol), isomericSmiles=False)
