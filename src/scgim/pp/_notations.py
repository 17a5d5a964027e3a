"""What a text is that is not a SMILES, and how it becomes one."""

from __future__ import annotations

import re

_NOTATIONS = (
    (r"InChI=", "an InChI", "Chem.MolToSmiles(Chem.MolFromInchi(text)) of RDKit converts it"),
    (r"[A-Z]{14}-[A-Z]{10}-[A-Z]$", "an InChIKey", "look up its SMILES, for instance in PubChem"),
    (
        r"(PEPTIDE|RNA|DNA|CHEM|BLOB)\d+\{",
        "HELM",
        "Chem.MolToSmiles(Chem.MolFromHELM(text)) of RDKit converts peptides; a larger biologic takes an empty SMILES",
    ),
    (r"CHEMBL\d+$", "a ChEMBL identifier", "look up its SMILES in ChEMBL"),
    (r"(CID|SID)?[\s:]*\d+$", "a number, such as a PubChem identifier", "look up its SMILES in PubChem"),
    (r"\d{2,7}-\d{2}-\d$", "a CAS number", "look up its SMILES, for instance in PubChem"),
    (r"DB\d{5}$", "a DrugBank identifier", "look up its SMILES in DrugBank"),
    (r"(?s).*(M  END|V2000|V3000)", "a molfile", "Chem.MolToSmiles(Chem.MolFromMolBlock(text)) of RDKit converts it"),
    (
        r">|[ACDEFGHIKLMNPQRSTVWY]{8,}$",
        "a sequence",
        "a biologic takes an empty SMILES, and is then learned on its own",
    ),
    (r"\S*>\S*>\S*$", "a reaction", "write the SMILES of the drug alone"),
    # A word of four letters and more, which may have digits, spaces and hyphens, and no sign of a bond, branch or bracket atom.
    (
        r"(?=.*[^\W\d_]{4})[\w\s,'\u2019.\u2010-\u2015-]+$",
        "a name",
        "look up its SMILES, for instance in PubChem; a biologic takes an empty SMILES",
    ),
)


def no_smiles(text: str) -> str:
    """Message on a text that RDKit cannot read as SMILES.

    Examples
    --------
    >>> no_smiles("C1CC")
    "not a SMILES: 'C1CC'"
    >>> no_smiles("aspirin")
    "not a SMILES: 'aspirin', but a name; look up its SMILES, for instance in PubChem; a biologic takes an empty SMILES"
    """
    wrong = "more than a SMILES" if len(text.split()) > 1 else "not a SMILES"
    shown = text if len(text) <= 80 else f"{text[:77]}..."
    for pattern, kind, fix in _NOTATIONS:
        if re.match(pattern, text):
            return f"{wrong}: {shown!r}, but {kind}; {fix}"
    return f"{wrong}: {shown!r}"
