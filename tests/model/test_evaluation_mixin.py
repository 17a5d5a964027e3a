from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import scgim
from scgim import _keys
from scgim.statistics import ConditionMeans, accumulate
from scgim.structure.bootstrap import EdgeFrequencies, bootstrap_statistics, edge_frequencies, edge_table


def cells(seed: int, n: int = 3000, d: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """A chain over genes, in five conditions that shift one gene each."""
    rng = np.random.default_rng(seed)
    code = np.repeat(np.arange(d + 1), n // (d + 1))
    x = rng.normal(size=(len(code), d))
    x[np.arange(len(code))[code > 0], code[code > 0] - 1] += 2
    for j in range(1, d):
        x[:, j] += 0.8 * x[:, j - 1]
    return x, code


@pytest.fixture(scope="module")
def statistics():
    x, code = cells(0)
    return accumulate([(x, code)], n_conditions=6, n_genes=5)


@pytest.fixture(scope="module")
def model() -> scgim.GIM:
    adata = scgim.datasets.simulate_screen(n_genes=6, n_drugs=10, doses=(1.0,), n_new_drugs=2, seed=3)
    scgim.setup_anndata(adata, drug_key="drug", control="DMSO", scale="continuous", features_key="drug_features")
    model = scgim.GIM(adata, generator="hill")
    model.train(max_epochs=30, enable_progress_bar=False)
    return model


@pytest.mark.parametrize("own", [False, True])
def test_draws_have_the_mean_and_the_spread_of_a_bootstrap(own: bool) -> None:
    x, code = cells(1)
    s = accumulate([(x, code)], n_conditions=6, n_genes=5, own=own)
    draws = list(bootstrap_statistics(s, 300, 0))
    n, freedom = s.n[0], s.n_cells - len(s.n)
    mean = np.array([draw.mean for draw in draws])
    np.testing.assert_allclose(mean.mean(0), s.mean, atol=4 * np.sqrt(s.scatter.max() / freedom / n / 300))
    variance = np.diag(s.scatter) / freedom / n
    np.testing.assert_allclose(mean.var(0).mean(0), variance, rtol=0.15)
    scatter = np.array([draw.scatter for draw in draws])
    np.testing.assert_allclose(scatter.mean(0), s.scatter, rtol=0.02, atol=0.02 * s.scatter.max())
    relative = scatter[:, 0, 0].std() / scatter[:, 0, 0].mean()
    assert relative == pytest.approx(np.sqrt(2 / freedom), rel=0.2)  # of a chi-squared variable


def test_draws_of_means_vary_by_their_sampling_errors(statistics) -> None:
    means = ConditionMeans.of(statistics, np.zeros(5, dtype=int))
    change = np.array([draw.change for draw in bootstrap_statistics(means, 400, 0)])
    expected = means.variance + means.control[0]
    np.testing.assert_allclose(change.var(0), expected, rtol=0.35)
    assert all(np.linalg.eigvalsh(draw.latent)[0] > 0 for draw in bootstrap_statistics(means, 3, 0))


def test_same_seed_same_draws(statistics) -> None:
    a, b, c = (next(bootstrap_statistics(statistics, 1, seed)).scatter for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


def test_recurrence_counts_edges_and_either_direction(statistics) -> None:
    graphs = [np.array([[0, 1], [0, 0]], bool), np.array([[0, 0], [1, 0]], bool), np.zeros((2, 2), bool)]
    found = edge_frequencies(lambda _, seed: graphs[seed], bootstrap_statistics(statistics, 3, 0))
    np.testing.assert_allclose(found.direct, [[0, 1 / 3], [1 / 3, 0]])
    np.testing.assert_allclose(found.either, [[0, 2 / 3], [2 / 3, 0]])
    assert found.modules() == [[0, 1]]  # joined again and again, in changing directions


def test_a_decided_edge_is_in_no_module() -> None:
    direct = np.zeros((4, 4))
    direct[0, 1], direct[1, 2], direct[2, 1] = 1.0, 0.4, 0.4
    found = EdgeFrequencies(direct, np.minimum(direct + direct.T, 1))
    assert found.modules() == [[1, 2]]
    graph = np.zeros((4, 4), dtype=bool)
    graph[0, 1] = graph[1, 2] = True
    table = edge_table(graph, np.array(list("abcd")), found)
    assert table["recurs"].tolist() == [True, False]
    assert table["module"].tolist() == [-1, 0]


def test_an_edge_that_is_often_the_other_way_round_does_not_recur() -> None:
    direct = np.array([[0.0, 0.6], [0.4, 0.0]])
    graph = np.array([[False, True], [False, False]])
    table = edge_table(graph, np.array(["a", "b"]), EdgeFrequencies(direct, direct + direct.T))
    assert table["stability"].tolist() == [0.6]
    assert not table["recurs"].any()


def test_clear_edges_recur_and_results_are_written(model: scgim.GIM) -> None:
    table = model.stability(n=20, max_rounds=2)  # of four refits one tells against a direction
    graph = model.get_graph()
    assert len(table) == len(graph)
    assert ((table["stability"] <= table["adjacency"]) & table["stability"].between(0, 1)).all()
    strong = graph.merge(table[["source", "target", "recurs"]])
    assert strong.head(3)["recurs"].all()
    assert (table["recurs"] == (table["stability"] >= 0.5) & (table["stability"] >= 0.8 * table["adjacency"])).all()
    assert graph["stability"].between(0, 1).all()
    model.annotate()
    written = scgim_frame(model)
    expected = table.set_index(["source", "target"])["stability"].sort_index()
    pd.testing.assert_series_equal(written[written > 0].sort_index(), expected[expected > 0], check_names=False)


def scgim_frame(model: scgim.GIM) -> pd.Series:
    """Stability in ``varp`` by names."""
    genes = model.adata.var_names
    frame = pd.DataFrame(model.adata.varp[_keys.STABILITY].toarray(), genes, genes)
    return frame.stack().rename_axis(["source", "target"])


def test_stability_is_saved(model: scgim.GIM, tmp_path) -> None:
    before = model.stability(n=2, max_rounds=1).set_index(["source", "target"])["stability"]
    model.save(tmp_path / "m")
    again = scgim.GIM.load(tmp_path / "m")
    after = again.get_graph().set_index(["source", "target"])["stability"]
    pd.testing.assert_series_equal(after.sort_index(), before.sort_index())
    with pytest.raises(ValueError, match="loaded without data"):
        again.stability()


def test_training_again_forgets_it_and_bad_numbers_are_refused(model: scgim.GIM) -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        model.stability(n=0)
    model.stability(n=1, max_rounds=1)
    model.train(max_epochs=10, enable_progress_bar=False)
    assert "stability" not in model.get_graph()


def test_required_edges_always_recur() -> None:
    adata = scgim.datasets.simulate_screen(n_genes=5, n_drugs=9, doses=(1.0,), n_new_drugs=1, seed=4)
    scgim.setup_anndata(adata, drug_key="drug", control="DMSO", scale="continuous", features_key="drug_features")
    a, b = adata.var_names[:2]
    prior = pd.DataFrame({"source": [a], "target": [b], "kind": ["required"]})
    model = scgim.GIM(adata, generator="hill", prior_graph=prior)
    model.train(max_epochs=10, enable_progress_bar=False)
    table = model.stability(n=3, max_rounds=1).set_index(["source", "target"])
    assert table.loc[(a, b), "stability"] == 1.0
