from __future__ import annotations

import numpy as np
import pytest
import torch

from scgim.module import TreatmentInputs
from scgim.module.generators import HillGenerator, IdentityGenerator, KernelGenerator, NetworkGenerator

LINES = 3


def inputs(line: list[int], n_features: int = 2) -> TreatmentInputs:
    """One drug in some lines."""
    n = len(line)
    return TreatmentInputs(
        torch.ones(n, n_features, dtype=torch.float64),
        torch.zeros(n, dtype=torch.int64),
        torch.zeros(n, dtype=torch.float64),
        torch.tensor(line),
    )


@pytest.fixture(params=[HillGenerator, IdentityGenerator, NetworkGenerator], ids=lambda kind: kind.__name__)
def generator(request: pytest.FixtureRequest):
    generator = request.param(2, 4, n_drugs=1, n_lines=LINES, dosed=False)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.copy_(torch.randn(parameter.shape, dtype=parameter.dtype))
    return generator


def test_effects_may_differ_between_lines(generator) -> None:
    logits, psi = generator(inputs([0, 1, 2]))
    assert len(torch.unique(psi, dim=0)) == len(torch.unique(logits, dim=0)) == LINES


def test_an_unseen_line_has_the_common_part(generator) -> None:
    if isinstance(generator, HillGenerator):
        with torch.no_grad():
            generator.effect[generator.n_codes :] = 0.0
            generator.logit[generator.n_codes :] = 0.0
        for seen, unseen in zip(generator(inputs([0, 1, 2])), generator(inputs([-1])), strict=True):
            torch.testing.assert_close(seen, unseen.expand(LINES, -1))
    assert all(torch.isfinite(part).all() for part in generator(inputs([-1])))


@pytest.mark.parametrize("kind", [HillGenerator, IdentityGenerator])
def test_a_difference_between_lines_costs_more_than_a_common_effect(kind: type) -> None:
    """Two lines with one effect are cheaper as a common one: what the common effect leaves is what a line differs by."""
    generator = kind(2, 1, n_drugs=1, n_lines=2, dosed=False)
    logits, psi = torch.full((1, 1), 50.0, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    costs = []
    for rows in ([0], [generator.n_codes, 2 * generator.n_codes]):
        generator.reset()
        with torch.no_grad():
            generator.effect[rows] = 1.0
        costs.append(generator.penalty(logits, psi).item())
    assert costs[0] < costs[1]


def test_a_difference_between_lines_still_costs_after_pruning() -> None:
    generator = HillGenerator(2, 1, n_drugs=1, n_lines=2, dosed=False)
    logits, psi = torch.full((1, 1), 50.0, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    costs = []
    for rows in ([0], [generator.n_codes]):
        generator.reset()
        with torch.no_grad():
            generator.effect[rows] = 1.0
        generator.prune()
        costs.append(generator.penalty(logits, psi).item())
    common, difference = costs
    assert difference - common == pytest.approx(5.0)


def test_with_one_line_nothing_is_added() -> None:
    assert IdentityGenerator(0, 4, n_drugs=5, n_lines=1, dosed=False).effect.shape == (5, 4)
    assert IdentityGenerator(0, 4, n_drugs=5, n_lines=3, dosed=False).effect.shape == (20, 4)


def test_the_kernel_tells_what_a_drug_does_in_one_line_from_what_it_does_in_another() -> None:
    rng, drugs = np.random.default_rng(0), 40
    drug, line = np.repeat(np.arange(drugs), 2), np.tile([0, 1], drugs)
    features = torch.as_tensor(rng.integers(0, 2, (drugs, 12)).astype(float))
    common, own = rng.normal(size=(drugs, 6)), rng.normal(size=(drugs, 2, 6))
    effect = torch.as_tensor(common[drug] + own[drug, line])
    inputs = TreatmentInputs(features[drug], *(torch.as_tensor(a) for a in (drug, np.zeros(2 * drugs), line)))
    generator = KernelGenerator(12, 6, n_drugs=drugs, n_lines=2, dosed=False)
    n, variance = torch.full((2 * drugs, 1), 50.0).double(), torch.ones(6).double()
    generator.solve(inputs, effect, torch.ones_like(effect), n, variance)

    def said(line: int) -> np.ndarray:
        logits, psi = generator(inputs._replace(line=torch.full((2 * drugs,), line)))
        return (torch.sigmoid(logits) * psi).detach().numpy()[::2]

    difference = said(1) - said(0)
    assert np.corrcoef(difference.ravel(), (own[:, 1] - own[:, 0]).ravel())[0, 1] > 0.9
    # a line that was not in training has what the drug does elsewhere
    assert np.corrcoef(said(-1).ravel(), (said(0) + said(1)).ravel())[0, 1] > 0.98
