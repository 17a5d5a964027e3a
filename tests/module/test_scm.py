from __future__ import annotations

import numpy as np
import pytest
import torch

from scgim.module import MECHANISMS, Action, LinearMechanism, abduct, counterfactual, draw_noise, propagate
from scgim.structure import ancestors, levels

D = 6


def build(name, seed, random_parameters, random_graph, take_graph):
    mechanism, graph = MECHANISMS[name](D), random_graph(np.random.default_rng(seed), D)
    take_graph(mechanism, graph)
    random_parameters(mechanism, seed)
    mechanism.requires_grad_(False)
    return mechanism, [torch.as_tensor(level) for level in levels(graph)], graph


@pytest.fixture(params=[(name, seed) for name in MECHANISMS for seed in range(3)], ids=lambda p: f"{p[0]}-{p[1]}")
def scm(request, random_parameters, random_graph, take_graph):
    return build(*request.param, random_parameters, random_graph, take_graph)


@pytest.fixture(params=range(4))
def linear(request, random_parameters, random_graph, take_graph):
    return build("linear", request.param, random_parameters, random_graph, take_graph)


@pytest.fixture
def cells():
    return torch.as_tensor(np.random.default_rng(1).normal(size=(30, D)))


def run(verb, mechanism, depth, x, *, fixed=None, **action):
    """Propagate or counterfactual, the parts of the action by name."""
    return verb(mechanism, depth, x, Action(**action), fixed=fixed)


def solve(mechanism: LinearMechanism, eps: torch.Tensor, *, add=0.0, keep=1.0, noise=1.0, fixed=None):
    """``x (I - W G) = b g + psi + s eps``, with the columns of fixed genes cut."""
    keep = torch.as_tensor(keep, dtype=torch.float64).expand(D)
    w, right = (mechanism.coefficients * keep).numpy(), (eps * noise + add + mechanism.bias * keep).numpy()
    for j, value in (fixed or {}).items():
        w[:, j], right[:, j] = 0, value
    return torch.as_tensor(np.linalg.solve((np.eye(D) - w).T, right.T).T)


HALF = torch.tensor([1.0, 0.2, 0.0, 0.7, 1.0, 0.0], dtype=torch.float64)
CHANGES = [
    pytest.param({}, id="none"),
    pytest.param({"add": 0.5}, id="shift-all"),
    pytest.param({"add": torch.tensor([0.0, 3.0, 0.0, 0.0, -1.0, 0.0], dtype=torch.float64)}, id="shift"),
    pytest.param({"add": torch.arange(30.0, dtype=torch.float64)[:, None]}, id="shift-by-cell"),
    pytest.param({"fixed": {2: -1.5}}, id="set"),
    pytest.param({"fixed": {0: 0.0, 3: 2.0, 5: 1.0}}, id="set-three"),
    pytest.param({"fixed": dict.fromkeys(range(D), 1.0)}, id="set-all"),
    pytest.param({"add": 1.0, "fixed": {1: 4.0}}, id="both"),
    pytest.param({"add": 2.0, "keep": HALF}, id="mixed"),
    pytest.param({"add": 2.0, "keep": HALF.round(), "noise": 0.3}, id="hard"),
    pytest.param({"noise": 2.0 - HALF, "fixed": {1: 4.0}}, id="scaled"),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_linear_system_is_solved(linear, cells, change):
    mechanism, depth, _ = linear
    torch.testing.assert_close(run(propagate, mechanism, depth, cells, **change), solve(mechanism, cells, **change))


@pytest.mark.parametrize("change", CHANGES)
def test_cells_obey_their_equations(scm, cells, change):
    mechanism, depth, _ = scm
    x = run(propagate, mechanism, depth, cells, **change)
    free = [j for j in range(D) if j not in change.get("fixed", {})]
    expected = change.get("keep", 1.0) * mechanism(x) + change.get("add", 0.0) + change.get("noise", 1.0) * cells
    torch.testing.assert_close(x[:, free], expected[:, free])
    for j, value in change.get("fixed", {}).items():
        assert (x[:, j] == value).all()


def test_abduction_and_propagation_undo_each_other(scm, cells):
    mechanism, depth, _ = scm
    torch.testing.assert_close(propagate(mechanism, depth, abduct(mechanism, cells)), cells)
    torch.testing.assert_close(abduct(mechanism, propagate(mechanism, depth, cells)), cells)


def test_a_counterfactual_without_change_is_the_cell_itself(scm, cells):
    mechanism, depth, _ = scm
    torch.testing.assert_close(counterfactual(mechanism, depth, cells), cells)
    torch.testing.assert_close(run(counterfactual, mechanism, depth, cells, add=torch.zeros(D), fixed={}), cells)
    same = {j: cells[0, j].item() for j in range(D)}
    torch.testing.assert_close(counterfactual(mechanism, depth, cells[:1], fixed=same), cells[:1])


@pytest.mark.parametrize("gene", range(D))
@pytest.mark.parametrize("kind", ["shift", "set"])
def test_only_descendants_move(scm, cells, gene, kind):
    mechanism, depth, graph = scm
    change = {"fixed": {gene: 7.0}} if kind == "set" else {"add": 7.0 * torch.eye(D, dtype=torch.float64)[gene]}
    moved = (run(counterfactual, mechanism, depth, cells, **change) - cells).abs() > 1e-9
    reached = ancestors(graph)[gene]
    reached[gene] = True
    assert not moved[:, ~reached].any()
    assert moved[:, gene].all()
    # generic coefficients cancel along no path, but a unit may be saturated
    assert moved[:, reached].all() if mechanism.affine else moved[:, reached].any(0).all()


def test_a_set_gene_no_longer_listens(scm, cells):
    mechanism, depth, _ = scm
    for gene in range(D):
        far = run(propagate, mechanism, depth, cells, add=50.0, fixed={gene: 1.0})
        assert (far[:, gene] == 1).all()


def test_a_linear_counterfactual_moves_all_cells_alike_and_adds_up(linear, cells):
    mechanism, depth, _ = linear
    a, b = torch.as_tensor(np.random.default_rng(0).normal(size=(2, D)))
    change = lambda shift: run(counterfactual, mechanism, depth, cells, add=shift) - cells
    total = torch.linalg.inv(torch.eye(D) - mechanism.coefficients)
    torch.testing.assert_close(change(a), (a @ total).expand_as(cells))
    torch.testing.assert_close(change(a) + change(2 * b), change(a + 2 * b))


def test_inputs_are_left_alone(scm, cells):
    mechanism, depth, _ = scm
    before, shift = cells.clone(), torch.zeros(30, D, dtype=torch.float64)
    propagate(mechanism, depth, cells, fixed={0: 9.0})
    run(propagate, mechanism, depth, cells, add=shift, keep=shift, fixed={0: 9.0})
    counterfactual(mechanism, depth, cells, fixed={1: 9.0})
    assert (cells == before).all()
    assert not shift.any()


def test_one_noise_serves_many_shifts(linear):
    mechanism, depth, _ = linear
    noise, shift = torch.zeros(1, D, dtype=torch.float64), torch.eye(D, dtype=torch.float64)
    together = run(propagate, mechanism, depth, noise, add=shift)
    apart = [run(propagate, mechanism, depth, noise, add=row) for row in shift]
    torch.testing.assert_close(together, torch.cat(apart))


def test_drawn_noise_has_the_mechanisms_sd_and_nothing_else(scm):
    mechanism, *_ = scm
    noise = draw_noise(mechanism, 50_000, torch.Generator().manual_seed(0))
    sd = mechanism.variance.sqrt()
    torch.testing.assert_close(noise.std(0), sd, rtol=0.02, atol=0)
    assert (noise.mean(0).abs() < 0.02 * sd).all()
    off_diagonal = torch.corrcoef(noise.T) - torch.eye(D, dtype=noise.dtype)
    assert off_diagonal.abs().max() < 0.02
    assert ((noise / sd) ** 4).mean().item() == pytest.approx(3, abs=0.1)


def test_noise_is_the_seeds_and_leaves_the_global_state_alone(scm):
    mechanism, *_ = scm
    before = torch.get_rng_state()
    a, b, c = (draw_noise(mechanism, 5, torch.Generator().manual_seed(s)) for s in (3, 3, 4))
    assert (a == b).all()
    assert not (a == c).any()
    assert (torch.get_rng_state() == before).all()


def test_fresh_cells_have_the_implied_covariance(linear):
    mechanism, depth, _ = linear
    x = propagate(mechanism, depth, draw_noise(mechanism, 200_000, torch.Generator().manual_seed(0)))
    total = torch.linalg.inv(torch.eye(D) - mechanism.coefficients)
    implied = total.T @ torch.diag(mechanism.variance) @ total
    scale = implied.diagonal().sqrt()
    torch.testing.assert_close(
        torch.cov(x.T) / torch.outer(scale, scale), implied / torch.outer(scale, scale), rtol=0, atol=0.02
    )
    assert ((x.mean(0) - mechanism.bias @ total).abs() < 0.02 * scale).all()
