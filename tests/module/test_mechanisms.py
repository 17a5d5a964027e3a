from __future__ import annotations

import numpy as np
import pytest
import torch

from scgim.module import MECHANISMS, LinearMechanism
from scgim.statistics import accumulate
from scgim.structure import fit_graph

D = 5


@pytest.fixture(params=MECHANISMS)
def mechanism(request, random_parameters, random_graph):
    """Every registered mechanism with random parameters on a random DAG."""
    mechanism = MECHANISMS[request.param](D)
    random_parameters(mechanism, 1)
    mechanism.graph.copy_(torch.as_tensor(random_graph(np.random.default_rng(0), D)))
    assert mechanism.graph.any()
    return mechanism


@pytest.fixture
def x():
    rng = np.random.default_rng(3)
    return torch.as_tensor(rng.normal(size=(40, D)) @ rng.normal(size=(D, D)))


def derivative(mechanism, x):
    """Of every gene by every gene at every cell, ``(cells, source, target)``."""
    one = lambda cell: mechanism(cell[None])[0]
    return torch.stack([torch.autograd.functional.jacobian(one, cell).T for cell in x])


def test_a_new_mechanism_has_no_edges():
    for name in MECHANISMS:
        mechanism = MECHANISMS[name](D)
        assert mechanism.graph.shape == (D, D)
        assert not mechanism.graph.any()
        torch.testing.assert_close(mechanism.variance, torch.ones(D, dtype=mechanism.variance.dtype))


def test_a_gene_depends_on_its_parents_alone(mechanism, x):
    depends = (derivative(mechanism, x) != 0).any(0)
    torch.testing.assert_close(depends, mechanism.graph)


@pytest.mark.parametrize("genes", [[0], [4, 1], [2, 2, 0], [], list(range(D))])
def test_some_genes_are_columns_of_all(mechanism, x, genes):
    torch.testing.assert_close(mechanism(x, torch.tensor(genes, dtype=torch.long)), mechanism(x)[:, genes])


def test_effects_are_mean_derivatives(mechanism, x):
    effects, sign = mechanism.effects(x)
    d = derivative(mechanism, x)
    torch.testing.assert_close(effects, d.mean(0))
    expected = torch.where((torch.sign(d) == torch.sign(d[0])).all(0), torch.sign(d[0]), 0.0)
    torch.testing.assert_close(sign.to(expected.dtype), expected)


def test_strength_is_what_permuting_a_parent_costs(mechanism):
    rng = np.random.default_rng(0)
    x = torch.as_tensor(rng.normal(size=(100_000, D)) @ rng.normal(size=(D, D)) + rng.normal(size=D))
    strength = mechanism.strength(x)
    assert not strength[~mechanism.graph].any()
    assert (strength[mechanism.graph] > 0).all()
    with torch.no_grad():
        for i, j in mechanism.graph.nonzero().tolist():
            y = x.clone()
            y[:, i] = y[torch.as_tensor(rng.permutation(len(y))), i]
            change = (mechanism(x)[:, j] - mechanism(y)[:, j]) ** 2
            assert strength[i, j].item() == pytest.approx(
                (change.mean() / (2 * mechanism.variance[j])).item(), rel=0.03
            )


def test_the_penalty_is_a_positive_number_and_ignores_what_is_off_the_graph(mechanism):
    penalty = mechanism.weight_penalty()
    assert penalty.shape == ()
    assert penalty > 0
    mechanism.graph.zero_()
    assert mechanism.weight_penalty() == 0


def test_moments_are_those_of_cells(mechanism, x):
    if not mechanism.affine:
        pytest.skip("only affine mechanisms need no cells")
    code = np.random.default_rng(0).permutation(np.arange(len(x)) % 3 * (np.arange(len(x)) > 3))
    s = accumulate([(x.numpy(), code)], n_contexts=3, n_genes=D)
    residual, within = mechanism.moments(torch.as_tensor(s.mean), torch.as_tensor(s.scatter))
    noise = (x - mechanism(x)).detach().numpy()
    means = np.array([noise[code == k].mean(0) for k in range(3)])
    np.testing.assert_allclose(residual.detach(), means, atol=1e-10)
    np.testing.assert_allclose(within.detach(), ((noise - means[code]) ** 2).sum(0), rtol=1e-9)


def test_a_mechanism_says_the_mean_cell_moves_as_cells_do_only_if_it_does(mechanism, x):
    gap = (mechanism(x).mean(0) - mechanism(x.mean(0, keepdim=True))[0]).abs().max()
    assert (gap < 1e-9) == mechanism.affine


def test_the_variance_is_positive_whatever_the_parameter(mechanism):
    with torch.no_grad():
        mechanism.log_sigma.copy_(torch.linspace(-20, 20, D))
    assert (mechanism.variance > 0).all()
    torch.testing.assert_close(mechanism.variance.sqrt().log(), mechanism.log_sigma)


def test_warm_start_takes_the_least_squares_fit(random_graph):
    rng = np.random.default_rng(1)
    graph, code = random_graph(rng, D), np.repeat([0, 1, 2], [100, 30, 50])
    x = rng.normal(size=(180, D)) @ rng.normal(size=(D, D))
    s = accumulate([(x, code)], n_contexts=3, n_genes=D)
    fit, mechanism = fit_graph(graph, s, charge=1e9), LinearMechanism(D)
    mechanism.warm_start(torch.as_tensor(graph), fit)
    np.testing.assert_array_equal(mechanism.graph, graph)
    np.testing.assert_allclose(mechanism.variance.detach(), fit.variance)
    # with no targets it is the regression on all cells: residuals are orthogonal to the parents, their mean is 0
    noise = (torch.as_tensor(x) - mechanism(torch.as_tensor(x))).detach().numpy()
    np.testing.assert_allclose(noise.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose((x.T @ noise)[graph], 0, atol=1e-7)
    np.testing.assert_allclose((noise**2).mean(0), fit.variance)


def test_the_warm_start_is_where_the_likelihood_of_control_cells_is_flat(random_graph):
    """Least squares is maximum likelihood: no gradient is left."""
    rng = np.random.default_rng(1)
    graph, x = random_graph(rng, D), rng.normal(size=(180, D)) @ rng.normal(size=(D, D))
    s, mechanism = accumulate([(x, np.zeros(180, dtype=int))], n_contexts=1, n_genes=D), LinearMechanism(D)
    mechanism.warm_start(torch.as_tensor(graph), fit_graph(graph, s))
    cells = torch.as_tensor(x)
    nll = -torch.distributions.Normal(mechanism(cells), mechanism.variance.sqrt()).log_prob(cells).sum()
    nll.backward()
    assert max(p.grad.abs().max().item() for p in mechanism.parameters()) < 1e-6
