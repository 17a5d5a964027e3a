from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import pytest

from scgim.datasets import simulate_screen
from scgim.statistics import SufficientStatistics, accumulate, expand
from scgim.structure import local_score
from scgim.structure.score import score_data

if TYPE_CHECKING:
    from collections.abc import Callable


class Screen(NamedTuple):
    """Cells in control-sd units (condition 0 holds the controls), their conditions, and the graph they came from."""

    x: np.ndarray
    code: np.ndarray
    graph: np.ndarray
    target: np.ndarray | None = None  # (conditions, genes)

    @property
    def statistics(self) -> SufficientStatistics:
        return self.statistics_of()

    def statistics_of(self, *, columns: int = 1, own: bool = False) -> SufficientStatistics:
        x = self.x if columns == 1 else expand(self.x)
        return accumulate([(x, self.code)], n_conditions=int(self.code.max()) + 1, n_genes=x.shape[1], own=own)


def draw_screen(
    seed: int,
    *,
    d: int = 6,
    density: float = 0.4,
    sizes: tuple[int, ...] = (300, 20, 45, 80, 31, 60, 25, 90),
    hard: bool = False,
) -> Screen:
    """A linear screen of unequal conditions; every condition but the first shifts or sets one or two genes."""
    rng = np.random.default_rng(seed)
    rank = rng.permutation(d)
    graph = (rng.random((d, d)) < density) & (rank[:, None] < rank)
    weight = graph * rng.uniform(0.5, 1.5, (d, d)) * rng.choice([-1, 1], (d, d))
    shift = np.zeros((len(sizes), d))
    for row in shift[1:]:
        row[rng.choice(d, rng.integers(1, 3), replace=False)] = rng.choice([-1, 1]) * rng.uniform(2, 4)
    code = np.repeat(np.arange(len(sizes)), sizes)
    own = rng.normal(size=(len(code), d)) * rng.uniform(0.5, 2, d) + shift[code]
    x = np.zeros_like(own)
    for j in np.argsort(rank):
        reads = (shift[code, j] == 0) if hard else 1
        x[:, j] = reads * (x @ weight[:, j]) + own[:, j]
    return Screen(standardize(x, code), code, graph, shift != 0)


def standardize(x: np.ndarray, code: np.ndarray) -> np.ndarray:
    control = x[code == 0]
    return (x - control.mean(0)) / control.std(0)


@cache
def simulate(**options) -> Screen:
    adata = simulate_screen(n_new_drugs=2, **options)
    name = (adata.obs["drug"].astype(str) + "|" + adata.obs["dose"].astype(str)).to_numpy()
    control = (adata.obs["drug"] == "DMSO").to_numpy()
    code = np.where(control, 0, 1 + pd.Categorical(name, np.unique(name[~control])).codes.astype(int))
    return Screen(standardize(np.asarray(adata.X, float), code), code, adata.varp["true_graph"].toarray() > 0)


@pytest.fixture
def screen() -> Callable[..., Screen]:
    return draw_screen


@pytest.fixture
def simulated() -> Callable[..., Screen]:
    return simulate


@pytest.fixture
def in_control_sd() -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    return standardize


@pytest.fixture
def score() -> Callable[..., float]:
    """The score of a whole graph."""

    def total(graph: np.ndarray, statistics: SufficientStatistics, **options) -> float:
        data = score_data(statistics, **options)
        parents = [np.flatnonzero(column) for column in graph.T]
        return sum(local_score(j, p, len(p), data) for j, p in enumerate(parents))

    return total
