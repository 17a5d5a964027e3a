import networkx as nx
import numpy as np
import pytest
from sklearn.metrics import precision_score, recall_score

from scgim.metrics import edge_precision_recall, shd


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
