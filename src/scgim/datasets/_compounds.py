"""Real compounds of sci-Plex, whose simulated effects depend on substructures that the user does not know."""

from __future__ import annotations

import numpy as np

from ._chemistry import Drugs, Motifs, pick_dead
from ._sciplex import sciplex3_drugs

LIBRARY_SIZE = 188
_COMMON = (0.1, 0.6)


def sciplex_drugs(
    n_drugs: int,
    n_new: int,
    *,
    n_bits: int,
    n_genes: int,
    doses: np.ndarray,
    frac_dead: float,
    rng: np.random.Generator,
) -> tuple[Drugs, Drugs]:
    """Compounds for training and compounds for testing, drawn from the 188 compounds of sci-Plex 3.

    Hidden motifs are Morgan substructures that occur in 10 to 60 % of the 188 compounds and in at least two training compounds. At most
    ``n_bits`` of them are drawn, until every compound has one. A compound without a motif is dead. A further share ``frac_dead`` is dead
    at random, so that the structure does not reveal whether a drug acts at all.
    """
    library = sciplex3_drugs()
    chosen = rng.permutation(len(library))[: n_drugs + n_new]
    bits = _substructures(library["smiles"])
    share = bits.mean(axis=0)
    bits = bits[:, (share >= _COMMON[0]) & (share <= _COMMON[1])][chosen]
    seen = bits[:n_drugs].sum(axis=0)
    bits = bits[:, seen >= min(2, seen.max())]
    features = bits[:, _cover(bits, n_bits, rng)].astype(float)
    motifs = Motifs.draw(features.shape[1], n_genes, doses=doses, rng=rng)
    train, new = slice(0, n_drugs), slice(n_drugs, None)
    names, smiles = library.index[chosen], library["smiles"].iloc[chosen]
    return tuple(
        Drugs.of(
            names[part], features[part], motifs, dead=pick_dead(len(names[part]), frac_dead, rng), smiles=smiles[part]
        )
        for part in (train, new)
    )


def _substructures(smiles: list[str]) -> np.ndarray:
    """Morgan bits of radius 2, (n_compounds, 2048) bool."""
    from rdkit.Chem import MolFromSmiles
    from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator

    generator = GetMorganGenerator(radius=2, fpSize=2048)
    return np.array([generator.GetFingerprintAsNumPy(MolFromSmiles(s)) for s in smiles], dtype=bool)


def _cover(bits: np.ndarray, most: int, rng: np.random.Generator) -> list[int]:
    """At most ``most`` columns such that (nearly) every row has one; greedy, random among the nearly best columns."""
    columns, bare = [], np.ones(len(bits), dtype=bool)
    while bare.any() and len(columns) < most:
        gain = bits[bare].sum(axis=0)
        if not gain.any():
            break
        columns.append(int(rng.choice(np.flatnonzero(gain >= max(1, 0.7 * gain.max())))))
        bare &= ~bits[:, columns[-1]]
    return columns
