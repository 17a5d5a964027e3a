from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from scgim.module.generators import MeanGenerator


@pytest.mark.parametrize("hard", [False, True])
def test_equals_the_group_means(screen, build, expected, hard):
    data = screen(doses=3, lines=2)
    generator = build(MeanGenerator, data, baseline=hard)
    generator.solve(*data)
    at, n = data.inputs, data.n.numpy()
    keys = [at.log_dose.numpy(), at.line.numpy()]
    mean = lambda x: (
        pd.DataFrame(x * n).groupby(keys).transform("sum") / pd.DataFrame(n).groupby(keys).transform("sum").to_numpy()
    ).to_numpy()
    seen = data.probability * data.residual if hard else data.residual
    shift, probability = (mean(x.numpy()) for x in (seen, data.probability))
    # no psi is larger than anything seen
    probability = np.maximum(probability, np.abs(shift) / data.residual.abs().amax(0).numpy())
    logits, psi = generator(at)
    np.testing.assert_allclose(torch.sigmoid(logits), probability)
    np.testing.assert_allclose(psi, shift / probability)
    np.testing.assert_allclose(expected(generator, at), shift)


def test_weak_effects_that_are_no_targets_add_up(screen, build, expected):
    data = screen(drugs=200)
    data = data._replace(residual=0.05 + 0.1 * data.residual, probability=torch.full_like(data.probability, 1e-6))
    generator = build(MeanGenerator, data)
    generator.solve(*data)
    shift = expected(generator, data.inputs)
    low = data.inputs.log_dose == data.inputs.log_dose.min()
    truth = (data.n * data.residual)[low].sum(0) / data.n[low].sum()
    np.testing.assert_allclose(shift[low], truth.expand(int(low.sum()), -1))
    assert (generator(data.inputs)[1].abs() <= data.residual.abs().amax(0) + 1e-9).all()


def test_says_the_same_of_every_drug(screen, build):
    data = screen()
    generator = build(MeanGenerator, data)
    generator.solve(*data)
    other = data.inputs._replace(features=5 + data.inputs.features.flip(0), drug=-torch.ones_like(data.inputs.drug))
    assert all((a == b).all() for a, b in zip(generator(other), generator(data.inputs), strict=True))


def test_is_linear_between_doses_and_constant_outside(screen, build, expected):
    data = screen(doses=2)
    generator = build(MeanGenerator, data)
    generator.solve(*data)
    at = data.inputs.map(lambda each: each[:1].repeat_interleave(5, 0))
    low, quarter, high, below, above = expected(
        generator, at._replace(log_dose=torch.tensor([-1, -0.5, 1, -9, 9.0]).double())
    )
    torch.testing.assert_close(quarter, 0.75 * low + 0.25 * high)
    assert (below == low).all()
    assert (above == high).all()


def test_a_new_line_and_a_missing_dose_take_all_lines(screen, build, expected):
    data = screen(doses=2, lines=2)
    keep = ~((data.inputs.line == 1) & (data.inputs.log_dose > 0))
    generator = build(MeanGenerator, data)
    generator.solve(*data[keep])
    high = data.inputs.log_dose > 0
    rows = data.inputs.map(lambda each: each[high][:2])
    gap, new = (expected(generator, rows._replace(line=torch.full((2,), line)))[0] for line in (1, -1))
    use = keep & high
    truth = (data.n * data.residual)[use].sum(0) / data.n[use].sum()
    torch.testing.assert_close(gap, truth)
    torch.testing.assert_close(new, truth)


def test_doses_are_not_told_apart_where_every_drug_has_its_own(screen, build, expected):
    data = screen(doses=1)
    data = data._replace(inputs=data.inputs._replace(log_dose=torch.arange(len(data.n)).double()))
    generator = build(MeanGenerator, data)
    generator.solve(*data)
    torch.testing.assert_close(expected(generator, data.inputs).std(0), torch.zeros(6).double(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_sure_probabilities_stay_finite(screen, build, probability):
    data = screen()
    data = data._replace(probability=torch.full_like(data.probability, probability))
    generator = build(MeanGenerator, data)
    generator.solve(*data)
    assert all(torch.isfinite(each).all() for each in generator(data.inputs))
