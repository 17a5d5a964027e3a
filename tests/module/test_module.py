from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import expit, logsumexp
from scipy.stats import norm
from torch.nn.functional import logsigmoid

from scgim.module import GENERATORS, INTERVENTIONS, MECHANISMS, FeatureEvidence, GIMModule, NoiseScale, log_likelihoods
from scgim.module.likelihood import SPIKE, capped, negligible_gain


def densities(case, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Log densities of a condition's cells if a gene is untouched and touched, ``(genes,)`` each; from the cells themselves."""
    module, rows = case.module, case.code == k
    with torch.no_grad():
        predicted = module.mechanism(torch.as_tensor(case.x)).numpy()[rows]
        psi = module.generator(case.conditions.inputs)[1].numpy()
        scale = module.log_scale(case.conditions)
    sigma, x = np.exp(module.mechanism.log_sigma.detach().numpy()), case.x[rows]
    without = norm.logpdf(x, predicted, sigma).sum(0)
    if k == 0:
        return without, without
    factor = np.exp(scale.numpy()[k - 1]) if isinstance(scale, torch.Tensor) else 1.0
    centre = psi[k - 1] + (predicted if module.intervention.name == "shift" else 0.0)
    return without, norm.logpdf(x, centre, factor * sigma).sum(0)


def brute_force(case, targets: np.ndarray | None = None) -> np.ndarray:
    """Log likelihood of every condition's cells, each intervention set taken in turn; controls first, for whom it is empty.

    Plain numpy from the cells and the parameters, sharing nothing with the likelihood but the equations.
    """
    logits = case.module.generator(case.conditions.inputs)[0].detach().numpy()
    d, out = case.x.shape[1], []
    for k in range(int(case.code.max()) + 1):
        without, with_target = densities(case, k)
        if k == 0:
            out.append(without.sum())
            continue
        p, terms = expit(logits[k - 1]), []
        for I in map(np.array, product([0, 1], repeat=d)):
            if targets is not None and (targets[k - 1] != I).any():
                continue
            prior = np.log(np.where(I, p, 1 - p)).sum() - (case.module.target_penalty.numpy() * I).sum()
            terms.append(prior + np.where(I, with_target, without).sum())
        out.append(logsumexp(terms))
    return np.array(out)


CASES = [
    pytest.param({"d": 1, "sizes": (3, 2)}, id="one-gene"),
    pytest.param({"d": 3, "sizes": (50, 1, 1, 1)}, id="single-cells"),
    pytest.param({"d": 4}, id="unequal"),
    pytest.param({"d": 5, "target_penalty": 0.0}, id="no-penalty"),
    pytest.param({"d": 5, "sizes": (1, 30, 2), "target_penalty": 5.0}, id="one-control"),
    pytest.param({"d": 6, "sizes": (20, 3, 11)}, id="six-genes"),
    pytest.param({"d": 4, "generator": "identity"}, id="identity"),
]
MODELS = [
    pytest.param({"mechanism": m, "intervention": i, "scale_shift": s}, id=f"{m}-{i}{'-scale' * s}")
    for m in MECHANISMS
    for i in INTERVENTIONS
    for s in (False, True)
]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("options", CASES)
def test_the_joint_loss_is_the_brute_force_sum_over_cells_and_intervention_sets(case, options, model):
    for seed in range(2):
        made = case(seed, **options, **model)
        assert made.joint()[0].item() == pytest.approx(-brute_force(made).sum(), rel=1e-9)


@pytest.mark.parametrize("model", MODELS)
def test_the_joint_loss_with_known_targets_is_the_density_of_that_set(case, model):
    for seed in range(3):
        made = case(seed, **model)
        targets = np.random.default_rng(seed).random((4, 4)) < 0.5
        nll, _ = made.joint(torch.as_tensor(targets))
        assert nll.item() == pytest.approx(-brute_force(made, targets).sum(), rel=1e-9)


@pytest.mark.parametrize("model", MODELS)
def test_em_does_not_lose_likelihood(case, model):
    """With the posterior as targets the loss bounds the mixture's, up to the entropy of the posterior, exactly."""
    made = case(3, **model)
    module, moments = made.module, made.moments
    logits, psi = module.generator(made.conditions.inputs)
    scale = module.log_scale(made.conditions)
    with_target, without = log_likelihoods(
        module.intervention, moments, psi, made.conditions.n, module.mechanism.variance, scale
    )
    p = torch.sigmoid(logits + with_target - without - module.target_penalty).clamp(1e-12, 1 - 1e-12).detach()
    entropy = -(p * p.log() + (1 - p) * (-p).log1p()).sum()
    assert made.joint(p)[0].item() - entropy.item() == pytest.approx(made.joint()[0].item(), rel=1e-6)


def test_the_losses_are_parts_of_one_another(case):
    made = case(0)
    loss, penalty = made.module.generator_loss(made.conditions, made.moments)
    assert loss.item() == pytest.approx(-made.module.log_likelihood(made.conditions, made.moments).sum().item())
    assert penalty.item() == pytest.approx(made.joint()[1].item())
    assert penalty.item() == pytest.approx(
        made.module.generator.penalty(*made.module.generator(made.conditions.inputs)).item()
    )


def test_a_sample_of_contexts_stands_for_all(case):
    made = case(0)
    module, moments = made.module, made.moments
    half = [made.module.joint_loss(made.conditions, moments, made.n_cells, weight=2.0)[0], made.joint()[0]]
    evidence_of_all = module.log_likelihood(made.conditions, moments).sum()
    assert (half[1] - half[0]).item() == pytest.approx(evidence_of_all.item())


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("model", [m for m in MODELS if not m.values[0]["scale_shift"]])
def test_frozen_moments_differ_by_what_no_drug_changes(case, model, known):
    made = case(1, **model)
    module, moments = made.module, made.moments
    module.mechanism.requires_grad_(False)
    targets = torch.as_tensor(np.random.default_rng(0).random((4, 4)) < 0.5) if known else None
    frozen, gaps, gradients = module.freeze(made.conditions, moments), [], []
    for scale in (1.0, 0.3):
        with torch.no_grad():
            for parameter in module.generator.parameters():
                parameter.mul_(scale)
        losses = [module.generator_loss(made.conditions, m, targets)[0] for m in (moments, frozen)]
        gaps.append((losses[0] - losses[1]).item())
        gradients += [
            torch.autograd.grad(loss, list(module.generator.parameters()), allow_unused=True) for loss in losses
        ]
    assert gaps[0] == pytest.approx(gaps[1], rel=1e-9)
    for a, b in zip(gradients[0], gradients[1], strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("model", MODELS)
def test_gradients_of_the_joint_loss_are_finite_and_agree_with_differences(case, model):
    made = case(1, **model)
    for targets in (None, torch.as_tensor(np.random.default_rng(0).random((4, 4)) < 0.5)):
        made.module.zero_grad()
        loss = lambda targets=targets: _joint(made, targets)
        loss().backward()
        for name, parameter in made.module.named_parameters():
            gradient, flat = parameter.grad, parameter.data.view(-1)
            assert torch.isfinite(gradient).all(), name
            for i in range(0, len(flat), 7):
                ends, before = [], flat[i].item()
                for step in (1e-5, -1e-5):
                    flat[i] = before + step
                    ends.append(loss().item())
                flat[i] = before
                assert gradient.view(-1)[i].item() == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-4, abs=1e-3), (
                    name
                )


def _joint(made, targets):
    return made.joint(targets)[0]


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_weights_of_parents_that_are_none_neither_count_nor_learn(case, mechanism):
    made = case(2, mechanism=mechanism)
    loss, _ = made.joint()
    loss.backward()
    off = made.module.mechanism.exists == 0
    assert off.any()
    assert not made.module.mechanism.skip.grad[off].any()
    with torch.no_grad():
        made.module.mechanism.skip[off] = 1e6
    assert made.joint()[0].item() == loss.item()


@pytest.mark.parametrize("logit", [-1e4, 1e4])
@pytest.mark.parametrize("model", MODELS)
def test_extreme_logits_keep_loss_and_gradients_finite(case, logit, model):
    made = case(0, **model)
    with torch.no_grad():
        made.module.generator.logit_0.fill_(logit)
    loss, penalty = made.joint()
    (loss + penalty).backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in made.module.parameters() if p.grad is not None)


@pytest.mark.parametrize("model", MODELS)
def test_the_posterior_is_that_of_numerical_integration_over_psi(case, model):
    """From the cells of a condition: prior x likelihood, integrated over psi, which is as features say or around what is seen."""
    made = case(1, d=3, sizes=(10, 1, 6, 13), **model)
    module, conditions = made.module, made.conditions
    spread = torch.tensor([0.05, 0.7, 3.0], dtype=torch.float64)
    logits, psi_hat = (t.detach() for t in module.generator(conditions.inputs))
    features = FeatureEvidence(torch.sigmoid(logits), logsigmoid(logits) - logsigmoid(-logits) - 1, psi_hat, spread)
    probability, mean, error = module.posterior(conditions, made.moments, spread, features)
    odds, psi_hat = np.exp(features.log_odds.numpy()), psi_hat.numpy()
    scale = module.log_scale(conditions)
    with torch.no_grad():
        predicted = module.mechanism(torch.as_tensor(made.x)).numpy()
    sigma, (best, _) = module.mechanism.variance.sqrt().detach().numpy(), module.intervention.observed(made.moments)
    for k, j in product(range(3), range(3)):
        rows, tau = made.code == k + 1, np.sqrt(spread[j].item())
        without = norm.logpdf(made.x[rows, j], predicted[rows, j], sigma[j]).sum()
        centre = predicted[rows, j] if module.intervention.name == "shift" else 0.0
        wide = sigma[j] * (np.exp(scale[k, j].item()) if isinstance(scale, torch.Tensor) else 1.0)
        cells = made.x[rows, j] - centre
        likelihood = lambda psi, c=cells, s=wide, u=without: np.exp(norm.logpdf(c, psi, s).sum() - u)
        by_features, own, seen = odds[k, j], np.exp(-module.target_penalty[j].item()) / 2, best[k, j].item()
        weight = lambda psi, k=k, j=j, tau=tau, f=likelihood, by_features=by_features, own=own, seen=seen: (
            f(psi) * (by_features * norm.pdf(psi, psi_hat[k, j], tau) + own * norm.pdf(psi, seen, tau))
        )
        width = 12 / np.sqrt(1 / tau**2 + len(cells) / wide**2)
        peaks = sorted([seen, (seen * tau**2 + psi_hat[k, j] * wide**2 / len(cells)) / (tau**2 + wide**2 / len(cells))])
        zeroth, first, second = (
            quad(
                lambda psi, q=q, f=weight: psi**q * f(psi),
                peaks[0] - width,
                peaks[1] + width,
                points=peaks,
                epsabs=0,
                limit=500,
            )[0]
            for q in range(3)
        )
        # what features do not tell of is seen with the whole error of the cells, not with that of a prior around it
        v = wide**2 / len(cells)
        alone = (
            own
            * quad(
                lambda psi, f=likelihood, seen=seen, tau=tau: f(psi) * norm.pdf(psi, seen, tau),
                peaks[0] - width,
                peaks[1] + width,
                points=peaks,
                epsabs=0,
                limit=500,
            )[0]
        )
        variance = second / zeroth - (first / zeroth) ** 2 + alone / zeroth * (v - tau**2 * v / (tau**2 + v))
        least = max(np.sqrt(variance), module.min_effect.item())
        middle = 0.0 if module.intervention.name == "shift" else predicted[rows, j].mean()
        assert mean[k, j].item() == pytest.approx(first / zeroth, rel=1e-6, abs=1e-8)
        assert error[k, j].item() == pytest.approx(np.sqrt(variance), rel=1e-4)
        # the null hypothesis: no effect, or one too small to matter, whichever explains the mean better
        residual, v0 = (made.x[rows, j] - predicted[rows, j]).mean(), sigma[j] ** 2 / len(cells)
        widths = np.sqrt(v0 + np.linspace(0, module.min_effect.item() / SPIKE, 10_001) ** 2)
        null = np.exp(norm.logpdf(residual, scale=widths).max() - norm.logpdf(residual, scale=np.sqrt(v0)))
        expected = zeroth / (zeroth + null)
        if abs(mean[k, j].item() - middle) < least:
            expected = min(expected, 0.5)
        assert probability[k, j].item() == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_the_posterior_between_its_extremes(case):
    made = case(4)
    module, conditions, moments = made.module, made.conditions, made.moments
    _, shift = module.generator(conditions.inputs)
    certain, vague = (torch.full((4,), v, dtype=torch.float64) for v in (0.0, 1e200))
    # no spread: the shift is the generator's or what is seen, and the odds those of the two
    probability, mean, error = module.posterior(conditions, moments, certain)
    args = conditions.n, module.mechanism.variance
    gains = [torch.sub(*log_likelihoods(module.intervention, moments, at, *args)) for at in (shift, moments.residual)]
    by_features, own = (gain - module.target_penalty - np.log(2) for gain in gains)  # nothing is known of the features
    share = torch.sigmoid(by_features - own)
    torch.testing.assert_close(mean, torch.lerp(moments.residual, shift, share).detach())
    v = module.mechanism.variance / conditions.n
    between = share * (1 - share) * (moments.residual - shift) ** 2 + (1 - share) * v
    torch.testing.assert_close(error, between.sqrt().detach())
    small = negligible_gain(moments.residual, v, module.min_effect)
    expected = torch.sigmoid(torch.logaddexp(by_features, own) - small).detach()
    torch.testing.assert_close(probability, capped(expected, mean, error, module.min_effect).detach())
    # any shift goes: the residual itself, which is no evidence
    probability, mean, error = module.posterior(conditions, moments, vague)
    torch.testing.assert_close(mean, moments.residual.detach())
    torch.testing.assert_close(error, (module.mechanism.variance / conditions.n).sqrt().detach())
    assert (probability < 1e-2).all()


@pytest.mark.parametrize("cross_fitted", [False, True])
def test_the_posterior_of_a_drug_without_features(case, cross_fitted):
    """It is that of a drug known by name, with the effect that is observed; other conditions are as if it were not there."""
    made = case(4)
    module, conditions, moments, tau2 = made.module, made.conditions, made.moments, torch.full((4,), 0.3).double()
    features = None
    if cross_fitted:
        features = FeatureEvidence(*(torch.full((4, 4), value).double() for value in (0.3, -2.0, 0.7)), tau2)
    missing = conditions.inputs.features.clone()
    missing[2] = torch.nan
    found = module.posterior(
        conditions._replace(inputs=conditions.inputs._replace(features=missing)), moments, tau2, features
    )
    rest = torch.tensor([True, True, False, True])
    others = module.posterior(
        conditions.take(rest), moments.take(rest), tau2, None if features is None else features.take(rest)
    )
    for each, other in zip(found, others, strict=True):
        torch.testing.assert_close(each[rest], other, rtol=1e-8, atol=1e-12)
    v = module.mechanism.variance / conditions.n[2]
    residual, c = moments.residual[2], module.target_penalty
    gain = residual**2 / (2 * v) - 0.5 * torch.log((tau2 + v) / v) - negligible_gain(residual, v, module.min_effect)
    torch.testing.assert_close(found[1][2], residual.detach())
    torch.testing.assert_close(found[2][2], v.sqrt().detach())
    expected = capped(torch.sigmoid(gain - c).detach(), *(each[2] for each in found[1:]), module.min_effect)
    torch.testing.assert_close(found[0][2], expected.detach())


def test_more_cells_of_the_same_residual_draw_the_posterior_to_the_data(case):
    made = case(4)
    module, spread = made.module, torch.ones(4, dtype=torch.float64)
    moments = made.moments._replace(residual=made.moments.residual.detach() + 3)
    gaps = []
    for n in (1.0, 10.0, 1e4):
        conditions = made.conditions._replace(n=torch.full((4, 1), n, dtype=torch.float64))
        probability, mean, error = module.posterior(conditions, moments, spread)
        gaps.append((mean - moments.residual).abs().detach())
    assert (gaps[0] >= gaps[1]).all()
    assert (gaps[1] >= gaps[2]).all()
    assert (probability > 0.99).all()
    assert (error < 0.1).all()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("generator", GENERATORS)
def test_a_likely_target_moves_its_gene_by_more_than_its_error_and_the_least_effect(
    case, model, generator, random_parameters
):
    for seed in range(3):
        made = case(
            seed, **{"d": 6, "sizes": (200, 4, 9, 30, 100, 7), "target_penalty": 1.0, "generator": generator, **model}
        )
        module, last = made.module, None
        alone = made.moments.value - made.moments.residual if model["intervention"] == "hard" else 0.0
        for least in (0.0, 0.1, 0.3, 1.0):
            module.min_effect.fill_(least)
            probability, effect, error = module.posterior(made.conditions, made.moments, torch.full((6,), 0.5).double())
            size, likely = (effect - alone).abs(), probability > 0.5
            assert (size[likely] >= error.expand_as(size)[likely]).all()
            assert (size[likely] >= least).all()
            assert last is None or (probability <= last + 1e-12).all()
            last = probability


def test_the_least_effect_is_given_in_the_unit_of_the_answer(case):
    made = case(0)
    module, tau = made.module, torch.full((4,), 0.5).double()
    unit = torch.rand(made.moments.residual.shape, dtype=torch.float64) + 0.5
    module.min_effect.fill_(0.3)
    found, *_ = module.posterior(made.conditions, made.moments, tau, unit=unit)
    for k in range(len(unit)):
        for j in range(unit.shape[1]):
            module.min_effect.fill_(0.3 / unit[k, j].item())
            alone, *_ = module.posterior(made.conditions, made.moments, tau)
            torch.testing.assert_close(found[k, j], alone[k, j])


def test_negligible_effects_are_the_best_of_all_narrow_normal_distributions():
    rng = np.random.default_rng(0)
    residual, variance, least = rng.normal(size=200), rng.uniform(1e-4, 1, 200), 0.8
    widths = np.linspace(0, least / SPIKE, 20_001)
    density = norm.logpdf(residual[:, None], scale=np.sqrt(variance[:, None] + widths**2))
    gain = negligible_gain(torch.as_tensor(residual), torch.as_tensor(variance), least)
    np.testing.assert_allclose(gain, density.max(1) - density[:, 0], rtol=1e-4, atol=1e-6)


def test_a_small_effect_is_no_target_however_many_cells_show_it():
    small, clear = torch.tensor([0.05, 0.4]).double()
    few, many, penalty, slab = 4e-3, 1e-5, 5.0, 1.0
    for variance in (few, many):
        error = torch.tensor(variance).double()
        gain = [x**2 / (2 * error) - negligible_gain(x, error, 0.2) for x in (small, clear)]
        price = penalty + 0.5 * np.log1p(slab / variance)
        assert gain[0] < price < gain[1]
    assert small**2 / (2 * many) > 100


def test_no_effect_below_its_error_is_called():
    effect, error = torch.tensor([0.1, 0.3, 0.15, -0.3]).double(), torch.tensor([0.01, 0.4, 0.01, 0.01]).double()
    probability = torch.tensor([0.99, 0.9, 0.25, 0.99], dtype=torch.float64)
    assert capped(probability, effect, error, 0.2).tolist() == [0.5, 0.5, 0.25, 0.99]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("generator", GENERATORS)
def test_any_model_round_trips_through_its_state(case, model, generator, random_parameters):
    options = {"generator": generator, **model}
    a = case(0, **options).module
    b = GIMModule(
        4,
        GENERATORS[generator](3, 4, n_drugs=2, dosed=True, baseline=a.intervention.baseline),
        mechanism=model["mechanism"],
        intervention=model["intervention"],
        scale_map=NoiseScale(3, 4) if model["scale_shift"] else None,
    )
    b.load_state_dict(a.state_dict())
    assert set(a.state_dict()) == set(b.state_dict())
    for name, value in a.state_dict().items():
        torch.testing.assert_close(b.state_dict()[name], value, rtol=0, atol=0)


def test_states_of_older_versions_load(case):
    module = case(0).module
    state = module.state_dict()
    older = {"target_penalty": "charge", "generator_target_penalty": "generator_charge"}
    other = case(1).module
    other.load_state_dict({older.get(name, name): value for name, value in state.items()})
    for name, value in other.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=0)
