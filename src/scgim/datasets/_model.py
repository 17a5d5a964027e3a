"""The structural causal model: standardized on the fly, sampled gene by gene in topological order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.linalg import solve_triangular

from ._graphs import topological_order
from ._mechanisms import FUNCTIONS, Linear

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._mechanisms import Mechanism, Network

Intervention = Literal["shift", "hard"]


@dataclass(frozen=True)
class StructuralModel:
    """``x_j = slope_j f_j(x_pa) + offset_j + sigma_j eps_j``, eps standard normal; every x_j has mean 0 and SD 1.

    This is ``z_j = f_j(x_pa) + eps_j``, standardized by the mean and SD of a large sample before its children read it (iSCM, Ormaniec et
    al. 2025). So neither variances nor explained shares of variance grow along the topological order.
    """

    graph: np.ndarray
    order: tuple[int, ...]
    functions: tuple[Linear | Network | None, ...]
    slope: np.ndarray
    offset: np.ndarray
    sigma: np.ndarray

    @classmethod
    def draw(cls, graph: np.ndarray, *, mechanism: Mechanism, rng: np.random.Generator) -> StructuralModel:
        """Random functions on ``graph`` (row = source, column = target), standardized on a large sample."""
        n_genes = len(graph)
        noise = exact_noise(n_genes, max(10_000, 4 * n_genes), rng)
        x, functions = np.empty_like(noise), [None] * n_genes
        slope, offset, sigma = np.zeros(n_genes), np.zeros(n_genes), np.ones(n_genes)
        order = topological_order(graph)
        for j in order:
            parents, z = x[graph[:, j]], noise[j].copy()
            if len(parents):
                functions[j] = FUNCTIONS[mechanism].draw(parents, rng)
                z += functions[j](parents)
                slope[j] = 1 / z.std()
                offset[j] = -z.mean() / z.std()
            sigma[j] = 1 / z.std()
            x[j] = (z - z.mean()) / z.std()
        return cls(graph, tuple(order), tuple(functions), slope, offset, sigma)

    def sample(self, noise: np.ndarray, shift: np.ndarray, *, intervention: Intervention) -> np.ndarray:
        """Sample cells under interventions.

        Parameters
        ----------
        noise, shift
            Arrays ``(n_genes, n_cells)``; a shift that is the same in all cells may be ``(n_genes, 1)``. A gene is intervened on if its
            shift is not 0.
        intervention
            ``"shift"`` adds the shift to the effect of the parents, ``"hard"`` replaces this effect. Noise is added in both cases.

        Returns
        -------
        ndarray of shape (n_genes, n_cells), in SD of cells without drug
        """
        return self.resample(np.empty_like(noise), self.order, noise, shift, intervention=intervention)

    def resample(
        self, x: np.ndarray, genes: Iterable[int], noise: np.ndarray, shift: np.ndarray, *, intervention: Intervention
    ) -> np.ndarray:
        """`sample` for some genes only, in topological order. ``x`` holds the other genes and is changed in place."""
        for j in genes:
            x[j] = self.sigma[j] * noise[j] + shift[j]
            function = self.functions[j]
            if function is not None:
                explained = self.slope[j] * function(x[self.graph[:, j]]) + self.offset[j]
                x[j] += np.where(shift[j] == 0, explained, 0) if intervention == "hard" else explained
        return x

    def support(self) -> np.ndarray:
        """The edges on which the functions really depend, (n_genes, n_genes) bool."""
        used = np.zeros_like(self.graph)
        for j, function in enumerate(self.functions):
            if function is not None:
                used[self.graph[:, j], j] = function.uses()
        return used

    def weights(self) -> np.ndarray | None:
        """Change of target per unit of source, in SD, if all functions are linear, else None; (n_genes, n_genes)."""
        weights = np.zeros(self.graph.shape)
        for j, function in enumerate(self.functions):
            if isinstance(function, Linear):
                weights[self.graph[:, j], j] = self.slope[j] * function.coefficients
            elif function is not None:
                return None
        return weights


def exact_noise(n_genes: int, n_cells: int, rng: np.random.Generator) -> np.ndarray:
    """Standard normal draws, (n_genes, n_cells), with mean exactly 0 and covariance exactly the identity.

    Means and variances of linear functions are then exact for any number of cells that is even and at least 2 * n_genes.
    """
    half = rng.normal(size=(n_genes, n_cells // 2))
    half = solve_triangular(np.linalg.cholesky(half @ half.T / half.shape[1]), half, lower=True)
    return np.ascontiguousarray(
        np.concatenate([half, -half], axis=1)
    )  # the solver returns rows that are scattered in memory
