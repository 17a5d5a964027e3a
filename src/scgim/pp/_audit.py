"""The audit of drug structures: one table, one line of log, and warnings about duplicates."""

from __future__ import annotations

import logging
from math import comb
from typing import TYPE_CHECKING

import pandas as pd

from scgim._checks import warn

from ._chemistry import structure_doubts
from ._duplicates import by_key, duplicate_groups, equalities
from ._smiles import warn_of_mixtures

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ._chemistry import StandardizedMolecule

logger = logging.getLogger("scgim")


def audit_table(
    features: pd.DataFrame, structures: Mapping[str, StandardizedMolecule], raw: Iterable[str]
) -> pd.DataFrame:
    """One row per drug, as described in `scgim.pp.fingerprints`. Logs a summary and warns about duplicates."""
    column = lambda field: pd.Series([getattr(s, field) for s in structures.values()], features.index, dtype=object)
    bits = pd.Series([row.tobytes() for row in features.to_numpy()], features.index, dtype=object)
    parent, skeleton = column("parent"), column("skeleton")
    audit = pd.DataFrame(
        {
            "smiles": list(raw),
            "parent": parent,
            "inchikey": column("inchikey"),
            "n_fragments": column("n_fragments").astype(int),
            "n_bits_on": (features > 0).sum(axis=1),
            "action": column("action"),
            "dropped": column("dropped"),
            "same_structure_as": _duplicates(parent),
            "same_skeleton_as": _duplicates(skeleton, apart=parent),
            "same_fingerprint_as": _duplicates(bits),
        },
        index=features.index,
    )
    same = _n_pairs(parent)
    logger.info(_summary(audit, same=same, stereo=_n_pairs(skeleton) - same, alike=_n_pairs(bits) - same))
    warn_of_mixtures(audit["smiles"])
    _warn(parent[audit["action"] != "combination kept whole"], bits)
    for doubt in structure_doubts(structures, audit["smiles"]):
        warn(doubt)
    return audit


def _n_pairs(keys: pd.Series) -> int:
    return sum(comb(len(group), 2) for group in by_key(keys).values())


def _duplicates(keys: pd.Series, *, apart: pd.Series | None = None) -> list[str]:
    """For every drug, the other drugs with the same key, joined by "; ".

    Drugs that also have the same key in `apart` are left out.
    """
    groups = by_key(keys)
    return [
        "; ".join(other for other in groups[key] if other != name and (apart is None or apart[other] != apart[name]))
        for name, key in keys.items()
    ]


def _summary(audit: pd.DataFrame, *, same: int, stereo: int, alike: int) -> str:
    taken, several = audit["action"] == "parent taken", audit["n_fragments"] > 1
    parts = [
        (int((taken & several).sum()), "multi-component entr{y} reduced to {its} parent"),
        (int((taken & ~several).sum()), "other entr{y} neutralized or redrawn"),
        (int((audit["action"] == "metal kept whole").sum()), "entr{y} with a metal kept whole"),
        (int((audit["action"] == "combination kept whole").sum()), "combination{s} kept whole"),
        (same, "pair{s} share{v} a parent"),
        (stereo, "pair{s} differ{v} only in stereochemistry or tautomer"),
        (alike, "pair{s} of different structures share{v} a fingerprint"),
    ]
    one, many = {"y": "y", "its": "its", "s": "", "v": "s"}, {"y": "ies", "its": "their", "s": "s", "v": ""}
    return f"{len(audit)} drugs: " + ", ".join(f"{n} " + text.format(**(one if n == 1 else many)) for n, text in parts)


def _warn(parent: pd.Series, bits: pd.Series) -> None:
    same = duplicate_groups(parent)
    bits = bits[parent.index]
    alike = [group for group in duplicate_groups(bits) if parent[group].nunique() > 1]
    if same:
        warn(
            f"Duplicates: the same parent structure under different names: {equalities(same, n=5)}. No model can tell them apart. "
            "Merge them, or give their features yourself."
        )
    if alike:
        warn(
            f"Different structures with identical fingerprints: {equalities(alike, n=5)}. No model can tell them apart. "
            "Try chirality=True, counts=True or a larger radius, or merge them."
        )
