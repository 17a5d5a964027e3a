from __future__ import annotations

import torch

from scgim.module.generators import NetworkGenerator


def fit(generator, inputs, residual, steps=400):
    optimizer = torch.optim.Adam(generator.parameters(), lr=0.1)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.1 * min(1.0, 2 * (1 - step / steps))
        logits, psi = generator(inputs)
        loss = 50 * (psi - residual).pow(2).sum() / 2 + generator.penalty(logits, psi)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return generator(inputs)[1].detach()


def test_learns_a_course_along_the_dose_that_no_hill_curve_has(screen, build):
    data = screen(doses=4, genes=2)
    at = data.inputs
    residual = torch.stack([torch.cos(3 * at.log_dose), at.features[:, 0] * at.features[:, 1]], 1)
    psi = fit(build(NetworkGenerator, data), at, residual)
    assert ((psi - residual) ** 2).mean() < 0.05 * residual.var()


def test_the_same_start_whatever_the_global_state(screen, build):
    data = screen()
    torch.manual_seed(0)
    one = build(NetworkGenerator, data)
    torch.manual_seed(1)
    two = build(NetworkGenerator, data)
    other = build(NetworkGenerator, data, seed=1)
    assert all((a == b).all() for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert any((a != b).any() for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_the_unit_of_dose_does_not_matter(screen, build, random_parameters):
    data = screen(doses=3)
    one, two = build(NetworkGenerator, data), None
    shifted = data._replace(inputs=data.inputs._replace(log_dose=data.inputs.log_dose + 7))
    two = build(NetworkGenerator, shifted)
    for generator in (one, two):
        random_parameters(generator, 0)
    for a, b in zip(one(data.inputs), two(shifted.inputs), strict=True):
        torch.testing.assert_close(a, b)
