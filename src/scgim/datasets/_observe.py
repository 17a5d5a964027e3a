"""Measurement: from the true state of cells (gene-first, in control SD) to the observed values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

import numpy as np
from scipy.sparse import csr_matrix

Observation = Literal["continuous", "counts"]

_UNMEASURED = (
    2000.0  # mean UMIs of a cell outside the panel, so that its total does not depend on the few genes that change
)
_SIZE_SD = 0.35


class Nuisance(NamedTuple):
    """Random factors of counting that do not depend on the drug: size factors, gamma factors, UMIs outside the panel."""

    size: np.ndarray
    gamma: np.ndarray
    rest: np.ndarray


class _PerGene:
    """Parameters of a measurement, each an array with one entry per gene."""

    def take(self, genes: np.ndarray) -> Self:
        """Parameters of a subset or permutation of the genes."""
        return type(self)(*(values[genes] for values in vars(self).values()))


@dataclass(frozen=True)
class Continuous(_PerGene):
    """``location_j + scale_j x_j``."""

    location: np.ndarray
    scale: np.ndarray
    mean_scale = "X"

    @classmethod
    def draw(cls, n_genes: int, *, depth: float, rng: np.random.Generator) -> Continuous:
        return cls(rng.normal(size=n_genes), np.exp(rng.uniform(np.log(0.5), np.log(2), n_genes)))

    def cells(self, x: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """``.X`` (n_cells, n_genes), and columns for ``.obs``."""
        return np.ascontiguousarray(self.measure(x, self.nuisance(x.shape[1], rng), rng).T, dtype=np.float32), {}

    def nuisance(self, n_cells: int, rng: np.random.Generator) -> None:
        """None: the state itself is measured."""

    def measure(self, x: np.ndarray, nuisance: None, rng: np.random.Generator) -> np.ndarray:
        return self.location[:, None] + self.scale[:, None] * x

    def training_scale(self, measured: np.ndarray, nuisance: None) -> np.ndarray:
        """The scale on which models are trained."""
        return measured


@dataclass(frozen=True)
class Counts(_PerGene):
    """Gamma-Poisson counts: ``y_ij ~ Poisson(size_i base_j g_ij exp(slope_j x_ij - slope_j^2 / 2))``.

    ``size`` is log-normal with mean 1, ``g`` gamma with mean 1 and variance ``dispersion_j``.
    """

    base: np.ndarray
    slope: np.ndarray
    dispersion: np.ndarray
    mean_scale = "log1p(1e4 * X / n_counts)"

    @classmethod
    def draw(cls, n_genes: int, *, depth: float, rng: np.random.Generator) -> Counts:
        base = rng.lognormal(sigma=1, size=n_genes)
        return cls(depth * base / base.mean(), rng.uniform(0.3, 0.6, n_genes), rng.uniform(0.1, 0.5, n_genes))

    def cells(self, x: np.ndarray, rng: np.random.Generator) -> tuple[csr_matrix, dict[str, np.ndarray]]:
        """``.X`` (n_cells, n_genes), and columns for ``.obs``."""
        nuisance = self.nuisance(x.shape[1], rng)
        counts = self.measure(x, nuisance, rng)
        return csr_matrix(counts.T, dtype=np.float32), {"n_counts": counts.sum(axis=0) + nuisance.rest}

    def nuisance(self, n_cells: int, rng: np.random.Generator) -> Nuisance:
        size = rng.lognormal(-(_SIZE_SD**2) / 2, _SIZE_SD, n_cells)
        shape = 1 / self.dispersion[:, None]
        return Nuisance(size, rng.gamma(shape, 1 / shape, (len(shape), n_cells)), rng.poisson(_UNMEASURED * size))

    def measure(self, x: np.ndarray, nuisance: Nuisance, rng: np.random.Generator) -> np.ndarray:
        log_rate = self.slope[:, None] * x + (np.log(self.base) - self.slope**2 / 2)[:, None]
        return rng.poisson(np.exp(log_rate) * nuisance.gamma * nuisance.size)

    def training_scale(self, measured: np.ndarray, nuisance: Nuisance) -> np.ndarray:
        """The scale on which models are trained."""
        return np.log1p(1e4 * measured / (measured.sum(axis=0) + nuisance.rest))


OBSERVATIONS: dict[str, type[Continuous] | type[Counts]] = {"continuous": Continuous, "counts": Counts}
