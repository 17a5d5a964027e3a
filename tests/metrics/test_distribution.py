import sys

import numpy as np
import ot
import pytest
from scipy import stats
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from scgim.metrics import _distribution, energy_distance, per_gene_w1, rmse_sd, sinkhorn_divergence, wasserstein2

ALL = {
    "energy": energy_distance,
    "sinkhorn": sinkhorn_divergence,
    "w2": wasserstein2,
    "w1": lambda x, y: per_gene_w1(x, y).mean(),
    "sd": rmse_sd,
}
each = pytest.mark.parametrize("measure", [pytest.param(value, id=key) for key, value in ALL.items()])


def cells(n=23, m=31, genes=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, genes)), 1.5 * rng.normal(size=(m, genes)) + 0.7


# ---- against other implementations -----------------------------------------------------------------------------------


def test_energy_distance_of_one_gene_is_the_square_of_scipys():
    x, y = cells(genes=1)
    assert energy_distance(x, y) == pytest.approx(stats.energy_distance(x[:, 0], y[:, 0]) ** 2)


def test_energy_distance_is_its_formula():
    x, y = cells()
    between, *within = (np.mean([np.linalg.norm(p - q) for p in a for q in b]) for a, b in ((x, y), (x, x), (y, y)))
    assert energy_distance(x, y) == pytest.approx(2 * between - sum(within))


@pytest.mark.parametrize("block", [1, 40, 1000])
def test_blocks_do_not_change_the_energy_distance(monkeypatch, block):
    x, y = cells()
    whole = energy_distance(x, y)
    monkeypatch.setattr(_distribution, "_BLOCK", block)
    assert energy_distance(x, y) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize(("n", "m"), [(20, 20), (7, 12), (12, 7), (10, 30), (1, 9), pytest.param(1000, 37, id="many")])
@pytest.mark.parametrize("counts", [False, True])
def test_per_gene_w1_is_that_of_scipy(n, m, counts):
    x, y = cells(n, m)
    if counts:
        x, y = abs(x.round()), abs(y.round())
    expected = [stats.wasserstein_distance(a, b) for a, b in zip(x.T, y.T, strict=True)]
    assert per_gene_w1(x, y) == pytest.approx(expected)


def test_wasserstein2_of_one_gene_joins_quantiles():
    x, y = cells(30, 30, 1)
    assert wasserstein2(x, y) == pytest.approx(np.sqrt(((np.sort(x, 0) - np.sort(y, 0)) ** 2).mean()))


def test_wasserstein2_is_the_best_assignment():
    x, y = cells(30, 30)
    cost = cdist(x, y, "sqeuclidean")
    assert wasserstein2(x, y) == pytest.approx(np.sqrt(cost[linear_sum_assignment(cost)].mean()))
    assert wasserstein2(x, np.repeat(y, 3, axis=0)) == pytest.approx(wasserstein2(x, y))


def entropic(x, y, reg):
    """Value of entropic transport from its dual, iterated in the log domain."""
    cost = cdist(x, y, "sqeuclidean") / reg
    g = np.zeros(len(y))
    for _ in range(3000):
        f = -np.logaddexp.reduce(g - cost, axis=1) + np.log(len(y))
        g = -np.logaddexp.reduce(f[:, None] - cost, axis=0) + np.log(len(x))
    return reg * (f.mean() + g.mean())


@pytest.mark.parametrize("epsilon", [0.03, 0.1, 1.0])
def test_sinkhorn_divergence_is_that_of_the_dual(epsilon):
    x, y = cells()
    reg = epsilon * np.median(cdist(x, y, "sqeuclidean"))
    expected = entropic(x, y, reg) - (entropic(x, x, reg) + entropic(y, y, reg)) / 2
    assert sinkhorn_divergence(x, y, epsilon=epsilon) == pytest.approx(expected, rel=1e-6)


def test_sinkhorn_divergence_is_that_of_pot():
    x, y = cells()
    reg = np.median(cdist(x, y, "sqeuclidean"))
    between, *within = (
        ot.solve(cdist(a, b, "sqeuclidean"), reg=reg, reg_type="KL").value for a, b in ((x, y), (x, x), (y, y))
    )
    assert sinkhorn_divergence(x, y, epsilon=1) == pytest.approx(between - sum(within) / 2)


def test_sinkhorn_divergence_lies_between_transport_and_the_means():
    x, y = cells()
    assert sinkhorn_divergence(x, y, epsilon=1e3) == pytest.approx(((x.mean(0) - y.mean(0)) ** 2).sum(), rel=1e-2)
    assert sinkhorn_divergence(x, y, epsilon=0.01) == pytest.approx(wasserstein2(x, y) ** 2, rel=0.05)


def test_sinkhorn_divergence_where_most_cells_are_alike():
    x, y = np.zeros((5, 1)), np.array([[0.0], [0.0], [0.0], [1.0]])
    assert sinkhorn_divergence(x, y) == pytest.approx(0.25)


def test_rmse_sd_is_its_formula():
    x, y = cells()
    expected = np.mean([(np.std(a, ddof=1) - np.std(b, ddof=1)) ** 2 for a, b in zip(x.T, y.T, strict=True)]) ** 0.5
    assert rmse_sd(x, y) == pytest.approx(expected)
    assert rmse_sd(x, x + 7) == pytest.approx(0, abs=1e-12)


# ---- identities ------------------------------------------------------------------------------------------------------


@each
def test_symmetric_and_blind_to_orders(measure):
    (x, y), rng = cells(), np.random.default_rng(1)
    genes, found = rng.permutation(4), measure(x, y)
    assert found > 0
    assert measure(y, x) == pytest.approx(found, rel=1e-6)
    assert measure(rng.permutation(x), y) == pytest.approx(found, rel=1e-6)
    assert measure(x[:, genes], y[:, genes]) == pytest.approx(found, rel=1e-6)
    assert measure(x.astype(np.float32), y) == pytest.approx(found, rel=1e-4)


@each
def test_zero_for_the_same_cells_in_any_order(measure):
    x, _ = cells()
    assert measure(x, x) == pytest.approx(0, abs=1e-9)
    assert measure(x, x[::-1]) == pytest.approx(0, abs=1e-7)


@each
def test_one_scale_of_expression(measure):
    x, y = cells()
    power = 2 if measure is sinkhorn_divergence else 1
    assert measure(3 * x, 3 * y) == pytest.approx(3**power * measure(x, y), rel=1e-6)


@each
def test_moving_both_changes_nothing(measure):
    x, y = cells()
    assert measure(x + 5, y + 5) == pytest.approx(measure(x, y), rel=1e-6)


@pytest.mark.parametrize("name", ["energy", "sinkhorn", "w2"])
def test_sees_what_genes_do_together(name):
    x, _ = cells()
    y = np.column_stack([x[:, 0], np.roll(x[:, 1:], 1, axis=0)])
    assert ALL[name](x, y) > 0.01
    assert per_gene_w1(x, y) == pytest.approx(0)


def test_a_metric():
    x, y = cells()
    z, _ = cells(11, 3, seed=5)
    assert wasserstein2(x, y) <= wasserstein2(x, z) + wasserstein2(z, y)


# ---- refused ---------------------------------------------------------------------------------------------------------


@each
@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        pytest.param(np.ones((3, 2)), np.ones((3, 4)), r"\(3, 2\) and \(3, 4\)", id="genes"),
        pytest.param(np.ones(3), np.ones((3, 1)), r"x must be \(cells, genes\).*\(3,\)", id="vector"),
        pytest.param(np.ones((3, 2)), np.ones((0, 2)), r"y .*\(0, 2\)", id="no cell"),
        pytest.param(np.ones((3, 2)), np.full((3, 2), np.nan), r"y of shape \(3, 2\) holds 6", id="nan"),
    ],
)
def test_bad_cells_are_refused(measure, x, y, message):
    with pytest.raises(ValueError, match=message):
        measure(x, y)


@pytest.mark.parametrize("epsilon", [0, -0.1, np.nan, np.inf])
def test_epsilon_is_positive(epsilon):
    with pytest.raises(ValueError, match=f"epsilon={epsilon}"):
        sinkhorn_divergence(*cells(), epsilon=epsilon)


def test_one_cell_has_no_spread():
    with pytest.raises(ValueError, match=r"\(1, 2\) and \(3, 2\)"):
        rmse_sd(np.ones((1, 2)), np.ones((3, 2)))


@pytest.mark.parametrize("measure", [sinkhorn_divergence, wasserstein2])
def test_a_missing_pot_says_how_to_install_it(monkeypatch, measure):
    monkeypatch.setitem(sys.modules, "ot", None)
    with pytest.raises(ImportError, match=r"pip install scgim\[evaluate\]"):
        measure(*cells())
