from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from scgim.statistics import SufficientStatistics

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(scope="session")
def cells() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """``cells(seed, sizes=, d=, apart=)``: correlated genes, conditions of their own size and mean, in random order."""

    def build(seed: int = 0, *, sizes: tuple[int, ...] = (1, 40, 7, 90), d: int = 4, apart: float = 3.0):
        rng = np.random.default_rng(seed)
        code = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
        x = rng.normal(size=(len(code), d)) @ rng.normal(size=(d, d))
        return x + apart * rng.normal(size=(len(sizes), d))[code], code

    return build


@pytest.fixture(scope="session")
def brute() -> Callable[[np.ndarray, np.ndarray], SufficientStatistics]:
    """``brute(x, code)``: the definition, condition by condition, in long double."""

    def compute(x: np.ndarray, code: np.ndarray) -> SufficientStatistics:
        own = [x[code == k].astype(np.longdouble) for k in range(int(code.max()) + 1)]
        scatter = np.array([(c - c.mean(0)).T @ (c - c.mean(0)) for c in own])
        n, mean = np.array([len(c) for c in own], float), np.array([c.mean(0) for c in own])
        squares = np.diagonal(scatter, axis1=1, axis2=2)
        return SufficientStatistics(n, *(a.astype(float) for a in (mean, scatter.sum(0), squares, scatter)))

    return compute


@pytest.fixture(scope="session")
def assert_close() -> Callable[..., None]:
    """Each array within ``rtol`` of its condition's or gene pair's size, so that small covariances count as what they are."""

    def check(a: SufficientStatistics, b: SufficientStatistics, rtol: float = 1e-10) -> None:
        np.testing.assert_array_equal(a.n, b.n)
        sd = np.sqrt(np.diag(b.scatter))
        np.testing.assert_allclose(a.mean, b.mean, rtol, rtol * (np.abs(b.mean) + sd).max())
        np.testing.assert_array_less(np.abs(a.scatter - b.scatter), rtol * np.outer(sd, sd) + 1e-300)
        np.testing.assert_allclose(a.squares, b.squares, rtol, rtol * np.abs(b.squares).max())
        assert (a.own is None) == (b.own is None)
        if b.own is not None:
            root = np.sqrt(b.squares)
            bound = rtol * (root[:, :, None] * root[:, None, :] + np.outer(sd, sd) * 1e-3) + 1e-300
            np.testing.assert_array_less(np.abs(a.own - b.own), bound)

    return check
