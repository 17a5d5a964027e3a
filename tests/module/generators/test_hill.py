from __future__ import annotations

import numpy as np
import pytest
import torch

from scgim.module import TreatmentInputs
from scgim.module.generators import HillGenerator, IdentityGenerator

FEATURES, GENES, DRUGS, CONTEXTS = 3, 5, 4, 8


@pytest.fixture
def hill(random_parameters):
    generator = HillGenerator(FEATURES, GENES, n_drugs=DRUGS, dosed=True)
    random_parameters(generator, 0)
    return generator


def test_the_hill_response_is_its_formula(hill, inputs):
    f, c = inputs.features.numpy(), np.exp(inputs.log_dose.numpy())[:, None]
    p = {name.removeprefix("dose_response."): value.detach().numpy() for name, value in hill.named_parameters()}
    ec50 = np.exp(f @ p["log_ec50"] + p["log_ec50_0"])[:, None]
    logits, psi = hill(inputs)
    np.testing.assert_allclose(logits.detach(), f @ p["logit"] + p["logit_0"])
    np.testing.assert_allclose(psi.detach(), f @ p["effect"] * c / (c + ec50))


def test_logits_do_not_depend_on_the_dose(hill, inputs):
    later = inputs._replace(log_dose=inputs.log_dose + 5)
    assert (hill(inputs)[0] == hill(later)[0]).all()
    assert (hill(inputs)[1] != hill(later)[1]).all()


def test_the_effect_grows_with_the_dose_from_nothing_to_its_maximum(hill, inputs):
    doses = torch.tensor([-torch.inf, *np.linspace(-30, 30, 40), torch.inf], dtype=torch.float64)
    effect = torch.stack([hill(inputs._replace(log_dose=dose.expand(CONTEXTS)))[1].abs() for dose in doses])
    assert (effect.diff(dim=0) >= 0).all()
    assert not effect[0].any()
    torch.testing.assert_close(effect[-1], (inputs.features @ hill.effect).abs())


def test_half_of_it_at_the_half_maximal_dose_for_all_genes_of_a_drug(hill, inputs):
    half = inputs.features @ hill.dose_response.log_ec50 + hill.dose_response.log_ec50_0
    torch.testing.assert_close(hill(inputs._replace(log_dose=half))[1], inputs.features @ hill.effect / 2)


@pytest.mark.parametrize("factor", [1e-3, 1e6])
def test_the_unit_of_dose_moves_only_the_half_maximal_dose(hill, inputs, factor):
    before = hill(inputs)
    with torch.no_grad():
        hill.dose_response.log_ec50_0 += np.log(factor)
    for a, b in zip(hill(inputs._replace(log_dose=inputs.log_dose + np.log(factor))), before, strict=True):
        torch.testing.assert_close(a, b)


def test_a_drug_without_features_has_no_effect(hill, inputs):
    logits, psi = hill(inputs._replace(features=torch.zeros_like(inputs.features)))
    assert not psi.any()
    torch.testing.assert_close(logits, hill.logit_0.expand_as(logits))


def test_features_alone_decide(hill, inputs):
    for a, b in zip(hill(inputs), hill(inputs._replace(drug=inputs.drug.flip(0))), strict=True):
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


def test_a_pruned_effect_is_gone_and_no_longer_pulled(hill, inputs):
    hill.prune(0.5)
    assert not hill.kept.all()
    before = [answer.detach() for answer in hill(inputs)]
    with torch.no_grad():
        hill.effect[~hill.kept] = 1e6
    logits, psi = hill(inputs)
    assert (logits == before[0]).all()
    assert (psi == before[1]).all()
    hill.penalty(logits, psi).backward()
    assert not hill.effect.grad[~hill.kept].any()


def test_a_pruned_feature_can_rule_a_target_out_but_not_call_one(hill):
    zero = torch.zeros(FEATURES, dtype=torch.int64)
    at = TreatmentInputs(torch.eye(FEATURES, dtype=torch.float64), zero, zero.double(), zero)
    before = hill(at)[0].detach() - hill.logit_0
    hill.prune(1.0)
    after = hill(at)[0].detach() - hill.logit_0
    torch.testing.assert_close(after, torch.where(hill.kept, before, before.clamp(max=0)))


def test_a_gene_without_effects_is_not_a_trouble_to_pruning(hill, inputs):
    with torch.no_grad():
        hill.effect[:, 2] = 0
    hill.prune()
    assert not hill(inputs)[1][:, 2].any()


def test_the_penalty_is_its_formula(hill, inputs):
    logits, psi = hill(inputs)
    p = {name.removeprefix("dose_response."): value.detach() for name, value in hill.named_parameters()}
    idle = ((1 - torch.sigmoid(logits)) * psi**2).sum()
    rest = 0.3 * p["logit"].abs().sum() + p["log_ec50"].pow(2).sum() + p["log_ec50_0"] ** 2
    torch.testing.assert_close(hill.penalty(logits, psi), idle + rest + 30 * p["effect"].abs().sum())
    hill.prune(0.0)
    torch.testing.assert_close(hill.penalty(logits, psi), idle + rest)


def test_the_offset_is_added_whatever_the_dose(hill, inputs):
    generator = HillGenerator(FEATURES, GENES, n_drugs=DRUGS, dosed=True, baseline=True)
    generator.load_state_dict(hill.state_dict() | {"offset": torch.arange(1.0, 1 + GENES, dtype=torch.float64)})
    logits, psi = generator(inputs)
    torch.testing.assert_close(psi, hill(inputs)[1] + generator.offset)
    torch.testing.assert_close(logits, hill(inputs)[0])


def test_the_offset_costs_two_effects_until_pruning_and_nothing_for_being_idle(hill, inputs):
    generator = HillGenerator(FEATURES, GENES, n_drugs=DRUGS, dosed=True, baseline=True)
    generator.load_state_dict(hill.state_dict() | {"offset": torch.arange(1.0, 1 + GENES, dtype=torch.float64)})
    without = hill.penalty(*hill(inputs))
    torch.testing.assert_close(generator.penalty(*generator(inputs)), without + 30 * 2 * generator.offset.abs().sum())
    generator.prune(0.0)
    penalty = generator.penalty(*generator(inputs))
    penalty.backward()
    torch.testing.assert_close(generator.offset.grad, torch.zeros(GENES, dtype=torch.float64), atol=1e-12, rtol=0)


def test_a_measured_drug_is_known_by_its_identity(random_parameters, inputs):
    generator = IdentityGenerator(FEATURES, GENES, n_drugs=DRUGS, dosed=False)
    random_parameters(generator, 0)
    logits, psi = generator(inputs)
    torch.testing.assert_close(logits, generator.logit[inputs.drug] + generator.logit_0)
    torch.testing.assert_close(psi, generator.effect[inputs.drug])
    other = generator(inputs._replace(features=torch.zeros_like(inputs.features)))
    assert all((a == b).all() for a, b in zip(other, (logits, psi), strict=True))


@pytest.mark.parametrize("dosed", [False, True])
def test_an_unseen_drug_gets_the_base_logit_and_no_effect(dosed, random_parameters, inputs):
    generator = IdentityGenerator(FEATURES, GENES, n_drugs=DRUGS, dosed=dosed)
    random_parameters(generator, 0)
    logits, psi = generator(inputs._replace(drug=torch.full_like(inputs.drug, -1)))
    torch.testing.assert_close(logits, generator.logit_0.expand_as(logits))
    assert not psi.any()


def test_pruning_an_identity_generator_keeps_every_effect(random_parameters, inputs):
    generator = IdentityGenerator(FEATURES, GENES, n_drugs=DRUGS, dosed=True)
    random_parameters(generator, 0)
    before = [answer.detach() for answer in generator(inputs)]
    generator.prune()
    assert all((a == b).all() for a, b in zip(generator(inputs), before, strict=True))


@pytest.mark.parametrize("lines", [1, 3])
def test_maps_of_distinct_drugs_are_those_of_all_rows(screen, build, monkeypatch, lines):
    data = screen(drugs=7, doses=3, lines=lines)
    generator = build(HillGenerator, data, dose_response="hill")
    for parameter in generator.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))

    def answer() -> list[torch.Tensor]:
        generator.zero_grad()
        logits, psi = generator(data.inputs)
        (logits.sum() + (psi**2).sum()).backward()
        return [logits.detach(), psi.detach(), *(p.grad.clone() for p in generator.parameters())]

    whole = answer()
    monkeypatch.setattr("scgim.module.generators._hill.MANY_ROWS", 1)
    for one, other in zip(answer(), whole, strict=True):
        torch.testing.assert_close(one, other)
    # other inputs of the same sizes are not taken for the ones before
    mixed = data.inputs._replace(features=data.inputs.features.flip(0))
    few = generator(mixed)
    monkeypatch.setattr("scgim.module.generators._hill.MANY_ROWS", 10**9)
    for one, other in zip(few, generator(mixed), strict=True):
        torch.testing.assert_close(one, other)


def test_repeated_inputs_are_dropped_after_training(screen, build, monkeypatch):
    monkeypatch.setattr("scgim.module.generators._hill.MANY_ROWS", 1)
    training, validation, more = (screen(drugs=7, doses=3, seed=seed).inputs for seed in range(3))
    generator = build(HillGenerator, screen(drugs=7, doses=3))
    for inputs in (training, validation, more, training, more):
        generator(inputs)
        assert len(generator._repeated) <= 2
    generator.release()
    assert generator._repeated == []
