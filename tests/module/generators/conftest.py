from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest
import torch

from scgim.module import TreatmentInputs

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from scgim.module.generators import Generator

FEATURES, GENES, DRUGS, CONTEXTS = 3, 5, 4, 8


class Screen(NamedTuple):
    """What closed-form generators learn from: the arguments of ``solve``."""

    inputs: TreatmentInputs
    residual: Tensor
    probability: Tensor
    n: Tensor
    variance: Tensor

    def __getitem__(self, rows) -> Screen:
        """Some conditions."""
        return Screen(
            select(self.inputs, rows), self.residual[rows], self.probability[rows], self.n[rows], self.variance
        )


def select(inputs: TreatmentInputs, rows) -> TreatmentInputs:
    return inputs.take(rows)


def draw_conditions(seed: int = 0) -> TreatmentInputs:
    """Four drugs at two doses in two lines."""
    rng = np.random.default_rng(seed)
    drug = torch.arange(CONTEXTS) % DRUGS
    features = torch.as_tensor(rng.normal(size=(DRUGS, FEATURES)))[drug]
    return TreatmentInputs(features, drug, torch.as_tensor(rng.normal(size=CONTEXTS)), torch.arange(CONTEXTS) % 2)


def draw_screen(
    seed: int = 0, *, drugs: int = 30, doses: int = 2, genes: int = 6, features: int = 4, lines: int = 1
) -> Screen:
    """Every drug at every dose in every line, effects of its features and noise of its own."""
    rng = np.random.default_rng(seed)
    x, effect = rng.normal(size=(drugs, features)), rng.normal(size=(features, genes))
    drug, dose, line = (a.ravel() for a in np.meshgrid(range(drugs), range(doses), range(lines), indexing="ij"))
    log_dose = np.linspace(-1.0, 1.0, doses)[dose] if doses > 1 else np.zeros(len(drug))
    residual = (
        1 + dose[:, None] + line[:, None] + np.tanh(x @ effect / 2)[drug] + 0.3 * rng.normal(size=(len(drug), genes))
    )
    return Screen(
        TreatmentInputs(*map(torch.as_tensor, (x[drug], drug, log_dose, line))),
        torch.as_tensor(residual),
        torch.as_tensor(rng.uniform(0.5, 1, residual.shape)),
        torch.as_tensor(rng.integers(20, 80, (len(drug), 1)).astype(float)),
        torch.ones(genes, dtype=torch.float64),
    )


def build_for(generator: type[Generator], screen: Screen, **options) -> Generator:
    """A generator of the sizes of a screen."""
    doses = torch.unique(screen.inputs.log_dose).tolist()
    options = {"dosed": len(doses) > 1, "log_doses": doses, "n_lines": int(screen.inputs.line.max()) + 1} | options
    n_drugs = int(screen.inputs.drug.max()) + 1
    return generator(screen.inputs.features.shape[1], screen.residual.shape[1], n_drugs=n_drugs, **options)


def predict(generator: Generator, inputs: TreatmentInputs) -> Tensor:
    """The expected shift."""
    logits, psi = generator(inputs)
    return (torch.sigmoid(logits) * psi).detach()


@pytest.fixture
def inputs() -> TreatmentInputs:
    return draw_conditions()


@pytest.fixture
def screen() -> Callable[..., Screen]:
    return draw_screen


@pytest.fixture
def build() -> Callable[..., Generator]:
    return build_for


@pytest.fixture
def expected() -> Callable[..., Tensor]:
    return predict
