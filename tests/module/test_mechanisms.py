from __future__ import annotations

import numpy as np
import pytest
import torch

from scgim.module import (
    MECHANISMS,
    CellStore,
    Controls,
    LinearMechanism,
    MeasuredConditions,
    NetworkMechanism,
    cell_moments,
)
from scgim.module.mechanisms import NOISE_FLOOR
from scgim.statistics import accumulate, expand
from scgim.structure import fit_graph

D, CONDITIONS = 5, None  # mechanisms know nothing of drugs


@pytest.fixture(params=MECHANISMS)
def mechanism(request, random_parameters, random_graph, take_graph):
    """Every registered mechanism with random parameters on a random DAG."""
    mechanism = MECHANISMS[request.param](D)
    take_graph(mechanism, random_graph(np.random.default_rng(0), D))
    random_parameters(mechanism, 1)
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


def test_the_penalty_is_a_positive_number_and_ignores_what_is_off_the_graph(mechanism, take_graph):
    penalty = mechanism.weight_penalty()
    assert penalty.shape == ()
    assert penalty > 0
    take_graph(mechanism, np.zeros((D, D), dtype=bool))
    assert mechanism.weight_penalty() == 0


@pytest.mark.parametrize("own", [False, True])
def test_moments_are_those_of_cells(mechanism, x, own):
    """By either way: from sufficient statistics where the mechanism is affine, and from the cells."""
    code = np.sort(np.random.default_rng(0).permutation(np.arange(len(x)) % 3))
    s = accumulate([(x.numpy(), code)], n_conditions=3, n_genes=D, own=True)
    n = torch.as_tensor(s.n[1:, None])
    noise = (x - mechanism(x)).detach().numpy()
    mean, within = (np.array([f(noise[code == k], 0) for k in range(3)]) for f in (np.mean, np.var))
    found = [cell_moments(mechanism, CellStore(x, torch.as_tensor(np.bincount(code))))]
    if mechanism.affine:
        families = mechanism.families(torch.as_tensor(s.own[1:]), n) if own else None
        conditions = MeasuredConditions(
            n, *map(torch.as_tensor, (s.mean[1:], s.squares[1:] / s.n[1:, None])), CONDITIONS, families
        )
        scatter = s.own[0] if own else s.scatter
        found.append(mechanism.moments(conditions, Controls(*map(torch.as_tensor, (s.n[0], s.mean[:1], scatter)))))
    at_controls = (noise[code == 0] ** 2).sum(0)
    pooled = [at_controls, at_controls if own else at_controls + (within[1:] * s.n[1:, None]).sum(0)]
    for moments, expected in zip(found, pooled, strict=False):
        moments = type(moments)(*(a.detach() for a in moments))
        np.testing.assert_allclose(moments.residual, mean[1:], atol=1e-10)
        np.testing.assert_allclose(moments.value, s.mean[1:], atol=1e-10)
        np.testing.assert_allclose(moments.spread, s.squares[1:] / s.n[1:, None], rtol=1e-9)
        np.testing.assert_allclose(moments.pooled, expected, rtol=1e-9)
        if own or moments is not found[-1]:
            shown = within[1:] if own or not mechanism.affine or expected is at_controls else 0 * within[1:]
            np.testing.assert_allclose(moments.within, shown, rtol=1e-9, atol=1e-12)


def test_cells_are_drawn_from_their_own_context_alone():
    size = torch.tensor([3, 1, 7])
    store = CellStore(torch.repeat_interleave(torch.arange(3.0), size)[:, None], size)
    drawn = store.draw(torch.tensor([2, 0]), 500, torch.Generator().manual_seed(0))
    assert drawn.shape == (2, 500, 1)
    assert (drawn[0] == 2).all()
    assert (drawn[1] == 0).all()
    assert torch.cat([x for x, _ in store.blocks(4)]).equal(store.x)


def test_a_mechanism_says_the_mean_cell_moves_as_cells_do_only_if_it_does(mechanism, x):
    gap = (mechanism(x).mean(0) - mechanism(x.mean(0, keepdim=True))[0]).abs().max()
    assert (gap.item() < 1e-9) == mechanism.affine


def test_the_variance_is_positive_whatever_the_parameter(mechanism):
    with torch.no_grad():
        mechanism.log_sigma.copy_(torch.linspace(-20, 20, D))
    assert (mechanism.variance >= NOISE_FLOOR).all()
    own = ~mechanism.without_noise()
    assert own.tolist() == [False, False, True, True, True]
    torch.testing.assert_close(mechanism.variance.sqrt().log()[own], mechanism.log_sigma[own])


def test_warm_start_takes_the_least_squares_fit(random_graph):
    rng = np.random.default_rng(1)
    graph, code = random_graph(rng, D), np.repeat([0, 1, 2], [100, 30, 50])
    x = rng.normal(size=(180, D)) @ rng.normal(size=(D, D))
    s = accumulate([(x, code)], n_conditions=3, n_genes=D)
    fit, mechanism = fit_graph(graph, s, target_penalty=1e9), LinearMechanism(D)
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
    s, mechanism = accumulate([(x, np.zeros(180, dtype=int))], n_conditions=1, n_genes=D), LinearMechanism(D)
    mechanism.warm_start(torch.as_tensor(graph), fit_graph(graph, s))
    cells = torch.as_tensor(x)
    nll = -torch.distributions.Normal(mechanism(cells), mechanism.variance.sqrt()).log_prob(cells).sum()
    nll.backward()
    assert max(p.grad.abs().max().item() for p in mechanism.parameters()) < 1e-6


def network_fit(graph, x):
    """Least squares of the basis on cells of one condition."""
    s = accumulate([(expand(x), np.zeros(len(x), dtype=int))], n_conditions=1, n_genes=4 * D)
    return fit_graph(graph, s, columns=4)


def test_a_network_starts_from_the_fit_of_the_basis():
    """Exactly, where a gene has as many units as its parents have bends."""
    graph = np.zeros((D, D), dtype=bool)
    graph[[0, 1, 3], [1, 2, 2]] = True  # at most two parents: six bends, eight units
    x = np.random.default_rng(0).normal(size=(300, D))
    x[:, 2] += np.tanh(2 * x[:, 1])
    fit, mechanism = network_fit(graph, x), NetworkMechanism(D)
    mechanism.warm_start(torch.as_tensor(graph), fit)
    expected = expand(x) @ fit.weight + fit.intercept
    np.testing.assert_allclose(mechanism(torch.as_tensor(x)).detach(), expected, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(mechanism.variance.detach(), fit.variance)


def test_another_graph_keeps_what_it_shares_with_the_one_before(random_parameters):
    mechanism, x = (
        NetworkMechanism(D),
        torch.randn(20, D, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),
    )
    graph = torch.zeros(D, D, dtype=torch.bool)
    graph[[0, 1, 2, 0, 3], [4, 4, 4, 1, 2]] = True
    mechanism.set_graph(graph)
    random_parameters(mechanism, 0)
    before = mechanism(x)
    smaller = graph.clone()
    smaller[1, 4] = False
    mechanism.set_graph(smaller)
    after = mechanism(x)
    keep = [0, 1, 2, 3]
    assert (after[:, keep] == before[:, keep]).all()
    assert (after[:, 4] != before[:, 4]).all()
    # as if the parent had always been 0
    mechanism.set_graph(graph)
    muted = x.clone()
    muted[:, 1] = 0
    torch.testing.assert_close(mechanism(x)[:, 4], after[:, 4])
    torch.testing.assert_close(mechanism(muted)[:, 4], after[:, 4])


def test_pruning_drops_weak_edges_alone(random_parameters):
    mechanism, x = (
        NetworkMechanism(D),
        torch.randn(500, D, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),
    )
    graph = torch.ones(D, D).triu(1).bool()
    mechanism.set_graph(graph)
    random_parameters(mechanism, 0)
    with torch.no_grad():
        mechanism.skip[4, 2], mechanism.inner[4, 2] = 1e-3, 1e-3
    weak = mechanism.strength(x, n_permutations=1) < 0.003
    assert weak[2, 4]
    mechanism.prune(x)
    assert (mechanism.graph == (graph & ~weak)).all()


def test_gathering_parents_costs_what_the_edges_do():
    """Twice the genes with as many parents each: twice the numbers, not four times."""
    sizes = []
    for d in (50, 100):
        mechanism, graph = NetworkMechanism(d), torch.zeros(d, d, dtype=torch.bool)
        graph[torch.arange(d - 1), torch.arange(1, d)] = True
        mechanism.set_graph(graph)
        sizes.append(sum(p.numel() for p in mechanism.parameters()))
    assert sizes[1] == 2 * sizes[0]
