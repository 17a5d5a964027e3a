from __future__ import annotations

import numpy as np
import pytest
import torch

from scgim.module.generators import DOSE_RESPONSES, FreeResponse
from scgim.module.generators._dose import choose_knots, interpolation

DOSES = [-2.0, -0.5, 0.0, 3.0]


def at(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def nothing(n: int) -> torch.Tensor:
    return torch.zeros(n, 2, dtype=torch.float64)


@pytest.mark.parametrize("name", DOSE_RESPONSES)
def test_every_response_is_between_0_and_1_and_0_at_dose_0(name, random_parameters):
    response = DOSE_RESPONSES[name](2, DOSES)
    random_parameters(response, 0, 3.0)
    factor = response(nothing(6) + 1, at(-torch.inf, -10, -0.5, 0.1, 3, 20))
    assert factor.shape == (6, 1)
    assert factor[0] == 0
    assert (factor[1:] > 0).all()
    assert (factor <= 1).all()
    assert response.penalty() >= 0


def test_the_free_curve_is_numpys_interpolation(random_parameters):
    response = FreeResponse(2, DOSES)
    random_parameters(response, 0)
    height = np.exp(response.log_height.detach().numpy())
    x = np.linspace(-4, 5, 50)
    np.testing.assert_allclose(
        response(nothing(50), torch.as_tensor(x))[:, 0].detach(), np.interp(x, DOSES, height / height.max())
    )


def test_the_free_curve_learns_a_shape_that_no_hill_curve_has():
    response, x = FreeResponse(2, DOSES), at(*DOSES)
    truth = at(0.2, 1.0, 0.5, 0.1)[:, None]
    optimizer = torch.optim.Adam(response.parameters(), lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        (1000 * (response(nothing(4), x) - truth).pow(2).sum() + response.penalty()).backward()
        optimizer.step()
    torch.testing.assert_close(response(nothing(4), x), truth, atol=0.05, rtol=0)


@pytest.mark.parametrize(
    ("doses", "knots"),
    [
        pytest.param([], [0.0], id="none"),
        pytest.param([1.0], [1.0], id="one"),
        pytest.param([2.0, -np.inf, 1.0, 2.0], [1.0, 2.0], id="sorted, distinct, finite"),
        pytest.param(range(50), np.quantile(np.arange(50), np.linspace(0, 1, 8)), id="quantiles of many"),
    ],
)
def test_knots(doses, knots):
    np.testing.assert_allclose(choose_knots(list(doses)), knots)
    weight = interpolation(at(-1e9, 0.3, 1e9), choose_knots(list(doses)))
    torch.testing.assert_close(weight.sum(1), torch.ones(3, dtype=torch.float64))
    assert (weight >= 0).all()
