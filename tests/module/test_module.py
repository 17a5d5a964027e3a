from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import expit, logsumexp
from scipy.stats import norm

from scgim.module import GENERATORS, MECHANISMS, GIMModule, shift_evidence


def brute_force(case, targets: np.ndarray | None = None) -> np.ndarray:
    """Log likelihood of every context's cells, each intervention set taken in turn; controls first, for whom it is empty.

    Plain numpy from the cells and the parameters, sharing nothing with the module but the equations.
    """
    module, x, code, contexts, _ = case
    m, charge = module.mechanism, module.charge
    w, b, sigma = (m.weight * m.graph).detach().numpy(), m.bias.detach().numpy(), np.exp(m.log_sigma.detach().numpy())
    logits, shift = (t.detach().numpy() for t in module.interventions(contexts))
    d, predicted = x.shape[1], x @ w + b
    out = []
    for k in range(int(code.max()) + 1):
        rows = code == k
        if k == 0:
            out.append(norm.logpdf(x[rows], predicted[rows], sigma).sum())
            continue
        p, terms = expit(logits[k - 1]), []
        for I in map(np.array, product([0, 1], repeat=d)):
            if targets is not None and (targets[k - 1] != I).any():
                continue
            prior = np.log(np.where(I, p, 1 - p)).sum() - charge * I.sum()
            terms.append(prior + norm.logpdf(x[rows], predicted[rows] + I * shift[k - 1], sigma).sum())
        out.append(logsumexp(terms))
    return np.array(out)


CASES = [
    pytest.param({"d": 1, "sizes": (3, 2)}, id="one-gene"),
    pytest.param({"d": 3, "sizes": (50, 1, 1, 1)}, id="single-cells"),
    pytest.param({"d": 4}, id="unequal"),
    pytest.param({"d": 5, "charge": 0.0}, id="no-charge"),
    pytest.param({"d": 5, "sizes": (1, 30, 2), "charge": 5.0}, id="one-control"),
    pytest.param({"d": 6, "sizes": (20, 3, 11)}, id="six-genes"),
    pytest.param({"d": 4, "generator": "identity"}, id="identity"),
]


@pytest.mark.parametrize("options", CASES)
@pytest.mark.parametrize("seed", range(3))
def test_the_joint_loss_is_the_brute_force_sum_over_cells_and_intervention_sets(case, options, seed):
    case = case(seed, **options)
    nll, _ = case.module.joint_loss(case.contexts, case.controls)
    assert nll.item() == pytest.approx(-brute_force(case).sum(), rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_the_joint_loss_with_known_targets_is_the_density_of_that_set(case, seed):
    case = case(seed)
    targets = np.random.default_rng(seed).random((4, 4)) < 0.5
    nll, _ = case.module.joint_loss(case.contexts, case.controls, torch.as_tensor(targets))
    assert nll.item() == pytest.approx(-brute_force(case, targets).sum(), rel=1e-9)


@pytest.mark.parametrize("options", CASES)
def test_the_evidence_of_a_context_is_that_of_its_cells(case, options):
    """Up to what no intervention changes: the density of the same cells without one."""
    case = case(5, **options)
    module, contexts = case.module, case.contexts
    residual, _ = module.mechanism.moments(contexts.mean, case.controls.scatter)
    evidence = module.evidence(contexts, residual)
    _, untouched = shift_evidence(residual, torch.zeros_like(residual), contexts.n, module.mechanism.variance)
    with torch.no_grad():
        prior = torch.nn.functional.logsigmoid(-module.interventions(contexts)[0]).sum(1)
    none = np.zeros((len(contexts.n), case.x.shape[1]), dtype=int)
    same = brute_force(case, none)[1:] - prior.numpy()
    found = (evidence - untouched).sum(1).detach().numpy()
    np.testing.assert_allclose(found, brute_force(case)[1:] - same, rtol=1e-8, atol=1e-9)


def test_the_losses_are_parts_of_one_another(case):
    case = case(0)
    residual, _ = case.module.mechanism.moments(case.contexts.mean, case.controls.scatter)
    loss, penalty = case.module.generator_loss(case.contexts, residual)
    assert loss.item() == pytest.approx(-case.module.evidence(case.contexts, residual).sum().item())
    assert penalty.item() == pytest.approx(case.module.joint_loss(case.contexts, case.controls)[1].item())
    logits, shift = case.module.interventions(case.contexts)
    assert penalty.item() == pytest.approx(case.module.generator.penalty(logits, shift).item())


@pytest.mark.parametrize("known", [False, True])
def test_gradients_of_the_joint_loss_are_finite_and_agree_with_differences(case, known):
    case = case(1)
    targets = torch.as_tensor(np.random.default_rng(0).random((4, 4)) < 0.5) if known else None
    loss = lambda: case.module.joint_loss(case.contexts, case.controls, targets)[0]
    loss().backward()
    for name, parameter in case.module.named_parameters():
        gradient, flat = parameter.grad, parameter.data.view(-1)
        assert torch.isfinite(gradient).all(), name
        for i in range(0, len(flat), 5):
            ends, before = [], flat[i].item()
            for step in (1e-5, -1e-5):
                flat[i] = before + step
                ends.append(loss().item())
            flat[i] = before
            assert gradient.view(-1)[i].item() == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5, abs=1e-4), name


def test_coefficients_off_the_graph_neither_count_nor_learn(case):
    case = case(2)
    loss, _ = case.module.joint_loss(case.contexts, case.controls)
    loss.backward()
    off = ~case.module.mechanism.graph
    assert not case.module.mechanism.weight.grad[off].any()
    with torch.no_grad():
        case.module.mechanism.weight[off] = 1e6
    assert case.module.joint_loss(case.contexts, case.controls)[0].item() == loss.item()


@pytest.mark.parametrize("logit", [-1e4, 1e4])
def test_extreme_logits_keep_loss_and_gradients_finite(case, logit):
    case = case(0)
    with torch.no_grad():
        case.module.generator.logit_0.fill_(logit)
    loss, penalty = case.module.joint_loss(case.contexts, case.controls)
    (loss + penalty).backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in case.module.parameters())


@pytest.mark.parametrize("seed", range(3))
def test_the_posterior_is_that_of_numerical_integration_over_shifts(case, seed):
    """From the cells of a context: prior x likelihood, integrated over the shift."""
    case = case(seed, d=3, sizes=(10, 1, 6, 13))
    module, contexts = case.module, case.contexts
    spread = torch.tensor([0.05, 0.7, 3.0], dtype=torch.float64)
    residual = contexts.mean - module.mechanism(contexts.mean)
    probability, mean = module.posterior(contexts, residual, spread)
    logits, shift = (t.detach().numpy() for t in module.interventions(contexts))
    noise = case.x - module.mechanism(torch.as_tensor(case.x)).detach().numpy()
    sigma = module.mechanism.variance.sqrt().detach().numpy()
    for k, j in product(range(3), range(3)):
        cells, tau = noise[case.code == k + 1, j], np.sqrt(spread[j].item())
        likelihood = lambda psi, cells=cells, s=sigma[j]: np.exp(norm.logpdf(cells, psi, s).sum())
        weight = lambda psi, k=k, j=j, tau=tau, f=likelihood: norm.pdf(psi, shift[k, j], tau) * f(psi)
        width = 12 / np.sqrt(1 / tau**2 + len(cells) / sigma[j] ** 2)
        ends = mean[k, j].item() - width, mean[k, j].item() + width
        touched, first = (quad(f, *ends, epsabs=0)[0] for f in (weight, lambda psi, f=weight: psi * f(psi)))
        p = expit(logits[k, j])
        touched_odds = p * np.exp(-module.charge) * touched
        assert probability[k, j].item() == pytest.approx(
            touched_odds / (touched_odds + (1 - p) * likelihood(0)), rel=1e-6, abs=1e-9
        )
        assert mean[k, j].item() == pytest.approx(first / touched, rel=1e-6, abs=1e-9)


def test_the_posterior_between_its_extremes(case):
    case = case(4)
    module, contexts = case.module, case.contexts
    residual = contexts.mean - module.mechanism(contexts.mean)
    logits, shift = module.interventions(contexts)
    certain, vague = (torch.full((4,), v, dtype=torch.float64) for v in (0.0, 1e200))
    # no spread: the shift is the generator's, and the odds those of the mixture
    probability, mean = module.posterior(contexts, residual, certain)
    touched, untouched = shift_evidence(residual, shift, contexts.n, module.mechanism.variance)
    torch.testing.assert_close(mean, shift.detach())
    torch.testing.assert_close(probability, torch.sigmoid(logits + touched - untouched - module.charge).detach())
    # any shift goes: the residual itself, which is no evidence
    probability, mean = module.posterior(contexts, residual, vague)
    torch.testing.assert_close(mean, residual.detach())
    assert (probability < 1e-2).all()


def test_more_cells_of_the_same_residual_draw_the_posterior_to_the_data(case):
    case = case(4)
    module, spread = case.module, torch.ones(4, dtype=torch.float64)
    residual = case.contexts.mean + 3
    gaps = []
    for n in (1.0, 10.0, 1e4):
        contexts = case.contexts._replace(n=torch.full((4, 1), n, dtype=torch.float64))
        probability, mean = module.posterior(contexts, residual, spread)
        gaps.append((mean - residual).abs().detach())
    assert (gaps[0] >= gaps[1]).all()
    assert (gaps[1] >= gaps[2]).all()
    assert (probability > 0.99).all()


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("dosed", [False, True])
def test_any_pair_of_mechanism_and_generator_round_trips_through_its_state(
    mechanism, generator, dosed, random_parameters
):
    options = {"dosed": dosed, "mechanism": mechanism, "generator": generator}
    a, b = (GIMModule(4, 3, 2, **options) for _ in range(2))
    random_parameters(a, 0)
    a.mechanism.graph[0, 1] = True
    b.load_state_dict(a.state_dict())
    assert set(a.state_dict()) == set(b.state_dict())
    for name, value in a.state_dict().items():
        torch.testing.assert_close(b.state_dict()[name], value, rtol=0, atol=0)
