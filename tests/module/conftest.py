from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest
import torch

from scgim.module import (
    GENERATORS,
    INTERVENTIONS,
    CellStore,
    Controls,
    GIMModule,
    MeasuredConditions,
    Moments,
    NoiseScale,
    TreatmentInputs,
    cell_moments,
)
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
    """A module with random parameters, cells of a few conditions (0: controls), and what the module sees of them."""

    module: GIMModule
    x: np.ndarray
    code: np.ndarray
    conditions: MeasuredConditions
    controls: Controls
    store: CellStore

    @property
    def moments(self) -> Moments:
        """By the way that training takes."""
        mechanism = self.module.mechanism
        return (
            mechanism.moments(self.conditions, self.controls)
            if mechanism.affine
            else cell_moments(mechanism, self.store)
        )

    @property
    def n_cells(self) -> float:
        return float(len(self.x))

    def joint(self, targets: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        return self.module.joint_loss(self.conditions, self.moments, self.n_cells, targets)


def build_case(
    seed: int,
    *,
    d: int = 4,
    sizes: tuple[int, ...] = (9, 1, 4, 7, 2),
    generator: str = "hill",
    target_penalty: float = 1.3,
    mechanism: str = "linear",
    intervention: str = "shift",
    scale_shift: bool = False,
) -> Case:
    rng = np.random.default_rng(seed)
    k, n_features, n_drugs = len(sizes) - 1, 3, 2
    module = GIMModule(
        d,
        GENERATORS[generator](
            n_features, d, n_drugs=n_drugs, dosed=True, baseline=INTERVENTIONS[intervention].baseline
        ),
        mechanism=mechanism,
        intervention=intervention,
        scale_map=NoiseScale(n_features, d) if scale_shift else None,
        target_penalty=target_penalty,
    )
    set_graph(module.mechanism, draw_graph(rng, d))
    randomise(module, seed)
    code = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    x = (rng.normal(size=(len(code), d)) + rng.normal(size=(len(sizes), d))[code]).astype(np.float32).astype(float)
    s = accumulate([(x, code)], n_conditions=len(sizes), n_genes=d, own=True)
    n = torch.as_tensor(s.n[1:, None])
    own = module.mechanism.families(torch.as_tensor(s.own[1:]), n) if mechanism == "linear" else None
    inputs = TreatmentInputs(
        features=torch.as_tensor(rng.integers(0, 2, (k, n_features)).astype(float)),
        drug=torch.arange(k) % n_drugs,
        log_dose=torch.as_tensor(rng.normal(size=k)),
        line=torch.zeros(k, dtype=torch.int64),
    )
    needs = module.needs_own
    conditions = MeasuredConditions(
        n, *map(torch.as_tensor, (s.mean[1:], s.squares[1:] / s.n[1:, None])), inputs, own if needs else None
    )
    scatter = s.own[0] if needs else s.scatter
    controls = Controls(*map(torch.as_tensor, (s.n[0], s.mean[:1], scatter)))
    order = np.argsort(code, kind="stable")
    store = CellStore(torch.as_tensor(x[order]), torch.as_tensor(np.bincount(code)))
    return Case(module, x, code, conditions, controls, store)


def set_graph(mechanism: torch.nn.Module, graph: np.ndarray) -> None:
    """Give any mechanism a graph."""
    take = getattr(mechanism, "set_graph", mechanism.graph.copy_)
    take(torch.as_tensor(graph))


@pytest.fixture
def case() -> Callable[..., Case]:
    return build_case


@pytest.fixture
def random_parameters() -> Callable[..., None]:
    return randomise


@pytest.fixture
def random_graph() -> Callable[..., np.ndarray]:
    return draw_graph


@pytest.fixture
def take_graph() -> Callable[[torch.nn.Module, np.ndarray], None]:
    return set_graph
