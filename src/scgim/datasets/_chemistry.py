"""Simulated drugs: their motifs, the effects of motifs, and dose responses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

Chemistry = Literal["motifs", "sciplex"]


@dataclass(frozen=True)
class Motifs:
    """Effects of motifs on genes: ``effect`` (maximal shift, control SD) and ``ec50``, both (n_bits, n_genes)."""

    effect: np.ndarray
    ec50: np.ndarray

    @classmethod
    def draw(cls, n_bits: int, n_genes: int, *, doses: np.ndarray, rng: np.random.Generator) -> Motifs:
        """Draw one or two targets per motif, with effects of 2 to 4 SD. EC50 is log-uniform from half the lowest dose to the highest."""
        target = rng.permuted(np.tile(np.arange(n_genes), (n_bits, 1)), axis=1) < rng.integers(1, 3, (n_bits, 1))
        size = rng.uniform(2, 4, target.shape) * rng.choice([-1.0, 1.0], target.shape)
        ec50 = np.exp(rng.uniform(np.log(doses[0] / 2), np.log(doses[-1]), target.shape))
        return cls(np.where(target, size, 0.0), ec50)


@dataclass(frozen=True)
class Drugs:
    """Drugs: names, motifs (n_drugs, n_bits), ``effect`` and ``ec50`` (n_drugs, n_genes), SMILES if they have any."""

    names: np.ndarray
    features: np.ndarray
    effect: np.ndarray
    ec50: np.ndarray
    smiles: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        features: np.ndarray,
        motifs: Motifs,
        *,
        dead: np.ndarray,
        smiles: Sequence[str] | None = None,
    ) -> Drugs:
        """Combine the motifs of each drug. If two motifs act on one gene, the stronger one counts. ``dead`` drugs have no effect."""
        bound = features[:, :, None] * motifs.effect * ~dead[:, None, None]
        winner = np.abs(bound).argmax(axis=1)
        effect = np.take_along_axis(bound, winner[:, None, :], axis=1)[:, 0] + 0.0  # no -0
        ec50 = np.where(effect != 0, motifs.ec50[winner, np.arange(effect.shape[1])], np.inf)
        return cls(
            np.array(names, dtype=object),
            features,
            effect,
            ec50,
            None if smiles is None else np.array(smiles, dtype=object),
        )

    @property
    def dead(self) -> np.ndarray:
        """True where a drug has no target. Shape (n_drugs,)."""
        return ~(self.effect != 0).any(axis=1)

    def shift(self, doses: np.ndarray) -> np.ndarray:
        """Hill response ``effect * c / (c + ec50)``, drugs first, then doses. Shape (n_drugs * n_doses, n_genes)."""
        response = self.effect[:, None, :] * doses[:, None] / (doses[:, None] + self.ec50[:, None, :])
        return response.reshape(-1, self.effect.shape[1])


def pick_dead(n_drugs: int, frac_dead: float, rng: np.random.Generator) -> np.ndarray:
    """A random share of the drugs, rounded down. Shape (n_drugs,), bool."""
    # The small number undoes rounding errors of products such as 0.29 * 100.
    return rng.permutation(n_drugs) < int(frac_dead * n_drugs + 1e-9)
