import itertools

import networkx as nx
import numpy as np
import pytest
from sklearn.linear_model import LassoLarsIC, LinearRegression
from sklearn.metrics import average_precision_score, precision_score, recall_score

from scgim.metrics import (
    edge_average_precision,
    edge_precision_recall,
    shd,
    sid,
    sort_and_regress,
    varsortability,
)


def random_dag(seed, d=8, p=0.3):
    rng = np.random.default_rng(seed)
    order = rng.permutation(d)
    return np.triu(rng.random((d, d)) < p, 1)[np.ix_(order, order)]


@pytest.mark.parametrize("seed", range(5))
def test_shd_is_the_edit_distance_of_skeletons_and_directions(seed):
    a, b = random_dag(seed), random_dag(seed + 100)
    ga, gb = (nx.from_numpy_array(g.astype(int), create_using=nx.DiGraph) for g in (a, b))
    pairs = {frozenset(edge) for edge in set(ga.edges) ^ set(gb.edges)}
    assert shd(a, b) == shd(b, a) == len(pairs)
    assert shd(a, a) == 0


@pytest.mark.parametrize("seed", range(5))
def test_precision_and_recall_are_those_of_scikit_learn(seed):
    found, truth = random_dag(seed), random_dag(seed + 100)
    expected = precision_score(truth.ravel(), found.ravel()), recall_score(truth.ravel(), found.ravel())
    assert edge_precision_recall(found, truth) == pytest.approx(expected)


def test_nothing_found_has_no_precision():
    precision, recall = edge_precision_recall(np.zeros((3, 3)), np.eye(3, k=1))
    assert np.isnan(precision)
    assert recall == 0


# ---- average precision -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_is_that_of_scikit_learn_off_the_diagonal(seed):
    truth, strength = random_dag(seed), np.random.default_rng(seed).random((8, 8)).round(1)
    pairs = [(i, j) for i in range(8) for j in range(8) if i != j]
    expected = average_precision_score([truth[p] for p in pairs], [strength[p] for p in pairs])
    assert edge_average_precision(strength, truth) == pytest.approx(expected)
    assert edge_average_precision(strength + 9 * np.eye(8), truth) == pytest.approx(expected)
    assert edge_average_precision(truth, truth) == 1
    assert np.isnan(edge_average_precision(strength, np.zeros((8, 8))))


# ---- structural intervention distance --------------------------------------------------------------------------------


def all_dags(d):
    pairs = [(i, j) for i in range(d) for j in range(d) if i != j]
    for on in itertools.product([0, 1], repeat=len(pairs)):
        graph = np.zeros((d, d), dtype=int)
        graph[tuple(np.transpose(pairs))] = on
        if nx.is_directed_acyclic_graph(as_networkx(graph)):
            yield graph


def as_networkx(graph):
    return nx.from_numpy_array(np.asarray(graph, dtype=int), create_using=nx.DiGraph)


def sid_by_separation(graph, truth):
    """Peters and Bühlmann's condition word by word, for every pair, on all paths."""
    h = as_networkx(truth)
    return sum(
        (j in nx.descendants(h, i)) if graph[j, i] else not valid(h, i, j, set(np.flatnonzero(graph[:, i]).tolist()))
        for i, j in itertools.permutations(range(len(truth)), 2)
    )


def valid(h, i, j, z):
    on_paths = (nx.descendants(h, i) & (nx.ancestors(h, j) | {j})) - {i}
    if any(z & (nx.descendants(h, w) | {w}) for w in on_paths):
        return False
    cut = h.copy()
    cut.remove_edges_from([(i, w) for w in on_paths if h.has_edge(i, w)])
    return nx.is_d_separator(cut, i, j, z)


def sid_by_regression(graph, truth, seed=0):
    """Pairs whose total effect in a linear model with generic weights is not what regression on the parents gives."""
    d = len(truth)
    rng = np.random.default_rng(seed)
    weights = truth * rng.uniform(0.5, 1.5, (d, d)) * rng.choice([-1, 1], (d, d))
    total = np.linalg.inv(np.eye(d) - weights)
    covariance = total.T @ np.diag(rng.uniform(0.5, 1.5, d)) @ total
    wrong = 0
    for i, j in itertools.permutations(range(d), 2):
        use = [i, *np.flatnonzero(graph[:, i])]
        slope = 0 if graph[j, i] else np.linalg.solve(covariance[np.ix_(use, use)], covariance[use, j])[0]
        wrong += abs(slope - total[i, j]) > 1e-9
    return wrong


def test_sid_of_all_graphs_of_three_genes():
    dags = list(all_dags(3))
    assert len(dags) == 25
    for graph, truth in itertools.product(dags, dags):
        assert sid(graph, truth) == sid_by_separation(graph, truth) == sid_by_regression(graph, truth)


@pytest.mark.parametrize("p", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("d", [4, 5, 7])
def test_sid_of_random_graphs(d, p):
    for seed in range(15):
        graph, truth = random_dag(seed, d, p), random_dag(seed + 100, d, 0.5)
        assert sid(graph, truth) == sid_by_separation(graph, truth) == sid_by_regression(graph, truth)


def test_sid_of_the_example_of_peters_and_buehlmann():
    truth = np.zeros((5, 5))
    truth[0, 1:] = truth[1, 2:] = 1
    more, turned = truth.copy(), truth.copy()
    more[2, 3], turned[0, 1], turned[1, 0] = 1, 0, 1
    assert (shd(more, truth), sid(more, truth)) == (1, 0)
    assert (shd(turned, truth), sid(turned, truth)) == (1, 8)


@pytest.mark.parametrize("seed", range(5))
def test_sid_of_supergraphs_and_orders(seed):
    truth, graph = random_dag(seed, 12), random_dag(seed + 50, 12)
    order = list(nx.topological_sort(as_networkx(truth)))
    full = np.zeros_like(truth)
    full[np.ix_(order, order)] = np.triu(np.ones((12, 12), dtype=bool), 1)
    genes = np.random.default_rng(seed).permutation(12)
    assert sid(truth, truth) == sid(full, truth) == 0
    assert 0 < sid(graph, truth) <= 12 * 11
    assert sid(graph[np.ix_(genes, genes)], truth[np.ix_(genes, genes)]) == sid(graph, truth)
    assert sid(-0.5 * graph, 3 * truth) == sid(graph, truth)


# ---- varsortability and its baseline ---------------------------------------------------------------------------------


def linear(seed, d=6, n=400):
    rng, graph = np.random.default_rng(seed), random_dag(seed, d, 0.5)
    weights = graph * rng.uniform(0.8, 1.5, (d, d)) * rng.choice([-1, 1], (d, d))
    return rng.normal(size=(n, d)) @ np.linalg.inv(np.eye(d) - weights), graph, weights


@pytest.mark.parametrize("seed", range(5))
def test_varsortability_counts_paths_by_length(seed):
    x, graph, _ = linear(seed)
    variance, found = x.var(0), []
    for i, j in itertools.permutations(range(6), 2):
        lengths = {len(path) for path in nx.all_simple_paths(as_networkx(graph), i, j)}
        found += [variance[i] < variance[j]] * len(lengths)
    assert varsortability(x, graph) == pytest.approx(np.mean(found))


def test_varsortability_is_blind_to_nothing_but_scale():
    x, graph, _ = linear(0)
    genes = np.random.default_rng(0).permutation(6)
    found = varsortability(x, graph)
    assert varsortability(3 * x[::-1] + 1, graph) == pytest.approx(found)
    assert varsortability(x[:, genes], graph[np.ix_(genes, genes)]) == pytest.approx(found)
    assert varsortability(-x, graph.T) == pytest.approx(1 - found)
    assert varsortability((x - x.mean(0)) / x.std(0), graph) == 0.5
    assert np.isnan(varsortability(x, 0 * graph))


def test_sort_and_regress_finds_a_graph_that_variances_tell():
    rng = np.random.default_rng(0)
    weights = np.diag([1.5, -1.5, 1.5], 1)
    genes = rng.permutation(4)
    weights = weights[np.ix_(genes, genes)]
    x = rng.normal(size=(2000, 4)) @ np.linalg.inv(np.eye(4) - weights)
    found = sort_and_regress(x)
    assert varsortability(x, weights) == 1
    assert found == pytest.approx(weights, abs=0.1)
    assert edge_average_precision(abs(found), weights) == 1
    # scales decide: turned around, so is the order
    scale = np.array([8.0, 4.0, 2.0, 1.0])[np.argsort(np.argsort(x.var(0)))]
    turned = sort_and_regress(x / x.std(0) * scale)
    assert not (turned.astype(bool) & (weights != 0)).any()


def test_sort_and_regress_is_the_adaptive_lasso_of_scikit_learn():
    x, *_ = linear(3)
    *sources, target = np.argsort(x.var(0))
    size = abs(LinearRegression().fit(x[:, sources], x[:, target]).coef_)
    expected = size * LassoLarsIC("bic").fit(x[:, sources] * size, x[:, target]).coef_
    assert sort_and_regress(x)[sources, target] == pytest.approx(expected)


def test_sort_and_regress_follows_the_variances():
    x, *_ = linear(1)
    found, genes = sort_and_regress(x), np.random.default_rng(2).permutation(6)
    source, target = np.nonzero(found)
    assert (x.var(0)[source] < x.var(0)[target]).all()
    assert sort_and_regress(x[:, genes]) == pytest.approx(found[np.ix_(genes, genes)])
    assert sort_and_regress(5 * x + 3) == pytest.approx(found)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda x: np.column_stack([x, np.zeros(len(x))]), id="constant"),
        pytest.param(lambda x: np.zeros_like(x), id="all constant"),
        pytest.param(lambda x: np.column_stack([x, x[:, 0]]), id="copy"),
        pytest.param(lambda x: np.sign(x[:, :1]) * [1, 2], id="exact"),
        pytest.param(lambda x: x[:, :1], id="one gene"),
    ],
)
def test_sort_and_regress_of_degenerate_genes(spoil):
    x, *_ = linear(1)
    found = sort_and_regress(spoil(x))
    assert np.isfinite(found).all()
    assert not np.diag(found).any()


# ---- refused ---------------------------------------------------------------------------------------------------------

DAG, X, LOOP = np.eye(3, k=1), np.random.default_rng(0).normal(size=(9, 3)), np.eye(3)[[1, 2, 0]]
HOLE = np.where(DAG, np.nan, 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(lambda: sid(DAG, np.eye(4, k=1)), r"graph and truth .*\(3, 3\) and \(4, 4\)", id="sid shapes"),
        pytest.param(lambda: sid(X, X), r"\(genes, genes\).*\(9, 3\)", id="sid not square"),
        pytest.param(lambda: sid(HOLE, DAG), r"graph of shape \(3, 3\) holds 2", id="sid nan"),
        pytest.param(lambda: sid(LOOP, DAG), "graph must be a DAG.*cycle", id="sid cycle"),
        pytest.param(lambda: sid(DAG, np.eye(3)), "truth must be a DAG.*cycle", id="sid self-loop"),
        pytest.param(lambda: edge_average_precision(DAG, DAG[:2]), r"\(3, 3\) and \(2, 3\)", id="ap shapes"),
        pytest.param(lambda: edge_average_precision(HOLE, DAG), "strength .*not finite", id="ap nan"),
        pytest.param(lambda: edge_average_precision(-DAG, DAG), r"-1: .*np\.abs\(strength\)", id="ap sign"),
        pytest.param(lambda: varsortability(X, np.eye(4, k=1)), r"\(9, 3\).*\(4, 4\)", id="varsortability shapes"),
        pytest.param(lambda: varsortability(X, LOOP), "graph must be a DAG", id="varsortability cycle"),
        pytest.param(lambda: varsortability(X * np.nan, DAG), "x .*not finite", id="varsortability nan"),
        pytest.param(lambda: sort_and_regress(X[:3]), r"more cells than genes.*\(3, 3\)", id="few cells"),
        pytest.param(lambda: sort_and_regress(X[0]), r"x must be \(cells, genes\).*\(3,\)", id="one cell"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
