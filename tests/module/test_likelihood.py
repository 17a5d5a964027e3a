from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from scgim.module import (
    Hard,
    Moments,
    Shift,
    complete_log_likelihood,
    log_likelihoods,
    marginal_log_likelihood,
    noise_loss,
)
from scgim.module.likelihood import graph_averaged


def shift_evidence(residual, shift, n, variance):
    """Of conditions whose scatter no shift changes."""
    zero = torch.zeros_like(residual)
    return log_likelihoods(Shift, Moments(residual, zero, zero, zero, zero), shift, n, variance)


def draw(seed: int, shape: tuple[int, ...] = (3, 4)) -> list[torch.Tensor]:
    """Logits, and log likelihoods with and without a shift."""
    rng = np.random.default_rng(seed)
    return [torch.as_tensor(scale * rng.normal(size=shape)) for scale in (2, 8, 8)]


def interventions(d: int) -> np.ndarray:
    """All 2^d intervention sets, a row each."""
    return np.array(list(product([False, True], repeat=d)))


@pytest.mark.parametrize("target_penalty", [0.0, 5.0])
@pytest.mark.parametrize("d", [1, 2, 4, 6])
def test_mixture_is_the_sum_over_all_intervention_sets(d, target_penalty):
    logits, with_target, without = draw(d, (3, d))
    sets = torch.as_tensor(interventions(d))
    terms = [complete_log_likelihood(logits, with_target, without, target_penalty, I.expand(3, d)).sum(1) for I in sets]
    expected = torch.logsumexp(torch.stack(terms), 0)
    torch.testing.assert_close(marginal_log_likelihood(logits, with_target, without, target_penalty).sum(1), expected)


def test_complete_is_the_joint_density_of_data_and_set():
    logits, with_target, without = (t[0].numpy() for t in draw(0))
    p = 1 / (1 + np.exp(-logits))
    for I in interventions(4):
        expected = np.log(np.where(I, p, 1 - p)).sum() + np.where(I, with_target, without).sum() - 2.5 * I.sum()
        found = complete_log_likelihood(*map(torch.as_tensor, (logits, with_target, without)), 2.5, torch.as_tensor(I))
        assert found.sum().item() == pytest.approx(expected)


def test_the_prior_alone_sums_to_one():
    logits, zero = draw(0)[0], torch.zeros(3, 4, dtype=torch.float64)
    torch.testing.assert_close(marginal_log_likelihood(logits, zero, zero, 0.0), zero)


def test_the_gradient_by_the_logit_is_the_posterior_less_the_prior():
    logits, with_target, without = draw(1)
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(marginal_log_likelihood(logits, with_target, without, 2.0).sum(), logits)
    posterior = torch.sigmoid(logits + with_target - 2.0 - without)
    torch.testing.assert_close(gradient, posterior - torch.sigmoid(logits))


def test_the_gradient_by_the_shift_is_weighed_by_the_posterior():
    rng = np.random.default_rng(0)
    logits, residual, shift = (torch.as_tensor(rng.normal(size=(3, 4))) for _ in range(3))
    n, variance = torch.tensor([[3.0], [50.0], [1.0]], dtype=torch.float64), torch.as_tensor(rng.uniform(0.5, 2, 4))
    shift.requires_grad_()
    with_target, without = shift_evidence(residual, shift, n, variance)
    (gradient,) = torch.autograd.grad(marginal_log_likelihood(logits, with_target, without, 1.0).sum(), shift)
    posterior = torch.sigmoid(logits + with_target - 1.0 - without)
    torch.testing.assert_close(gradient, (posterior * n * (residual - shift) / variance).detach())


@pytest.mark.parametrize("target_penalty", [0.0, 5.0])
def test_gradients_agree_with_differences(target_penalty):
    rng = np.random.default_rng(2)
    logits, residual, shift = (torch.as_tensor(rng.normal(size=(3, 2))).requires_grad_() for _ in range(3))
    variance = torch.as_tensor(rng.uniform(0.5, 2, 2)).requires_grad_()
    n = torch.tensor([[3.0], [8.0], [1.0]], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda l, r, p, v: marginal_log_likelihood(l, *shift_evidence(r, p, n, v), target_penalty),
        (logits, residual, shift, variance),
    )


finite = st.floats(-1e6, 1e6)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(logit=finite, with_target=finite, without=finite, target_penalty=st.floats(0, 100))
def test_extremes_stay_finite_and_between_their_parts(logit, with_target, without, target_penalty):
    parts = [torch.tensor([v], dtype=torch.float64, requires_grad=True) for v in (logit, with_target, without)]
    value = marginal_log_likelihood(*parts, target_penalty)
    a, b = (complete_log_likelihood(*parts, target_penalty, torch.tensor([known])) for known in (True, False))
    assert torch.isfinite(value)
    assert max(a, b) - 1e-9 <= value <= max(a, b) + np.log(2) + 1e-9
    value.backward()
    assert all(torch.isfinite(part.grad).all() for part in parts)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("logit", [-1e4, -100.0, 0.0, 100.0, 1e4])
@pytest.mark.parametrize("residual", [0.0, 1e-8, 1e3])
def test_extreme_logits_and_residuals_have_finite_gradients(dtype, logit, residual):
    logits = torch.full((2, 3), logit, dtype=dtype, requires_grad=True)
    shift = torch.full((2, 3), 3.0, dtype=dtype, requires_grad=True)
    variance = torch.tensor([1e-6, 1.0, 1e6], dtype=dtype, requires_grad=True)
    n = torch.tensor([[1.0], [1e5]], dtype=dtype)
    value = marginal_log_likelihood(
        logits, *shift_evidence(torch.full((2, 3), residual, dtype=dtype), shift, n, variance), 5.0
    )
    assert torch.isfinite(value).all()
    value.sum().backward()
    assert all(torch.isfinite(t.grad).all() for t in (logits, shift, variance))


def test_a_certain_target_and_a_certain_non_target():
    _, with_target, without = draw(3)
    for logit, target_penalty, expected in [(800.0, 1.5, with_target - 1.5), (-800.0, 1.5, without)]:
        found = marginal_log_likelihood(torch.full_like(with_target, logit), with_target, without, target_penalty)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("intervention", [Shift, Hard])
def test_evidence_is_that_of_cells_up_to_what_both_share(intervention, scaled):
    rng = np.random.default_rng(0)
    sizes, d = (1, 5, 30), 4
    psi, sigma = rng.normal(size=(3, d)), rng.uniform(0.5, 2, d)
    log_scale = rng.normal(size=(3, d)) if scaled else np.zeros((3, d))
    x = [rng.normal(size=(n, d)) for n in sizes]
    noise = [c - rng.normal(size=(n, d)) for c, n in zip(x, sizes, strict=True)]  # any prediction will do
    means = [np.array([c.mean(0) for c in cells]) for cells in (noise, x)]
    variances = [np.array([c.var(0) for c in cells]) for cells in (noise, x)]
    parts = map(torch.as_tensor, (means[0], variances[0], means[1], variances[1], np.zeros(d)))
    with_target, without = log_likelihoods(
        intervention,
        Moments(*parts),
        torch.as_tensor(psi),
        torch.tensor(sizes, dtype=torch.float64)[:, None],
        torch.as_tensor(sigma**2),
        torch.as_tensor(log_scale) if scaled else 0.0,
    )
    cells = noise if intervention is Shift else x
    expected = [
        (norm.logpdf(c, psi[k], sigma * np.exp(log_scale[k])) - norm.logpdf(e, 0, sigma)).sum(0)
        for k, (c, e) in enumerate(zip(cells, noise, strict=True))
    ]
    np.testing.assert_allclose(with_target - without, expected)


def test_pooled_scatter_and_mean_residual_make_up_the_density_of_cells():
    rng = np.random.default_rng(0)
    x, sigma = rng.normal(size=(50, 3)) + 2, np.array([0.3, 1.0, 4.0])
    within = torch.as_tensor(((x - x.mean(0)) ** 2).sum(0))
    variance, mean, n = torch.as_tensor(sigma**2), torch.as_tensor(x.mean(0)), torch.tensor([[50.0]])
    _, without = shift_evidence(mean[None], torch.zeros(1, 3), n, variance)
    found = noise_loss(within, variance, 50) - without[0]
    np.testing.assert_allclose(found, -norm.logpdf(x, 0, sigma).sum(0))


# ---- a graph that may be wrong ---------------------------------------------------------------------------------------


def test_doubt_is_the_mean_over_a_right_and_a_wrong_graph():
    generator = torch.Generator().manual_seed(0)
    p, moved = torch.rand(2, 50, 8, generator=generator, dtype=torch.float64)
    for row, (own, marginal) in zip(graph_averaged(p, moved, 0.2), zip(p, moved, strict=True), strict=True):
        share = min(1.0, float(own.sum() / marginal.sum()))
        torch.testing.assert_close(row, 0.8 * own + 0.2 * share * marginal)
    assert (graph_averaged(p, moved) <= torch.maximum(p, moved)).all()
    torch.testing.assert_close(graph_averaged(p, moved, 0.0), p)


def test_doubt_adds_no_targets_and_finds_none_where_nothing_moved():
    p = torch.tensor([[0.9, 0.0, 0.0, 0.0], [0.001, 0.0, 0.0, 0.0]], dtype=torch.float64)
    moved = torch.tensor([[1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    out = graph_averaged(p, moved, 0.2)
    torch.testing.assert_close(out[0].sum(), p[0].sum())
    assert out[0, 0] > 0.5 > out[0, 1] > 0.05
    assert out[0, 3] == 0
    torch.testing.assert_close(out[1], 0.8 * p[1])
