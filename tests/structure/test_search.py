from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import combinations, islice, product

import networkx as nx
import numpy as np
import pytest

from scgim.metrics import shd
from scgim.statistics import SufficientStatistics, accumulate
from scgim.structure import fit_graph, search_dag
from scgim.structure.candidates import make_slots, neighbors
from scgim.structure.kernels import MAX_PARENTS, perturb
from scgim.structure.score import score_data
from scgim.structure.search import _Climber


def acyclic(graph: np.ndarray) -> bool:
    return nx.is_directed_acyclic_graph(nx.from_numpy_array(graph.astype(int), create_using=nx.DiGraph))


def final(statistics: SufficientStatistics, **options):
    *_, last = search_dag(statistics, **options)
    return last


@cache
def all_dags(d: int) -> list[np.ndarray]:
    pairs = list(combinations(range(d), 2))
    dags = []
    for kinds in product(("none", "forward", "backward"), repeat=len(pairs)):
        graph = np.zeros((d, d), dtype=bool)
        for (i, j), kind in zip(pairs, kinds, strict=True):
            graph[i, j], graph[j, i] = kind == "forward", kind == "backward"
        if acyclic(graph):
            dags.append(graph)
    return dags


def test_the_enumeration_counts_the_labelled_dags():
    assert [len(all_dags(d)) for d in (1, 2, 3, 4)] == [1, 3, 25, 543]


@pytest.mark.parametrize("density", [0.5, 1.0])
@pytest.mark.parametrize("seed", range(6))
def test_no_dag_of_four_genes_scores_better(screen, score, seed, density):
    s = screen(seed, d=4, density=density).statistics
    assert final(s).score == pytest.approx(min(score(g, s) for g in all_dags(4)), abs=1e-5)


@pytest.mark.parametrize(("target_penalty", "penalty"), [(1.0, 0.2), (20.0, 2.0), (6.0, 8.0)])
def test_no_dag_of_four_genes_scores_better_whatever_edges_and_targets_cost(screen, score, target_penalty, penalty):
    options = {"target_penalty": target_penalty, "penalty": penalty}
    s = screen(0, d=4, density=1.0).statistics
    assert final(s, **options).score == pytest.approx(min(score(g, s, **options) for g in all_dags(4)), abs=1e-5)


SCREENS = [
    pytest.param({"graph": kind, "degree": degree, "seed": seed}, id=f"{kind}-{degree}-{seed}")
    for kind, degree, seeds in [("er", 2, range(3)), ("er", 4, range(2)), ("sf", 2, range(2)), ("sf", 4, range(4))]
    for seed in seeds
]


@pytest.mark.parametrize("options", SCREENS)
def test_no_worse_than_the_true_graph_and_never_cyclic(simulated, score, options):
    screen = simulated(**options)
    s = screen.statistics
    states = list(search_dag(s))
    assert states[-1].score <= score(screen.graph, s) + 1e-5
    assert shd(states[-1].graph, screen.graph) <= 1
    assert all(acyclic(state.graph) for state in states)
    assert (np.diff([state.score for state in states]) <= 0).all()


@pytest.mark.parametrize(
    ("mechanism", "intervention", "bound"),
    [
        pytest.param("linear", "hard", 1, id="linear-hard"),
        pytest.param("network", "shift", 3, id="network-shift"),
        pytest.param("network", "hard", 3, id="network-hard"),
    ],
)
def test_the_other_scores_find_the_graph_too(simulated, score, mechanism, intervention, bound):
    screen = simulated(mechanism=mechanism, intervention=intervention, seed=1)
    options = {"columns": 4 if mechanism == "network" else 1, "intervention": intervention}
    s = screen.statistics_of(columns=options["columns"], own=intervention == "hard")
    last = final(s, **options)
    assert last.score <= score(screen.graph, s, **options) + 1e-5
    assert last.score == pytest.approx(score(last.graph, s, **options), abs=1e-5)
    # sums over parents cannot say what a network of several says, so that some edges come on top
    extra = last.graph & ~screen.graph & ~screen.graph.T
    assert shd(last.graph, screen.graph) <= bound + (extra.sum() if mechanism == "network" else 0)
    assert not (screen.graph & ~last.graph & ~last.graph.T).any()


@pytest.mark.parametrize(("target_penalty", "intervention"), [(6.0, "hard"), (6.0, "shift"), (2.0, "hard")])
def test_no_dag_of_four_genes_scores_better_by_columns_of_a_basis(screen, score, target_penalty, intervention):
    options = {"columns": 4, "target_penalty": target_penalty, "intervention": intervention}
    s = screen(1, d=4, density=1.0, hard=intervention == "hard").statistics_of(columns=4, own=True)
    assert final(s, **options).score == pytest.approx(min(score(g, s, **options) for g in all_dags(4)), abs=1e-5)


@pytest.mark.parametrize("sizes", [(10, 90), (50, 50)])
def test_unequal_contexts_and_few_controls(simulated, score, sizes):
    screen = simulated(n_cells=sizes, n_control=40, seed=3)
    last = final(screen.statistics)
    assert last.score <= score(screen.graph, screen.statistics) + 1e-5
    assert shd(last.graph, screen.graph) <= 2


@pytest.mark.parametrize("seed", range(5))
def test_the_states_describe_themselves(screen, score, seed):
    s = screen(seed, d=8).statistics
    states = list(search_dag(s, seed=seed))
    assert [state.rounds for state in states] == list(range(len(states)))
    assert all(state.score == pytest.approx(score(state.graph, s), abs=1e-6) for state in states)
    assert all(acyclic(state.graph) for state in states)
    assert (np.diff([state.score for state in states]) <= 0).all()


def test_earlier_states_are_not_overwritten(screen):
    search = search_dag(screen(0, d=8).statistics)
    first = next(search)
    kept = first.graph.copy()
    list(search)
    np.testing.assert_array_equal(first.graph, kept)


@pytest.mark.parametrize("seed", [0, 7])
def test_the_same_seed_gives_the_same_answer(screen, seed):
    s = screen(1, d=8).statistics
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    a, b = (list(search_dag(s, seed=seed)) for _ in range(2))
    assert [x.score for x in a] == [x.score for x in b]
    assert all((x.graph == y.graph).all() for x, y in zip(a, b, strict=True))
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_stopping_early_and_going_on(screen):
    s = screen(2, d=9, density=0.6).statistics
    half = list(islice(search_dag(s), 2))[-1]
    before = half.graph.copy()
    rest = list(search_dag(s, start=half.graph, seed=1))
    assert rest[0].score <= half.score
    assert rest[-1].score == pytest.approx(final(s).score, abs=1e-5)
    np.testing.assert_array_equal(half.graph, before)


def test_a_finished_search_has_nothing_left_to_climb(screen):
    s = screen(2, d=9).statistics
    last = final(s)
    again = final(s, start=last.graph, max_rounds=0)
    np.testing.assert_array_equal(again.graph, last.graph)
    assert again.score == pytest.approx(last.score, abs=1e-9)
    assert again.rounds == 0


def test_any_acyclic_start_leads_to_the_same_score(screen):
    s = screen(3).statistics
    best, complete = final(s).score, np.triu(np.ones((6, 6), dtype=bool), 1)
    for start in (complete, complete.T, np.asfortranarray(complete), complete.astype(int), np.eye(6, k=1) * 0.2):
        assert final(s, start=start).score == pytest.approx(best, abs=1e-5)


def test_a_cyclic_start_is_refused(screen):
    with pytest.raises(ValueError, match="cycle"):
        next(search_dag(screen(0).statistics, start=np.roll(np.eye(6), 1, axis=1)))


def test_a_climb_turns_an_edge_that_shifts_prove_wrong():
    rng, code = np.random.default_rng(0), np.repeat(np.arange(4), [300, 50, 80, 60])
    x = rng.normal(size=(len(code), 2))
    x[:, 1] += x[:, 0] + np.array([0, 3, -4, 5])[code]
    s = accumulate([(x, code)], n_conditions=4, n_genes=2)
    first = next(search_dag(s, start=np.array([[0, 0], [1, 0]])))
    assert np.argwhere(first.graph).tolist() == [[0, 1]]


def test_rounds_and_patience_end_the_search(screen):
    s = screen(0, d=8).statistics
    assert [state.rounds for state in search_dag(s, max_rounds=3)] == [0, 1, 2, 3]
    states = list(search_dag(s, patience=2))
    assert len({state.score for state in states[-3:]}) == 1
    assert states[-1].rounds < 200


@pytest.mark.parametrize("seed", range(4))
def test_the_units_of_genes_change_no_edge(screen, in_control_sd, seed):
    x, code, *_ = screen(seed, d=8)
    rng = np.random.default_rng(seed)
    other = x * 10 ** rng.uniform(-4, 4, 8) * rng.choice([-1, 1], 8) + 10 ** rng.uniform(-2, 2, 8)
    a = final(accumulate([(x, code)], n_conditions=8, n_genes=8))
    b = final(accumulate([(in_control_sd(other, code), code)], n_conditions=8, n_genes=8))
    np.testing.assert_array_equal(a.graph, b.graph)
    assert a.score == pytest.approx(b.score, abs=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_the_order_of_genes_changes_no_edge(screen, seed):
    x, code, *_ = screen(seed, d=8)
    to = np.random.default_rng(seed).permutation(8)
    a, b = (final(accumulate([(y, code)], n_conditions=8, n_genes=8)) for y in (x, x[:, to]))
    assert a.score == pytest.approx(b.score, abs=1e-5)
    np.testing.assert_array_equal(a.graph[np.ix_(to, to)], b.graph)


@pytest.mark.parametrize("seed", range(4))
def test_neither_the_order_of_cells_nor_that_of_treated_contexts_changes_an_edge(screen, seed):
    x, code, *_ = screen(seed, d=8)
    rng = np.random.default_rng(seed)
    rows, name = rng.permutation(len(x)), np.r_[0, 1 + rng.permutation(7)]
    a, b = (
        final(accumulate([(x[r], c[r])], n_conditions=8, n_genes=8))
        for r, c in ((slice(None), code), (rows, name[code]))
    )
    np.testing.assert_array_equal(a.graph, b.graph)


@pytest.mark.parametrize("seed", range(6))
def test_shifts_of_unrelated_genes_make_no_edges(seed):
    """Genes that every drug moves together are correlated over all cells, but nowhere within a condition."""
    rng = np.random.default_rng(seed)
    code = np.repeat(np.arange(11), [400, *rng.integers(20, 90, 10)])
    strength = np.r_[0, rng.uniform(2, 6, 10) * rng.choice([-1, 1], 10)]
    x = rng.normal(size=(len(code), 5)) + strength[code][:, None] * np.array([1, -1, 2, 1, 0])
    assert np.abs(np.corrcoef(x.T)[:4, :4]).min() > 0.5
    assert not final(accumulate([(x, code)], n_conditions=11, n_genes=5)).graph.any()


@pytest.mark.parametrize("seed", range(5))
def test_how_far_a_target_is_shifted_changes_no_edge(screen, seed):
    x, code, graph, *_ = screen(seed)
    sink = np.flatnonzero(~graph.any(1))[0]
    target = fit_graph(graph, screen(seed).statistics).moved[:, sink]
    assert target.any()
    y = x.copy()
    y[:, sink] += 20 * target[code]
    a, b = (final(accumulate([(z, code)], n_conditions=8, n_genes=6)) for z in (x, y))
    np.testing.assert_array_equal(a.graph, b.graph)


@pytest.mark.parametrize("n_genes", [1, 2])
def test_noise_gives_the_empty_graph(n_genes):
    x = np.random.default_rng(0).normal(size=(500, n_genes))
    states = list(search_dag(accumulate([(x, np.arange(500) % 3)], n_conditions=3, n_genes=n_genes)))
    assert not states[-1].graph.any()
    assert states[-1].rounds == 1  # nothing to loosen


def test_controls_alone_are_enough():
    x = np.random.default_rng(0).normal(size=(800, 3))
    x[:, 2] += x[:, 0] + x[:, 1]
    last = final(accumulate([(x, np.zeros(800, dtype=int))], n_conditions=1, n_genes=3))
    assert np.argwhere(last.graph).tolist() == [[0, 2], [1, 2]]


def test_a_gene_takes_no_more_parents_than_allowed():
    d = MAX_PARENTS + 6
    x = np.random.default_rng(0).normal(size=(3000, d))
    x[:, 0] = x[:, 1:].sum(1) + 0.1 * x[:, 0]
    s = accumulate([(x / x.std(0), np.zeros(3000, dtype=int))], n_conditions=1, n_genes=d)
    states = list(search_dag(s, max_rounds=2))
    assert all(state.graph.sum(0).max() <= MAX_PARENTS for state in states)
    assert states[-1].graph[:, 0].sum() == MAX_PARENTS


@pytest.mark.parametrize("columns", [1, 4])
@pytest.mark.parametrize("intervention", ["shift", "hard"])
def test_the_number_of_threads_changes_no_bit(screen, columns, intervention):
    s = screen(0, d=12, hard=intervention == "hard").statistics_of(columns=columns, own=intervention == "hard")
    options = {"columns": columns, "intervention": intervention, "max_rounds": 6}
    one, *others = (list(search_dag(s, threads=threads, **options)) for threads in (1, 2, 4))
    for other in others:
        assert [a.score for a in one] == [b.score for b in other]
        assert all((a.graph == b.graph).all() for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(("columns", "intervention"), [(1, "shift"), (1, "hard"), (4, "shift"), (4, "hard")])
def test_gains_are_what_toggling_an_edge_would_change(screen, score, columns, intervention):
    """The score is a sum over genes, so that any way of toggling edges telescopes."""
    drawn = screen(1, hard=intervention == "hard")
    s = drawn.statistics_of(columns=columns, own=intervention == "hard")
    options = {"columns": columns, "intervention": intervention}
    off = np.zeros((6, 6), dtype=bool)
    slots = make_slots(~np.eye(6, dtype=bool), off)
    climber = _Climber(slots, score_data(s, **options), drawn.graph, ThreadPoolExecutor(1))
    graph, before = climber.state(0, {}).graph, climber.state(0, {}).score
    assert before == pytest.approx(score(graph, s, **options), abs=1e-6)
    for e, (i, j) in enumerate(zip(slots.source, climber.target, strict=True)):
        toggled = graph.copy()
        toggled[i, j] ^= True
        assert climber.gain[e] == pytest.approx(score(toggled, s, **options) - before, abs=1e-6)


# ---- what is known beforehand ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_masks_are_obeyed(screen, score, seed):
    rng, s = np.random.default_rng(seed), screen(seed % 4, d=8, density=0.5).statistics
    required = np.triu(rng.random((8, 8)) < rng.uniform(0, 0.4), 1)[np.ix_(*[rng.permutation(8)] * 2)]
    allowed = (rng.random((8, 8)) < rng.uniform(0.2, 1)) | required
    for state in search_dag(s, allowed=allowed, required=required, patience=5, seed=seed):
        assert acyclic(state.graph)
        assert not (state.graph & ~allowed).any()
        assert not (required & ~state.graph).any()
        assert state.score == pytest.approx(score(state.graph, s), abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_no_dag_of_four_genes_that_obeys_scores_better(screen, score, seed):
    rng, s = np.random.default_rng(seed), screen(seed, d=4, density=1.0).statistics
    required = np.zeros((4, 4), dtype=bool)
    required[tuple(rng.permutation(4)[:2])] = True
    allowed = (rng.random((4, 4)) < 0.7) | required
    best = min(score(g, s) for g in all_dags(4) if not (g & ~allowed).any() and not (required & ~g).any())
    assert final(s, allowed=allowed, required=required).score == pytest.approx(best, abs=1e-5)


def test_regulators_alone_have_targets(simulated):
    screen = simulated(graph="er", degree=2, seed=0)
    rows = np.zeros((20, 20), dtype=bool)
    rows[[2, 5, 7]] = True
    graph = final(screen.statistics, allowed=rows).graph
    assert set(np.flatnonzero(graph.any(1))) <= {2, 5, 7}
    assert graph.any()


def test_a_start_gives_way_to_what_is_known(screen):
    s, start = screen(0).statistics, np.eye(6, k=1, dtype=bool)
    allowed, required = ~start, np.eye(6, k=-1, dtype=bool)
    graph = next(search_dag(s, start=start, allowed=allowed, required=required)).graph
    assert not (graph & start).any()
    assert (graph & required).sum() == 5


@pytest.mark.parametrize(
    ("options", "match"),
    [
        pytest.param({"required": np.roll(np.eye(6), 1, axis=1)}, "cycle", id="required-cycle"),
        pytest.param({"required": np.eye(6)}, "cycle", id="required-self"),
        pytest.param({"required": np.eye(6, k=1), "allowed": np.ones((6, 6)) - np.eye(6, k=1)}, r"\(0, 1\)", id="both"),
        pytest.param({"required": np.eye(6, k=1), "start": np.eye(6, k=-1)}, "cycle", id="against-the-start"),
        pytest.param({"allowed": np.ones((5, 6))}, r"allowed has shape \(5, 6\)", id="shape"),
    ],
)
def test_contradictions_are_refused(screen, options, match):
    with pytest.raises(ValueError, match=match):
        next(search_dag(screen(0).statistics, **options))


def test_more_parents_than_possible_are_refused():
    d = MAX_PARENTS + 2
    s = accumulate([(np.random.default_rng(0).normal(size=(300, d)), np.arange(300) % 2)], n_conditions=2, n_genes=d)
    required = np.zeros((d, d), dtype=bool)
    required[1:, 0] = True
    for name in ("required", "start"):
        with pytest.raises(ValueError, match="Gene 0 starts with 33 parents"):
            next(search_dag(s, **{name: required}))


# ---- many genes -----------------------------------------------------------------------------------------------------


def test_neighbors_contain_the_parents(simulated):
    screen = simulated(n_genes=220, n_drugs=20, n_cells=40, degree=3)
    near = neighbors(screen.statistics, 1)
    assert (near == near.T).all()
    assert near[screen.graph].mean() > 0.995
    assert near.sum() < 0.3 * 220**2
    wide = neighbors(screen.statistics_of(columns=4), 4)
    assert wide[screen.graph].mean() > 0.995


def test_many_genes_are_searched_among_neighbors(simulated, score):
    screen = simulated(n_genes=220, n_drugs=20, n_cells=40, degree=3)
    s = screen.statistics
    states = list(search_dag(s, max_rounds=30))
    assert not (states[-1].graph & ~neighbors(s, 1)).any()
    assert states[-1].score <= score(screen.graph, s) + 1e-3 * abs(score(screen.graph, s))
    assert (2 * (states[-1].graph & screen.graph).sum()) / (states[-1].graph.sum() + screen.graph.sum()) > 0.9
    assert all(acyclic(state.graph) for state in (states[0], states[-1]))


def test_fewer_cells_than_genes_are_no_trouble():
    x = np.random.default_rng(0).normal(size=(60, 230))
    s = accumulate([(x, np.arange(60) % 30)], n_conditions=30, n_genes=230)
    last = final(s, max_rounds=1)
    assert np.isfinite(last.score)
    assert acyclic(last.graph)


# ---- kicks ----------------------------------------------------------------------------------------------------------


def kicked(graph: np.ndarray, drop: np.ndarray, turn: np.ndarray, required: np.ndarray | None = None):
    """The graph and the genes touched, after a kick that drops and turns the edges of ``drop`` and ``turn``."""
    d = len(graph)
    slots = make_slots(~np.eye(d, dtype=bool), np.zeros((d, d), dtype=bool) if required is None else required)
    target = np.repeat(np.arange(d), d - 1)
    on, edges = graph[slots.source, target], np.flatnonzero(drop[slots.source, target])
    stale = np.zeros(d, dtype=bool)
    perturb(slots, on, stale, edges, turn[slots.source, target][edges])
    after = np.zeros((d, d), dtype=bool)
    after[slots.source[on], target[on]] = True
    return after, stale


def test_a_kick_does_not_exceed_the_limit_either():
    d = MAX_PARENTS + 2
    graph = np.zeros((d, d), dtype=bool)
    graph[1:-1, 0] = graph[0, -1] = True
    drop = np.zeros((d, d), dtype=bool)
    drop[0, d - 1] = True
    after, _ = kicked(graph, drop, drop)
    assert after[:, 0].sum() == MAX_PARENTS


@pytest.mark.parametrize("seed", range(20))
def test_a_kick_drops_and_turns_what_it_is_told(seed):
    rng = np.random.default_rng(seed)
    graph = np.triu(rng.random((7, 7)) < 0.5, 1)
    drop, turn, required = graph & (rng.random((3, 7, 7)) < 0.5)
    after, stale = kicked(graph, drop, turn, required)
    assert acyclic(after)
    for i, j in np.argwhere(graph):
        assert after[i, j] == (required[i, j] or not drop[i, j])
        assert not after[j, i] or (drop[i, j] and turn[i, j])
    np.testing.assert_array_equal(stale, (after != graph).any(0))
