from __future__ import annotations

import inspect
from types import SimpleNamespace

import pytest
import torch

from scgim.module.generators import DOSE_RESPONSES, GENERATORS, Generator

FEATURES, GENES, DRUGS, CONTEXTS = 3, 5, 4, 8
CASES = [
    (name, response, dosed, baseline)
    for name, generator in GENERATORS.items()
    for response in (DOSE_RESPONSES if generator.by_gradient else ["none"])
    for dosed in (False, True)
    for baseline in (False, True)
    if dosed or response == "none"
]


def rows(inputs, which):
    return inputs.take(which)


@pytest.fixture(params=CASES, ids=str)
def case(request, random_parameters, screen, build):
    """Every generator in every mode, with random parameters or solved for a screen; and how to make a new one."""
    name, response, dosed, baseline = request.param
    data = screen(drugs=12, doses=2 if dosed else 1, genes=GENES, features=FEATURES, lines=2)
    new = lambda: build(GENERATORS[name], data, dose_response=response, baseline=baseline)
    generator = new()
    if generator.by_gradient:
        random_parameters(generator, 0)
    else:
        generator.solve(*data)
    generator.calibrate(*data)
    assert generator.dosed == dosed
    return SimpleNamespace(generator=generator, new=new, at=rows(data.inputs, slice(1, None, 3)), data=data)


def answers(case, at=None):
    return [each.detach() for each in case.generator(case.at if at is None else at)]


def test_answers_are_rows_by_genes_and_finite(case):
    for answer in (*answers(case), case.generator.uncertainty(case.at)):
        assert answer.shape == (len(case.at.drug), GENES)
        assert answer.dtype == torch.float64
        assert torch.isfinite(answer).all()
    assert (case.generator.uncertainty(case.at) >= 0).all()


def test_rows_do_not_see_each_other(case):
    some = torch.tensor([5, 0, 5])
    for a, b in zip(answers(case, rows(case.at, some)), answers(case), strict=True):
        torch.testing.assert_close(a, b[some])
    nobody = rows(case.at, slice(0))
    assert all(answer.shape == (0, GENES) for answer in (*answers(case, nobody), case.generator.uncertainty(nobody)))


def test_asking_changes_nothing(case):
    before = {name: value.clone() for name, value in case.generator.state_dict().items()}
    assert all((a == b).all() for a, b in zip(answers(case), answers(case), strict=True))
    case.generator.uncertainty(case.at)
    assert all((value == before[name]).all() for name, value in case.generator.state_dict().items())


def test_without_doses_the_dose_says_nothing(case):
    if not case.generator.dosed:
        for a, b in zip(answers(case), answers(case, case.at._replace(log_dose=case.at.log_dose + 5)), strict=True):
            assert (a == b).all()


def test_dose_zero_does_nothing(case):
    if not case.generator.dosed:
        return
    logits, psi = answers(case, case.at._replace(log_dose=torch.full_like(case.at.log_dose, -torch.inf)))
    assert torch.isfinite(logits).all()
    if case.generator.baseline:
        assert (torch.sigmoid(logits) < 1e-9).all()
        assert torch.isfinite(psi).all()
    else:
        assert not psi.any()


@pytest.mark.parametrize("log_dose", [-1e6, 1e6])
def test_far_doses_are_finite(case, log_dose):
    at = case.at._replace(log_dose=torch.full_like(case.at.log_dose, log_dose))
    assert all(torch.isfinite(answer).all() for answer in (*answers(case, at), case.generator.uncertainty(at)))


def test_new_drugs_and_lines_have_answers(case):
    at = case.at._replace(drug=torch.full_like(case.at.drug, -1), line=torch.full_like(case.at.line, -1))
    assert all(torch.isfinite(answer).all() for answer in (*answers(case, at), case.generator.uncertainty(at)))


def test_says_whether_it_pools_drugs(case):
    at = case.at._replace(drug=torch.full_like(case.at.drug, -1), log_dose=torch.zeros_like(case.at.log_dose))
    logits, psi = answers(case, at)
    offset = getattr(case.generator, "offset", None)
    knows = (logits.std(0) > 0).any() or (psi - (0 if offset is None else offset.detach())).any()
    assert bool(knows) == case.generator.pools_drugs


def test_penalty_is_a_number_that_can_be_descended(case):
    penalty = case.generator.penalty(*case.generator(case.at))
    assert penalty.shape == ()
    assert penalty >= 0
    if case.generator.by_gradient:
        penalty.backward()
        assert all(torch.isfinite(p.grad).all() for p in case.generator.parameters() if p.grad is not None)


def test_gradients_at_dose_zero_are_finite(case):
    if case.generator.by_gradient and case.generator.dosed:
        log_dose = case.at.log_dose.clone()
        log_dose[0] = -torch.inf
        sum(answer.sum() for answer in case.generator(case.at._replace(log_dose=log_dose))).backward()
        assert all(torch.isfinite(p.grad).all() for p in case.generator.parameters() if p.grad is not None)


def test_reset_makes_it_new(case):
    case.generator.prune()
    case.generator.reset()
    new = case.new().state_dict()
    assert new.keys() == case.generator.state_dict().keys()
    assert all(
        value.shape == new[k].shape and (value == new[k]).all() for k, value in case.generator.state_dict().items()
    )


def test_a_new_one_can_learn(case):
    new = case.new()
    if new.by_gradient:
        logits, psi = new(case.at)
        (logits.sum() + (psi - 1).pow(2).sum() + new.penalty(logits, psi)).backward()
        assert any(p.grad is not None and p.grad.any() for p in new.parameters())
    else:
        new.solve(*case.data)
        assert all((value == new.state_dict()[k]).all() for k, value in case.generator.state_dict().items())


@pytest.mark.parametrize("pruned", [False, True])
def test_state_round_trip(case, pruned):
    if pruned:
        case.generator.prune()
    other = case.new()
    other.load_state_dict(case.generator.state_dict())
    for a, b in zip(other(case.at), case.generator(case.at), strict=True):
        assert (a == b).all()
    assert (other.uncertainty(case.at) == case.generator.uncertainty(case.at)).all()
    assert other.penalty(*other(case.at)) == case.generator.penalty(*case.generator(case.at))


def test_pruning_twice_is_pruning_once(case):
    case.generator.prune()
    before = answers(case)
    case.generator.prune()
    assert all((a == b).all() for a, b in zip(answers(case), before, strict=True))


def test_building_leaves_the_global_random_state_alone(case):
    before = torch.get_rng_state()
    case.new().reset()
    assert (torch.get_rng_state() == before).all()


def test_calibration_finds_how_far_effects_lie_from_psi(screen, build):
    data = screen(drugs=400, genes=3)
    generator = build(GENERATORS["hill"], data)
    spread = torch.tensor([0.0, 0.5, 2.0], dtype=torch.float64)
    noise = torch.randn(data.residual.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    residual = noise * (spread**2 + data.variance / data.n).sqrt()
    generator.calibrate(data.inputs, residual, data.probability, data.n, data.variance)
    torch.testing.assert_close(generator.uncertainty(data.inputs)[0], spread, atol=0.08, rtol=0.1)


def test_the_registry_is_of_generators_with_one_signature():
    assert list(GENERATORS) == ["mean", "kernel", "hill", "network", "identity"]
    for generator in GENERATORS.values():
        assert issubclass(generator, Generator)
        wanted = set(inspect.signature(Generator).parameters)
        assert wanted <= set(inspect.signature(generator).parameters) or generator.__name__ == "IdentityGenerator"
