"""Simulated mechanisms: functions of a gene's parents. Arrays are gene-first: ``(n_parents, n_cells)``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Mechanism = Literal["linear", "network"]


@dataclass(frozen=True)
class Linear:
    """``a' x`` with random signs and ``0.5 <= |a| <= 1.5``."""

    coefficients: np.ndarray

    @classmethod
    def draw(cls, parents: np.ndarray, rng: np.random.Generator) -> Linear:
        n = len(parents)
        return cls(rng.uniform(0.5, 1.5, n) * rng.choice([-1.0, 1.0], n))

    def __call__(self, parents: np.ndarray) -> np.ndarray:
        return self.coefficients @ parents

    def uses(self) -> np.ndarray:
        """True for every parent that the function depends on, (n_parents,)."""
        return self.coefficients != 0


@dataclass(frozen=True)
class Network:
    """``v' tanh(U x + b)``: one hidden layer, scaled so that most units bend within two SD of the parents."""

    hidden: np.ndarray
    bias: np.ndarray
    output: np.ndarray

    @classmethod
    def draw(cls, parents: np.ndarray, rng: np.random.Generator, *, units: int = 6) -> Network:
        n = len(parents)
        hidden, bias = rng.normal(size=(units, n)) * 2 / np.sqrt(n), rng.uniform(-2, 2, units)
        raw = cls(hidden, bias, rng.normal(size=units))
        # The variance of a bounded function does not grow with the number of parents, unlike that of a sum. Without the power, genes
        # with many parents would be explained no better than others, and the R2 given all other genes would fall along the order.
        sd = rng.uniform(0.8, 1.5) * n**0.75
        return cls(hidden, bias, raw.output * sd / raw(parents).std())

    def __call__(self, parents: np.ndarray) -> np.ndarray:
        return self.output @ np.tanh(self.hidden @ parents + self.bias[:, None])

    def uses(self) -> np.ndarray:
        """True for every parent that the function depends on, (n_parents,)."""
        return ((self.hidden != 0) & (self.output != 0)[:, None]).any(axis=0)


FUNCTIONS: dict[str, type[Linear] | type[Network]] = {"linear": Linear, "network": Network}
