"""Artificial drugs: small sets of motifs. Unseen drugs are new sets of the same motifs."""

from __future__ import annotations

import numpy as np

from ._chemistry import Drugs, Motifs, pick_dead

_TRIES = 50


def motif_drugs(
    n_drugs: int,
    n_new: int,
    *,
    n_bits: int,
    n_genes: int,
    doses: np.ndarray,
    frac_dead: float,
    rng: np.random.Generator,
) -> tuple[Drugs, Drugs]:
    """Drugs for training and drugs for testing.

    A drug has one to three motifs without common targets, so that effects never cancel. Motifs are distributed evenly over drugs. Their
    number is limited so that each occurs in several drugs: the effect of a motif in a single drug cannot be separated from that of the
    other motifs. Dead drugs have motifs without effect.
    """
    motifs = Motifs.draw(n_bits, n_genes, doses=doses, rng=rng)
    bits = rng.permutation(n_bits)
    inert, active = np.split(bits, [int(frac_dead * n_bits)])
    motifs.effect[inert] = 0
    dead = pick_dead(n_drugs, frac_dead, rng)
    active = active[: max(1, int(0.8 * (~dead).sum()))]

    features, used = np.zeros((n_drugs, n_bits)), np.zeros(n_bits, dtype=int)
    for row, is_dead in zip(features, dead, strict=True):
        pool = inert if is_dead else active
        chosen = _compatible(pool[np.lexsort((rng.random(len(pool)), used[pool]))], motifs, rng)
        row[chosen] = 1
        used[chosen] += 1

    new_dead = pick_dead(n_new, frac_dead, rng)
    new, seen = np.zeros((n_new, n_bits)), {row.tobytes() for row in features}
    for row, is_dead in zip(new, new_dead, strict=True):
        pool = inert if is_dead else active
        pool = pool[used[pool] >= min(2, used[pool].max(initial=0))]
        pool = pool[used[pool] > 0]
        for _ in range(_TRIES):
            row[:] = 0
            row[_compatible(rng.permutation(pool), motifs, rng)] = 1
            if row.tobytes() not in seen:
                break
        seen.add(row.tobytes())

    train_names, new_names = [f"drug-{i:03d}" for i in range(n_drugs)], [f"new-{i:03d}" for i in range(n_new)]
    train = Drugs.of(train_names, features, motifs, dead=dead)
    return train, Drugs.of(new_names, new, motifs, dead=new_dead)


def _compatible(candidates: np.ndarray, motifs: Motifs, rng: np.random.Generator) -> list[int]:
    """The first one to three candidates without common targets."""
    wanted, chosen, taken = rng.integers(1, 4), [], np.zeros(motifs.effect.shape[1], dtype=bool)
    for bit in candidates:
        hit = motifs.effect[bit] != 0
        if len(chosen) < wanted and not (hit & taken).any():
            chosen.append(int(bit))
            taken |= hit
    return chosen
