from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import torch
from torch import nn

from scgim.module import GENERATORS, INTERVENTIONS, GIMModule, MeasuredConditions, Moments, TreatmentInputs
from scgim.statistics import accumulate, expand
from scgim.structure.gradient import RELAXATIONS, break_cycles, descend_dag, log_det
from scgim.structure.gradient.descent import preselect
from scgim.structure.gradient.residuals import Columns

BOTH = pytest.mark.parametrize("orientation", list(RELAXATIONS))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Likelihood(nn.Module):
    """The exact likelihood with a generator that knows every condition by name."""

    def __init__(self, statistics, columns=1, intervention="shift"):
        super().__init__()
        k, d = len(statistics.n) - 1, statistics.mean.shape[1] // columns
        baseline = INTERVENTIONS[intervention].baseline
        generator = GENERATORS["identity"](0, d, n_drugs=k, dosed=False, baseline=baseline)
        self.module = GIMModule(d, generator, intervention=intervention)
        there = TreatmentInputs(
            torch.zeros(k, 0).double(), torch.arange(k), torch.zeros(k).double(), torch.zeros(k).long()
        )
        mean, spread = statistics.mean[1:, ::columns], (statistics.squares[1:] / statistics.n[1:, None])[:, ::columns]
        n = torch.as_tensor(statistics.n[1:, None])
        self.conditions = MeasuredConditions(n, torch.as_tensor(mean), torch.as_tensor(spread.copy()), there)
        self.n_cells = float(statistics.n.sum())
        names = [name for name, _ in self.named_parameters() if "mechanism" not in name]
        self.rates = dict.fromkeys(names, 0.1) | {"module.mechanism.log_sigma": 0.03}

    def forward(self, mean, within, pooled, forced):
        moments = Moments(mean, within, self.conditions.mean, self.conditions.spread, pooled)
        targets = self.module.profile_log_likelihood_ratio(self.conditions, moments).detach() > 6 if forced else None
        loss, penalty = self.module.joint_loss(self.conditions, moments, self.n_cells, targets)
        return loss, penalty, self.module.mechanism.variance


def learn(statistics, *, columns=1, intervention="shift", **options):
    likelihood = Likelihood(statistics, columns, intervention)
    *_, last = descend_dag(
        statistics, likelihood, columns=columns, **({"max_rounds": 2, "steps": 100, "graphs": 4} | options)
    )
    return last


def is_dag(graph):
    return nx.is_directed_acyclic_graph(nx.from_numpy_array(graph, create_using=nx.DiGraph))


# ---- acyclicity ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_log_det_is_zero_without_a_cycle_and_positive_with_one(seed):
    rng = np.random.default_rng(seed)
    rank = rng.permutation(7)
    gates = rng.uniform(0, 1, (7, 7)) * (rank[:, None] < rank)
    assert float(log_det(torch.as_tensor(gates))) == pytest.approx(0, abs=1e-13)
    last, first = rank.argmax(), rank.argmin()
    gates[first, last], gates[last, first] = 0.5, 1e-3
    assert float(log_det(torch.as_tensor(gates))) > 1e-6


def test_log_det_is_the_sum_over_cycles():
    gates, s = torch.rand(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64), 6.0
    power, total = torch.eye(5, dtype=torch.float64), 0.0
    for k in range(1, 400):
        power = power @ gates / s
        total += float(power.trace()) / k
    assert float(log_det(gates, s)) == pytest.approx(total, rel=1e-9)


def test_log_det_gradient():
    gates = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a: log_det(a, 5.0), gates)


def test_break_cycles_keeps_the_strongest():
    weight = np.array([[0, 3.0, 0.5], [1.0, 0, 2.0], [2.5, 0, 0]])
    assert np.argwhere(break_cycles(weight)).tolist() == [[0, 1], [2, 0]]
    required = np.zeros((3, 3), dtype=bool)
    required[1, 2] = True
    assert np.argwhere(break_cycles(weight, required)).tolist() == [[0, 1], [0, 2], [1, 2]]


@pytest.mark.parametrize("seed", range(5))
def test_break_cycles_is_acyclic_and_maximal(seed):
    weight = np.random.default_rng(seed).uniform(0, 1, (8, 8)) * (1 - np.eye(8))
    graph = break_cycles(weight)
    assert is_dag(graph)
    for i, j in np.argwhere(~graph & ~np.eye(8, dtype=bool)):
        more = graph.copy()
        more[i, j] = True
        assert not is_dag(more)


# ---- relaxations -----------------------------------------------------------------------------------------------------


def relax(orientation, d=6, many=3, allowed=None, required=None, seed=0):
    allowed = ~torch.eye(d, dtype=torch.bool) if allowed is None else allowed
    required = torch.zeros(d, d, dtype=torch.bool) if required is None else required
    start = torch.as_tensor(np.random.default_rng(seed).normal(size=(many, d)))
    return RELAXATIONS[orientation](start, allowed, required, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", range(5))
def test_smooth_orientation_of_distinct_priorities_is_acyclic(seed):
    relaxed = relax("smooth", seed=seed)
    for graph in relaxed.hard():
        assert is_dag(graph.numpy())
        assert int(graph.sum()) == 15
    # while it is warm, the two directions of a pair share one edge
    gates = relaxed.gates(0.5)
    torch.testing.assert_close((gates + gates.mT)[:, 0, 1:], torch.ones(3, 5, dtype=torch.float64))
    cold = relaxed.gates(1.0)
    assert ((cold > 0.5) == relaxed.hard()).all()


@BOTH
def test_gates_obey_what_is_known(orientation):
    allowed, required = ~torch.eye(6, dtype=torch.bool), torch.zeros(6, 6, dtype=torch.bool)
    allowed[2, 4], required[0, 1] = False, True
    relaxed = relax(orientation, allowed=allowed, required=required)
    for gates in (relaxed.gates(0.0), relaxed.gates(0.9), relaxed.hard()):
        assert (gates[:, 2, 4] == 0).all()
        assert (gates[:, 0, 1] == 1).all()
        assert (gates.diagonal(dim1=1, dim2=2) == 0).all()
        assert ((gates >= 0) & (gates <= 1)).all()


def test_the_price_of_cycles_rises_until_there_are_none():
    relaxed = relax("gumbel", d=3, many=2)
    with torch.no_grad():
        relaxed.parameter.fill_(1.0)
        relaxed.parameter[1].triu_().sub_(0.5)  # this graph has no likely cycle
    prices = []
    for _ in range(3):
        relaxed.cycles()
        prices.append(relaxed.price.tolist())
    assert prices[0][0] < prices[1][0] < prices[2][0]
    assert [price[1] for price in prices] == [0.0, 0.0, 0.0]
    with torch.no_grad():
        relaxed.parameter[0] = relaxed.parameter[1]
    assert relaxed.cycles()[0] > 0  # it stays, and is not forgotten
    assert relaxed.price[0] == prices[2][0]


# ---- residuals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [1, 4])
@pytest.mark.parametrize("own", [False, True])
def test_residuals_are_those_of_the_cells(screen, columns, own):
    cells = screen(0, d=3)
    data = Columns(cells.statistics_of(columns=columns, own=own), columns)
    parents = torch.tensor([[1, 2], [0, 2], [0, 1]])
    data.gather(parents)
    weight = torch.randn(2, 3, 2 * columns, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bias = torch.tensor([[0.1, -0.2, 0.3], [0.0, 1.0, 0.5]], dtype=torch.float64)
    found = data.residuals(weight, bias, torch.zeros(2, 3, dtype=torch.float64))
    raw = cells.x if columns == 1 else expand(cells.x)
    z = (raw - raw[cells.code == 0].mean(0)) @ data.turn
    x = cells.x - cells.x[cells.code == 0].mean(0)
    for g in range(2):
        for j, of in enumerate(parents.tolist()):
            inputs = np.concatenate([z[:, i * columns : (i + 1) * columns] for i in of], axis=1)
            r = x[:, j] - inputs @ weight[g, j].numpy() - bias[g, j].numpy()
            mean = np.array([r[cells.code == k].mean() for k in range(8)])
            var = np.array([r[cells.code == k].var() for k in range(8)])
            n = np.bincount(cells.code)
            np.testing.assert_allclose(found.mean[g, :, j], mean[1:], atol=1e-9)
            np.testing.assert_allclose(found.within[g, :, j], var[1:] if own else 0 * var[1:], atol=1e-9)
            pooled = n[0] * (mean[0] ** 2 + var[0]) if own else (n * var).sum() + n[0] * mean[0] ** 2
            assert float(found.pooled[g, j]) == pytest.approx(pooled)


@pytest.mark.parametrize("columns", [1, 4])
def test_columns_are_white_within_contexts(screen, columns):
    data = Columns(screen(1).statistics_of(columns=columns), columns)
    for at in range(0, 6 * columns, columns):
        block = data.scatter[at : at + columns, at : at + columns] / (data.cells - len(data.n))
        np.testing.assert_allclose(block, np.eye(columns), atol=1e-3)


def test_preselection_finds_the_neighbors(screen):
    cells = screen(3)
    data = Columns(cells.statistics, 1)
    _, near = preselect(data, ~np.eye(6, dtype=bool), price=9.0)
    assert near[cells.graph].all()
    assert (near == near.T).all()
    forbidden = ~np.eye(6, dtype=bool)
    forbidden[cells.graph | cells.graph.T] = False
    assert not (preselect(data, forbidden, price=9.0)[0].numpy()[:, 0] * ~forbidden).any()


# ---- descent ---------------------------------------------------------------------------------------------------------

SIZES = (400, *[30] * 40)


@BOTH
@pytest.mark.parametrize(("columns", "hard"), [(1, False), (1, True), (4, False)], ids=["linear", "hard", "basis"])
def test_finds_a_small_graph(screen, orientation, columns, hard):
    cells = screen(5, d=5, density=0.5, sizes=SIZES, hard=hard)
    statistics = cells.statistics_of(columns=columns, own=hard)
    last = learn(statistics, columns=columns, intervention="hard" if hard else "shift", orientation=orientation)
    assert np.argwhere(last.graph).tolist() == np.argwhere(cells.graph).tolist()


@BOTH
def test_random_data_give_a_dag_and_the_loss_only_falls(orientation):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 8)) @ rng.normal(size=(8, 8))
    statistics = accumulate([(x / x.std(0), np.repeat(np.arange(6), 50))], n_conditions=6, n_genes=8)
    states = list(descend_dag(statistics, Likelihood(statistics), orientation=orientation, max_rounds=2, steps=40))
    assert len(states) == 3
    assert all(is_dag(state.graph) for state in states)
    assert all(np.isfinite(state.score) for state in states)
    assert (np.diff([state.score for state in states]) <= 0).all()


@BOTH
def test_obeys_what_is_known(screen, orientation):
    cells = screen(7, d=5, sizes=SIZES)
    edges = np.argwhere(cells.graph)
    allowed, required = np.ones((5, 5), dtype=bool), np.zeros((5, 5), dtype=bool)
    allowed[tuple(edges[0])] = False
    required[tuple(edges[1][::-1])] = True  # against the truth
    last = learn(cells.statistics, orientation=orientation, allowed=allowed, required=required, max_rounds=1, steps=60)
    assert not last.graph[tuple(edges[0])]
    assert last.graph[tuple(edges[1][::-1])]
    assert is_dag(last.graph)


def test_nothing_is_allowed(screen):
    cells = screen(0)
    states = list(
        descend_dag(cells.statistics, Likelihood(cells.statistics), allowed=np.zeros((6, 6), dtype=bool), steps=10)
    )
    assert len(states) == 1
    assert not states[0].graph.any()


@BOTH
def test_same_seed_same_bits(screen, orientation):
    statistics = screen(2).statistics
    state = torch.get_rng_state()
    one, two, other = (
        learn(statistics, orientation=orientation, max_rounds=1, steps=15, seed=seed) for seed in (0, 0, 1)
    )
    assert torch.equal(state, torch.get_rng_state())
    np.testing.assert_array_equal(one.graph, two.graph)
    assert one.score == two.score
    assert one.score != other.score


def test_the_likelihood_is_left_as_it_was(screen):
    statistics = screen(2).statistics
    likelihood = Likelihood(statistics)
    before = {name: value.clone() for name, value in likelihood.state_dict().items()}
    next(descend_dag(statistics, likelihood, steps=10))
    assert all(torch.equal(before[name], value) for name, value in likelihood.state_dict().items())


def test_patience_ends_it(screen):
    statistics = screen(2).statistics
    states = list(descend_dag(statistics, Likelihood(statistics), patience=2, steps=8, graphs=2, max_rounds=50))
    score = np.array([state.score for state in states])
    assert len(states) < 51
    assert score[-3] - score[-1] < 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"orientation": "smoth"}, "orientation='smoth' does not exist. Did you mean 'smooth'", id="name"),
        pytest.param({"required": np.ones((6, 6), dtype=bool)}, "cycle", id="cycle"),
        pytest.param({"allowed": np.ones((3, 3), dtype=bool)}, r"allowed has shape \(3, 3\)", id="shape"),
    ],
)
def test_refusals(screen, options, message):
    statistics = screen(0).statistics
    with pytest.raises(ValueError, match=message):
        next(descend_dag(statistics, Likelihood(statistics), **options))
