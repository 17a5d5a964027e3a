from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest
import torch

from scgim.module import Contexts, Controls, GIMModule
from scgim.statistics import accumulate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Matrices of this size are slower on many threads, and much slower where others use them too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def draw_graph(rng: np.random.Generator, d: int, density: float = 0.5) -> np.ndarray:
    rank = rng.permutation(d)
    return (rng.random((d, d)) < density) & (rank[:, None] < rank)


def randomise(module: torch.nn.Module, seed: int, scale: float = 0.7) -> None:
    """Give every parameter a value of its own."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, scale, generator=generator)


class Case(NamedTuple):
    """A module with random parameters, cells of a few contexts (0: controls), and what the module sees of them."""

    module: GIMModule
    x: np.ndarray
    code: np.ndarray
    contexts: Contexts
    controls: Controls


def build_case(
    seed: int, *, d: int = 4, sizes: tuple[int, ...] = (9, 1, 4, 7, 2), generator: str = "hill", charge: float = 1.3
) -> Case:
    rng = np.random.default_rng(seed)
    k, n_features, n_drugs = len(sizes) - 1, 3, 2
    module = GIMModule(d, n_features, n_drugs, dosed=True, generator=generator, charge=charge)
    randomise(module, seed)
    module.mechanism.graph.copy_(torch.as_tensor(draw_graph(rng, d)))
    code = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    x = rng.normal(size=(len(code), d)) + rng.normal(size=(len(sizes), d))[code]
    s = accumulate([(x, code)], n_contexts=len(sizes), n_genes=d)
    contexts = Contexts(
        n=torch.as_tensor(s.n[1:, None]),
        mean=torch.as_tensor(s.mean[1:]),
        features=torch.as_tensor(rng.integers(0, 2, (k, n_features)).astype(float)),
        drug=torch.arange(k) % n_drugs,
        log_dose=torch.as_tensor(rng.normal(size=k)),
    )
    controls = Controls(n=torch.as_tensor(s.n[0]), mean=torch.as_tensor(s.mean[:1]), scatter=torch.as_tensor(s.scatter))
    return Case(module, x, code, contexts, controls)


@pytest.fixture
def case() -> Callable[..., Case]:
    return build_case


@pytest.fixture
def random_parameters() -> Callable[..., None]:
    return randomise


@pytest.fixture
def random_graph() -> Callable[..., np.ndarray]:
    return draw_graph
