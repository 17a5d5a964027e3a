"""Generators of combinations: noisy or against brute force, and closed-form fits against least squares and a Gaussian process."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from scgim.module import GENERATORS, TreatmentInputs
from scgim.module.generators._combinations import combine

F64 = torch.float64


def treatments(first, second, dose=None) -> TreatmentInputs:
    """Rows of one or two drugs (-1: none) at a dose, with one-hot features."""
    n = 1 + max(*first, *second)

    def slot(drug: list[int], more: TreatmentInputs | None = None) -> TreatmentInputs:
        drug = torch.tensor(drug)
        log_dose = torch.where(drug < 0, -torch.inf, torch.zeros(len(drug), dtype=F64) if dose is None else dose)
        features = torch.eye(n, dtype=F64)[drug] * (drug >= 0)[:, None]
        return TreatmentInputs(features, drug, log_dose, torch.zeros(len(drug), dtype=torch.int64), more)

    return slot(first, slot(second))


def test_noisy_or_is_the_sum_over_all_sets_of_targets():
    rng = np.random.default_rng(0)
    logits, psi = (torch.as_tensor(rng.normal(size=(3, 4)) * 2) for _ in range(2))
    found, shift = combine(logits, psi, torch.zeros(3, dtype=torch.int64), 1, add=True)
    p = torch.sigmoid(logits).numpy()
    any_of = expected = 0.0
    for chosen in product([0, 1], repeat=3):
        use = np.array(chosen)[:, None]
        weight = np.where(use, p, 1 - p).prod(0)
        any_of = any_of + weight * use.any(0)
        expected = expected + weight * (use * psi.numpy()).sum(0)
    np.testing.assert_allclose(torch.sigmoid(found)[0], any_of, rtol=1e-12)
    np.testing.assert_allclose((torch.sigmoid(found) * shift)[0], expected, rtol=1e-12)


def test_noisy_or_is_exact_for_small_and_large_logits():
    logits = torch.tensor([[-40.0, 40.0], [-40.0, 40.0]], dtype=F64)
    found, _ = combine(logits, torch.ones_like(logits), torch.zeros(2, dtype=torch.int64), 1, add=True)
    np.testing.assert_allclose(found, [[-40 + np.log(2), 80]], rtol=1e-6, atol=50)
    assert found[0, 0] == pytest.approx(-40 + np.log(2))
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("name", GENERATORS)
def test_order_of_drugs_and_single_rows(name):
    rng, n = np.random.default_rng(1), 9
    first = [*range(n), *range(n - 1)]
    second = [*[-1] * n, *range(1, n)]
    generator = GENERATORS[name](n, 5, n_drugs=n, dosed=False)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(torch.as_tensor(rng.normal(size=parameter.shape)))
    if not generator.by_gradient:
        residual = torch.as_tensor(rng.normal(size=(len(first), 5)))
        weight = torch.full((len(first), 1), 20.0, dtype=F64)
        generator.solve(treatments(first, second), residual, torch.sigmoid(residual), weight, torch.ones(5, dtype=F64))
    both, turned = (treatments(first[n:], second[n:]), treatments(second[n:], first[n:]))
    for one, other in zip(generator(both), generator(turned), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(generator.uncertainty(both), generator.uncertainty(turned))
    padded = treatments(first[:n], second[:n])
    for one, other in zip(generator(padded), generator(padded._replace(more=None)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_mean_of_combinations_is_weighted_least_squares():
    rng = np.random.default_rng(2)
    first, second = [0, 1, 2, 3, 0, 1], [-1, -1, -1, -1, 1, 2]
    residual = torch.as_tensor(rng.normal(size=(6, 3)))
    n = torch.tensor([[10.0], [20], [30], [10], [50], [5]], dtype=F64)
    generator = GENERATORS["mean"](4, 3, n_drugs=4, dosed=False)
    generator.solve(
        treatments(first, second), residual, torch.full((6, 3), 0.3, dtype=F64), n, torch.ones(3, dtype=F64)
    )
    # The deviation of a sum of two drugs has twice the variance of a single deviation.
    size = np.array([1, 1, 1, 1, 2, 2])
    weight = n.numpy().ravel() / size
    mean = (weight * size * residual.numpy().T).sum(1) / (weight * size**2).sum()
    np.testing.assert_allclose(generator.means(treatments([0], [-1]))[0][0], mean, rtol=1e-6)


def test_mean_probability_maximizes_the_likelihood_of_noisy_or():
    first, second = [0, 1, 2, 3], [-1, -1, 1, 2]
    probability = torch.tensor([[1.0], [0], [1], [0]], dtype=F64)
    generator = GENERATORS["mean"](4, 1, n_drugs=4, dosed=False)
    generator.solve(
        treatments(first, second),
        probability.clone(),
        probability,
        torch.ones(4, 1, dtype=F64),
        torch.ones(1, dtype=F64),
    )
    p = np.linspace(0.01, 0.99, 9801)
    likelihood = np.log(p) + np.log(1 - p) + np.log(1 - (1 - p) ** 2) + 2 * np.log(1 - p)
    found = generator.means(treatments([0], [-1]))[1]
    np.testing.assert_allclose(found, p[likelihood.argmax()], atol=1e-3)


def test_kernel_covariance_of_a_combination_is_the_sum_over_its_drugs():
    rng, n = np.random.default_rng(3), 8
    first, second = [*range(n), 0, 2], [*[-1] * n, 1, 3]
    inputs = treatments(first, second)
    effect = rng.normal(size=(n, 4)) * 3
    residual = torch.as_tensor(
        np.array([effect[a] + (effect[b] if b >= 0 else 0) for a, b in zip(first, second, strict=True)])
    )
    generator = GENERATORS["kernel"](n, 4, n_drugs=n, dosed=False)
    weight = torch.full((n + 2, 1), 50.0, dtype=F64)
    generator.solve(inputs, residual, torch.full_like(residual, 0.9), weight, torch.ones(4, dtype=F64))
    parts, row = inputs.parts()
    # Stored drugs of one condition share its weight, so predictions are sums over conditions.
    for i in range(n, n + 2):
        own = generator.weight[row == i]
        torch.testing.assert_close(own[0], own[1])
    logits, psi = generator(inputs)
    shift = torch.sigmoid(logits) * psi
    single = generator(parts)
    added = torch.zeros_like(shift).index_add(0, row, torch.sigmoid(single[0]) * single[1])
    torch.testing.assert_close(shift, added)


def test_pairs_teach_the_effects_of_their_drugs():
    """Drug 7 was measured in pairs alone; its effect is the rest of the pairs."""
    rng, n = np.random.default_rng(4), 8
    first, second = [*range(n - 1), *range(n - 1)], [*[-1] * (n - 1), *[n - 1] * (n - 1)]
    effect = rng.normal(size=(n, 6)) * 2
    residual = torch.as_tensor(
        np.array([effect[a] + (effect[b] if b >= 0 else 0) for a, b in zip(first, second, strict=True)])
    )
    generator = GENERATORS["kernel"](n, 6, n_drugs=n, dosed=False)
    weight = torch.full((len(first), 1), 1e3, dtype=F64)
    generator.solve(
        treatments(first, second), residual, torch.full_like(residual, 0.9), weight, torch.ones(6, dtype=F64)
    )
    logits, psi = generator(treatments([n - 1], [-1]))
    found = (torch.sigmoid(logits) * psi)[0].numpy()
    assert np.corrcoef(found, effect[-1])[0, 1] > 0.9
