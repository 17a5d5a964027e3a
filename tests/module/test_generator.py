from __future__ import annotations

import numpy as np
import pytest
import torch

from scgim.module import GENERATORS, HillGenerator, IdentityGenerator

FEATURES, GENES, DRUGS, CONTEXTS = 3, 5, 4, 8


def inputs(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features, drug and log dose of contexts: every drug at two doses."""
    rng = np.random.default_rng(seed)
    drug = torch.arange(CONTEXTS) % DRUGS
    return torch.as_tensor(rng.normal(size=(DRUGS, FEATURES)))[drug], drug, torch.as_tensor(rng.normal(size=CONTEXTS))


@pytest.fixture(params=[(name, dosed) for name in GENERATORS for dosed in (False, True)], ids=str)
def generator(request, random_parameters):
    """Every registered generator with random parameters."""
    name, dosed = request.param
    generator = GENERATORS[name](FEATURES, GENES, n_drugs=DRUGS, dosed=dosed)
    random_parameters(generator, 0)
    return generator


@pytest.fixture
def hill(random_parameters):
    generator = HillGenerator(FEATURES, GENES, n_drugs=DRUGS, dosed=True)
    random_parameters(generator, 0)
    return generator


def fresh(generator):
    return type(generator)(FEATURES, GENES, n_drugs=DRUGS, dosed=generator.dosed)


class TestEveryGenerator:
    def test_answers_are_contexts_by_genes_and_finite(self, generator):
        for answer in generator(*inputs()):
            assert answer.shape == (CONTEXTS, GENES)
            assert answer.dtype == torch.float64
            assert torch.isfinite(answer).all()

    def test_contexts_do_not_see_each_other(self, generator):
        rows = torch.tensor([5, 0, 5])
        for some, all_ in zip(generator(*(t[rows] for t in inputs())), generator(*inputs()), strict=True):
            torch.testing.assert_close(some, all_[rows])
        assert all(answer.shape == (0, GENES) for answer in generator(*(t[:0] for t in inputs())))

    def test_asking_changes_nothing(self, generator):
        before = {name: value.clone() for name, value in generator.state_dict().items()}
        first, second = generator(*inputs()), generator(*inputs())
        assert all((a == b).all() for a, b in zip(first, second, strict=True))
        assert all((value == before[name]).all() for name, value in generator.state_dict().items())

    def test_without_doses_the_dose_says_nothing(self, generator):
        features, drug, log_dose = inputs()
        low, high = (generator(features, drug, log_dose + step)[1] for step in (0, 5))
        assert (low == high).all() == (not generator.dosed)

    def test_logits_do_not_depend_on_the_dose(self, generator):
        features, drug, log_dose = inputs()
        assert (generator(features, drug, log_dose)[0] == generator(features, drug, log_dose + 5)[0]).all()

    def test_says_whether_it_pools_drugs(self, generator):
        features, drug, log_dose = inputs()
        logits, shift = generator(features, torch.full_like(drug, -1), log_dose)
        knows = (logits.std(0) > 0).any() or shift.any()
        assert bool(knows) == generator.pools_drugs

    def test_penalty_is_a_number_that_can_be_descended(self, generator):
        penalty = generator.penalty(*generator(*inputs()))
        assert penalty.shape == ()
        assert penalty >= 0
        penalty.backward()
        assert all(torch.isfinite(p.grad).all() for p in generator.parameters() if p.grad is not None)

    def test_reset_makes_it_new(self, generator):
        generator.prune()
        generator.reset()
        new = fresh(generator).state_dict()
        assert new.keys() == generator.state_dict().keys()
        assert all((value == new[name]).all() for name, value in generator.state_dict().items())

    def test_a_new_one_can_learn(self, generator):
        new = fresh(generator)
        logits, shift = new(*inputs())
        (logits.sum() + (shift - 1).pow(2).sum() + new.penalty(logits, shift)).backward()
        assert any(p.grad is not None and p.grad.any() for p in new.parameters())

    @pytest.mark.parametrize("pruned", [False, True])
    def test_state_round_trip(self, generator, pruned):
        if pruned:
            generator.prune()
        other = fresh(generator)
        other.load_state_dict(generator.state_dict())
        for a, b in zip(other(*inputs()), generator(*inputs()), strict=True):
            assert (a == b).all()
        assert other.penalty(*other(*inputs())) == generator.penalty(*generator(*inputs()))

    def test_pruning_twice_is_pruning_once(self, generator):
        generator.prune()
        before = [answer.detach() for answer in generator(*inputs())]
        generator.prune()
        assert all((a == b).all() for a, b in zip(generator(*inputs()), before, strict=True))


def test_the_hill_response_is_its_formula(hill):
    features, drug, log_dose = inputs()
    f, c = features.numpy(), np.exp(log_dose.numpy())[:, None]
    p = {name: value.detach().numpy() for name, value in hill.named_parameters()}
    ec50 = np.exp(f @ p["log_ec50"] + p["log_ec50_0"])[:, None]
    logits, shift = hill(features, drug, log_dose)
    np.testing.assert_allclose(logits.detach(), f @ p["logit"] + p["logit_0"])
    np.testing.assert_allclose(shift.detach(), f @ p["effect"] * c / (c + ec50))


def test_the_effect_grows_with_the_dose_from_nothing_to_its_maximum(hill):
    features, drug, _ = inputs()
    doses = torch.tensor([-torch.inf, *np.linspace(-30, 30, 40), torch.inf], dtype=torch.float64)
    effect = torch.stack([hill(features, drug, dose.expand(CONTEXTS))[1].abs() for dose in doses])
    assert (effect.diff(dim=0) >= 0).all()
    assert not effect[0].any()
    torch.testing.assert_close(effect[-1], (features @ hill.effect).abs())


def test_half_of_it_at_the_half_maximal_dose_for_all_genes_of_a_drug(hill):
    features, drug, _ = inputs()
    half = features @ hill.log_ec50 + hill.log_ec50_0
    torch.testing.assert_close(hill(features, drug, half)[1], features @ hill.effect / 2)


@pytest.mark.parametrize("factor", [1e-3, 1e6])
def test_the_unit_of_dose_moves_only_the_half_maximal_dose(hill, factor):
    features, drug, log_dose = inputs()
    before = hill(features, drug, log_dose)
    with torch.no_grad():
        hill.log_ec50_0 += np.log(factor)
    for a, b in zip(hill(features, drug, log_dose + np.log(factor)), before, strict=True):
        torch.testing.assert_close(a, b)


def test_a_drug_without_features_has_no_effect(hill):
    features, drug, log_dose = inputs()
    logits, shift = hill(torch.zeros_like(features), drug, log_dose)
    assert not shift.any()
    torch.testing.assert_close(logits, hill.logit_0.expand_as(logits))


def test_features_alone_decide(hill):
    features, drug, log_dose = inputs()
    for a, b in zip(hill(features, drug, log_dose), hill(features, drug.flip(0), log_dose), strict=True):
        assert (a == b).all()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_pruning_keeps_the_largest_of_every_gene(hill, share):
    size = hill.effect.abs().detach()
    hill.prune(share)
    assert hill.pruned
    torch.testing.assert_close(hill.kept, size >= share * size.max(0).values)
    assert hill.kept[size.argmax(0), torch.arange(GENES)].all()
    assert share > 0 or hill.kept.all()
    assert share < 1 or hill.kept.sum() == GENES


def test_a_pruned_effect_is_gone_and_no_longer_pulled(hill):
    features, drug, log_dose = inputs()
    hill.prune(0.5)
    assert not hill.kept.all()
    before = [answer.detach() for answer in hill(features, drug, log_dose)]
    with torch.no_grad():
        hill.effect[~hill.kept] = 1e6
    logits, shift = hill(features, drug, log_dose)
    assert (logits == before[0]).all()
    assert (shift == before[1]).all()
    hill.penalty(logits, shift).backward()
    assert not hill.effect.grad[~hill.kept].any()


def test_a_pruned_feature_can_rule_a_target_out_but_not_call_one(hill):
    feature = torch.eye(FEATURES, dtype=torch.float64)
    drug, log_dose = torch.zeros(FEATURES, dtype=torch.long), torch.zeros(FEATURES, dtype=torch.float64)
    before = hill(feature, drug, log_dose)[0].detach() - hill.logit_0
    hill.prune(1.0)
    after = hill(feature, drug, log_dose)[0].detach() - hill.logit_0
    torch.testing.assert_close(after, torch.where(hill.kept, before, before.clamp(max=0)))


def test_a_gene_without_effects_is_not_a_trouble_to_pruning(hill):
    with torch.no_grad():
        hill.effect[:, 2] = 0
    hill.prune()
    assert not hill(*inputs())[1][:, 2].any()


def test_the_penalty_is_its_formula(hill):
    logits, shift = hill(*inputs())
    p = {name: value.detach() for name, value in hill.named_parameters()}
    idle = ((1 - torch.sigmoid(logits)) * shift**2).sum()
    rest = 0.3 * p["logit"].abs().sum() + p["log_ec50"].pow(2).sum() + p["log_ec50_0"] ** 2
    torch.testing.assert_close(hill.penalty(logits, shift), idle + rest + 30 * p["effect"].abs().sum())
    hill.prune(0.0)
    torch.testing.assert_close(hill.penalty(logits, shift), idle + rest)


def test_a_measured_drug_is_known_by_its_identity(random_parameters):
    generator = IdentityGenerator(FEATURES, GENES, n_drugs=DRUGS, dosed=False)
    random_parameters(generator, 0)
    features, drug, log_dose = inputs()
    logits, shift = generator(features, drug, log_dose)
    torch.testing.assert_close(logits, generator.logit[drug] + generator.logit_0)
    torch.testing.assert_close(shift, generator.effect[drug])
    other = generator(torch.zeros_like(features), drug, log_dose)
    assert all((a == b).all() for a, b in zip(other, (logits, shift), strict=True))


@pytest.mark.parametrize("dosed", [False, True])
def test_an_unseen_drug_gets_the_base_logit_and_no_effect(dosed, random_parameters):
    generator = IdentityGenerator(FEATURES, GENES, n_drugs=DRUGS, dosed=dosed)
    random_parameters(generator, 0)
    features, drug, log_dose = inputs()
    logits, shift = generator(features, torch.full_like(drug, -1), log_dose)
    torch.testing.assert_close(logits, generator.logit_0.expand_as(logits))
    assert not shift.any()


def test_pruning_an_identity_generator_keeps_every_effect(random_parameters):
    generator = IdentityGenerator(FEATURES, GENES, n_drugs=DRUGS, dosed=True)
    random_parameters(generator, 0)
    before = [answer.detach() for answer in generator(*inputs())]
    generator.prune()
    assert all((a == b).all() for a, b in zip(generator(*inputs()), before, strict=True))
