from __future__ import annotations

import inspect

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from scgim.datasets import sciplex3_drugs, simulate_screen

SMALL = {"n_genes": 8, "n_drugs": 12, "n_cells": 10, "n_control": 100, "n_new_drugs": 4, "n_bits": 8}
KINDS = [
    pytest.param({}, id="default"),
    pytest.param({"graph": "sf", "mechanism": "network"}, id="sf network"),
    pytest.param({"intervention": "hard", "mechanism": "network", "frac_dead": 0.3}, id="hard network, dead drugs"),
    pytest.param({"observation": "counts", "n_cells": (1, 20)}, id="counts, unequal"),
    pytest.param({"chemistry": "sciplex", "frac_dead": 0.3}, id="sciplex"),
    pytest.param({"chemistry": "sciplex", "observation": "counts", "n_new_drugs": 0}, id="sciplex counts, nothing new"),
    pytest.param({"degree": 0, "n_genes": 2, "n_drugs": 1, "doses": [3], "n_control": 2, "n_cells": 1}, id="least"),
]


def varsortability(x: np.ndarray, graph: np.ndarray) -> float:
    """Reisach et al. (2021): directed paths of every length k, counted as entries of A^k."""
    variance, rising, paths = x.var(axis=0), 0.0, 0.0
    power = np.eye(len(graph))
    for _ in range(len(graph) - 1):
        power = power @ graph
        hit = power != 0
        rising += (hit * (variance[None, :] > variance[:, None])).sum()
        paths += hit.sum()
    return rising / paths


def control_cells(adata) -> np.ndarray:
    x = adata.X[(adata.obs["drug"] == "DMSO").to_numpy()]
    return x.toarray() if hasattr(x, "toarray") else x


def context_means(adata, table) -> np.ndarray:
    """Observed minus control means in control-sd units for rows (drug, dose)."""
    truth = adata.uns["truth"]
    z = (adata.X - truth["control_mean"]) / truth["control_sd"]
    return np.array([z[((adata.obs["drug"] == d) & (adata.obs["dose"] == c)).to_numpy()].mean(0) for d, c in table])


def solve(adata, shift: np.ndarray, *, hard: bool) -> np.ndarray:
    """Mean change of a linear model, row by row: psi (I - W)^-1, with the targets' incoming weights cut if hard."""
    weights = adata.varp["true_weight"].toarray()
    change = np.empty_like(shift)
    for k, psi in enumerate(shift):
        w = weights * (psi == 0)[None, :] if hard else weights
        change[k] = psi @ np.linalg.inv(np.eye(len(w)) - w)
    return change


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip(written_and_read, assert_same, kind):
    adata = simulate_screen(**SMALL | kind)
    assert_same(adata, written_and_read(adata.copy()))


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_bits(assert_same, kind):
    first = simulate_screen(**SMALL | kind)
    second = simulate_screen(**SMALL | kind)
    assert_same(first, second)
    first.X = first.X * 0
    first.uns["truth"]["effect"][:] = 0
    assert_same(second, simulate_screen(**SMALL | kind))


def test_other_seed_other_screen():
    a, b = simulate_screen(**SMALL), simulate_screen(**SMALL, seed=1)
    assert (a.X != b.X).any()
    assert (a.varp["true_graph"] != b.varp["true_graph"]).nnz
    assert (a.uns["truth"]["effect"] != b.uns["truth"]["effect"]).any()


def test_global_random_state_is_neither_read_nor_moved(assert_same):
    np.random.seed(1)  # noqa: NPY002
    first, after = simulate_screen(**SMALL), np.random.random()  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    assert np.random.random() == after  # noqa: NPY002
    assert_same(first, simulate_screen(**SMALL))


@pytest.mark.parametrize("change", [{"n_cells": 3}, {"n_control": 50}, {"n_new_drugs": 9}, {"observation": "counts"}])
def test_size_of_the_screen_leaves_the_system_alone(change):
    a, b = simulate_screen(**SMALL), simulate_screen(**SMALL | change)
    np.testing.assert_array_equal(a.varp["true_weight"].toarray(), b.varp["true_weight"].toarray())
    np.testing.assert_array_equal(a.uns["truth"]["effect"], b.uns["truth"]["effect"])


def test_default_sizes():
    adata = simulate_screen()
    truth = adata.uns["truth"]
    assert adata.shape == (40 * 4 * 50 + 800, 20)
    assert adata.X.dtype == np.float32
    assert len(truth["unseen_dose"]["mean"]) == 200
    assert len(truth["unseen_drug"]["mean"]) == 80
    assert set(truth["unseen_dose"]["dose"]) == {0.25, 0.75, 1.25, 1.75, 2.25}
    assert set(truth["unseen_drug"]["dose"]) == {0.5, 1, 1.5, 2}
    counted = adata.obs.groupby(["drug", "dose"], observed=True).size()
    assert (counted == 50).all()
    assert len(counted) == 160


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_and_names(kind):
    adata = simulate_screen(**SMALL | kind)
    obs, truth, about = adata.obs, adata.uns["truth"], adata.uns["about"]
    control = obs["drug"] == "DMSO"
    assert obs["drug"].cat.categories[0] == "DMSO"
    assert list(obs["drug"].cat.categories[1:]) == list(truth["drugs"])
    assert obs["dose"].dtype == np.float64
    assert (obs["dose"].isna() == control).all()
    assert control.sum() == about["n_control"]
    assert obs_is_shuffled(obs) or len(obs) < 10
    n, d = len(truth["drugs"]), adata.n_vars
    assert {v.shape for v in (truth["targets"], truth["effect"], truth["ec50"])} == {(n, d)}
    assert truth["dead"].shape == (n,)
    np.testing.assert_array_equal(truth["targets"] != 0, truth["effect"] != 0)
    np.testing.assert_array_equal(truth["dead"], ~truth["targets"].any(axis=1))
    for name, drugs, n_doses in [
        ("unseen_dose", truth["drugs"], len(about["new_doses"].split(","))),
        ("unseen_drug", truth["new_drugs"], len(truth["doses"])),
    ]:
        table = truth[name]
        k = len(drugs) * n_doses
        assert {key: v.shape[1:] for key, v in table.items() if v.ndim == 2}.keys() >= {"mean", "targets", "shift"}
        assert all(len(v) == k for v in table.values())
        assert set(table["drug"]) == set(drugs)
        np.testing.assert_array_equal(table["targets"] != 0, table["shift"] != 0)
    assert all(isinstance(v, (str, int, float)) for v in about.values())
    assert set(inspect.signature(simulate_screen).parameters) <= set(about)
    for graph in adata.varp.values():
        assert isinstance(graph, csr_matrix)


def obs_is_shuffled(obs) -> bool:
    code = obs["drug"].cat.codes.to_numpy()
    return (np.diff(code) < 0).mean() > 0.2


@pytest.mark.parametrize("graph", ["er", "sf"])
@pytest.mark.parametrize("mechanism", ["linear", "network"])
def test_variances_do_not_give_the_order_away(graph, mechanism):
    share = []
    for seed in range(10):
        adata = simulate_screen(graph=graph, mechanism=mechanism, n_drugs=2, n_cells=2, n_new_drugs=0, seed=seed)
        share.append(varsortability(control_cells(adata), adata.varp["true_graph"].toarray()))
        assert abs(adata.uns["about"]["varsortability"] - 0.5) < 0.25
    assert np.mean(share) == pytest.approx(0.5, abs=0.1)


def test_scales_differ_between_genes():
    sd = simulate_screen().uns["truth"]["control_sd"]
    assert sd.max() / sd.min() > 2


@pytest.mark.parametrize("kind", [p for p in KINDS if p.id != "least"])
def test_control_moments(kind):
    adata = simulate_screen(**SMALL | kind | {"n_control": 4000})
    truth, x = adata.uns["truth"], control_cells(adata)
    if "n_counts" in adata.obs:
        total = adata.obs.loc[adata.obs["drug"] == "DMSO", "n_counts"].to_numpy()
        x = np.log1p(1e4 * x / total[:, None])
    np.testing.assert_allclose((x.mean(0) - truth["control_mean"]) / truth["control_sd"], 0, atol=0.12)
    np.testing.assert_allclose(x.std(0) / truth["control_sd"], 1, atol=0.1)


@pytest.mark.parametrize("intervention", ["shift", "hard"])
@pytest.mark.parametrize("graph", ["er", "sf"])
def test_linear_truth_is_the_closed_form(intervention, graph):
    adata = simulate_screen(intervention=intervention, graph=graph, degree=3, seed=4)
    for name in ("unseen_dose", "unseen_drug"):
        table = adata.uns["truth"][name]
        expected = solve(adata, table["shift"], hard=intervention == "hard")
        np.testing.assert_allclose(table["change"], expected, atol=1e-8)
        truth = adata.uns["truth"]
        np.testing.assert_allclose(table["mean"], truth["control_mean"] + truth["control_sd"] * expected, atol=1e-8)


@pytest.mark.parametrize("intervention", ["shift", "hard"])
def test_cells_have_the_means_of_the_closed_form(intervention):
    adata = simulate_screen(intervention=intervention, n_drugs=10, n_cells=400, seed=5)
    truth = adata.uns["truth"]
    rows = [(drug, dose) for drug in truth["drugs"] for dose in truth["doses"]]
    hill = truth["doses"][:, None] / (truth["doses"][:, None] + truth["ec50"][:, None, :])
    shift = (truth["effect"][:, None, :] * hill).reshape(len(rows), -1)
    error = (context_means(adata, rows) - solve(adata, shift, hard=intervention == "hard")) * np.sqrt(400)
    assert np.abs(error).max() < 6
    assert np.abs(error).std() < 2


def test_weights_are_the_regressions_of_the_cells():
    adata = simulate_screen(n_genes=10, n_control=20_000, n_drugs=1, n_cells=1, n_new_drugs=0, seed=2)
    truth, weights = adata.uns["truth"], adata.varp["true_weight"].toarray()
    z = (control_cells(adata) - truth["control_mean"]) / truth["control_sd"]
    for j in range(10):
        parents = np.flatnonzero(weights[:, j])
        if len(parents):
            np.testing.assert_allclose(np.linalg.lstsq(z[:, parents], z[:, j])[0], weights[parents, j], atol=0.05)


@pytest.mark.parametrize("mechanism", ["linear", "network"])
@pytest.mark.parametrize("intervention", ["shift", "hard"])
def test_only_descendants_of_targets_move(mechanism, intervention):
    adata = simulate_screen(mechanism=mechanism, intervention=intervention, n_cells=300, n_control=4000, n_drugs=10)
    graph, truth = adata.varp["true_graph"].toarray(), adata.uns["truth"]
    reach = np.linalg.matrix_power(np.eye(20) + graph, 20) > 0
    table = truth["unseen_dose"]
    still = ~((table["targets"] @ reach) > 0)
    assert np.abs(table["change"][still]).max() == 0
    assert np.abs(table["mean"] - truth["control_mean"])[still].max() < 1e-9
    assert np.abs(table["change"][table["targets"] > 0]).mean() > 0.5
    seen = context_means(adata, [(drug, 2.0) for drug in truth["drugs"]])
    still = ~((truth["targets"] @ reach) > 0)
    control = (control_cells(adata).mean(0) - truth["control_mean"]) / truth["control_sd"]
    assert (np.abs(seen - control)[still] * np.sqrt(300)).max() < 5


def test_hard_interventions_cut_the_parents():
    settings = {"n_genes": 6, "n_drugs": 6, "n_bits": 6, "n_cells": 1000, "degree": 2, "doses": [2], "seed": 3}
    correlation = {}
    for intervention in ("shift", "hard"):
        adata = simulate_screen(intervention=intervention, **settings)
        graph, truth = adata.varp["true_graph"].toarray(), adata.uns["truth"]
        found = []
        for drug, targets in zip(truth["drugs"], truth["targets"], strict=True):
            x = adata.X[(adata.obs["drug"] == drug).to_numpy()]
            for j in np.flatnonzero(targets):
                parents = np.flatnonzero(graph[:, j])
                if len(parents):
                    found.append(np.corrcoef(x[:, [j, *parents]].T)[0, 1:])
        correlation[intervention] = np.abs(np.concatenate(found))
    assert correlation["hard"].max() < 0.15
    assert correlation["shift"].max() > 0.3


@pytest.mark.parametrize("observation", ["continuous", "counts"])
def test_dose_response_is_monotone(observation):
    adata = simulate_screen(observation=observation, n_drugs=15, n_new_drugs=0, depth=20)
    table = adata.uns["truth"]["unseen_dose"]
    shift = np.abs(table["shift"]).reshape(15, 5, 20)
    assert (np.diff(shift, axis=1) >= 0).all()
    # Targets without a target among their ancestors: the observed mean moves with the dose, in the effect's direction.
    reach = np.linalg.matrix_power(np.eye(20) + adata.varp["true_graph"].toarray(), 20) - np.eye(20) > 0
    targets, effect = adata.uns["truth"]["targets"], adata.uns["truth"]["effect"]
    alone = (targets > 0) & ~((targets @ reach) > 0)
    step = np.diff(table["mean"].reshape(15, 5, 20), axis=1) * np.sign(effect)[:, None, :]
    assert (step.transpose(0, 2, 1)[alone] > (0 if observation == "continuous" else -0.1)).all()


def test_counts():
    adata = simulate_screen(observation="counts", depth=5, n_control=3000)
    x = adata.X
    assert isinstance(x, csr_matrix)
    assert x.dtype == np.float32
    assert x.data.min() >= 1
    assert (x.data == np.round(x.data)).all()
    control = control_cells(adata)
    assert control.mean() == pytest.approx(5, rel=0.1)
    assert (control.var(axis=0) > control.mean(axis=0)).all(), "more than Poisson noise"
    total = adata.obs["n_counts"]
    assert total.dtype == np.int64
    assert (total >= x.sum(axis=1).A1).all()
    assert 0.25 < total[adata.obs["drug"] == "DMSO"].std() / total.mean() < 0.5


@pytest.mark.parametrize("intervention", ["shift", "hard"])
def test_truth_of_counts_is_that_of_the_cells(intervention):
    adata = simulate_screen(
        observation="counts", intervention=intervention, n_cells=2000, n_drugs=4, doses=(1, 2), new_doses=[1.0001]
    )
    truth = adata.uns["truth"]
    log = np.log1p(1e4 * adata.X.toarray() / adata.obs["n_counts"].to_numpy()[:, None])
    for drug, dose, mean in zip(*(truth["unseen_dose"][k] for k in ("drug", "dose", "mean")), strict=True):
        cells = log[((adata.obs["drug"] == drug) & (adata.obs["dose"] == round(dose))).to_numpy()]
        z = (cells.mean(0) - mean) / (cells.std(0) * np.sqrt(2 / 2000))
        assert np.abs(z).max() < 5


def test_unequal_contexts():
    adata = simulate_screen(**SMALL | {"n_cells": (3, 30)})
    size = adata.obs.groupby(["drug", "dose"], observed=True).size()
    assert len(size) == 12 * 4
    assert size.min() >= 3
    assert size.max() <= 30
    assert size.nunique() > 5


def test_doses_in_any_order():
    np.testing.assert_array_equal(simulate_screen(**SMALL, doses=[2, 0.5, 1, 1.5]).X, simulate_screen(**SMALL).X)


@pytest.mark.parametrize(
    ("doses", "new"),
    [
        pytest.param([2.0], [1, 3], id="one"),
        pytest.param([0.5, 1, 1.5, 2], [0.25, 0.75, 1.25, 1.75, 2.25], id="default"),
        pytest.param([10, 100, 1000, 10000], [5, 55, 550, 5500, 14500], id="logarithmic"),
    ],
)
def test_new_doses_lie_between_and_beyond(doses, new):
    truth = simulate_screen(**SMALL, doses=doses).uns["truth"]
    assert sorted(set(truth["unseen_dose"]["dose"])) == new
    ec50 = truth["ec50"][np.isfinite(truth["ec50"])]
    assert ((ec50 >= doses[0] / 2) & (ec50 <= doses[-1])).all()


def test_features_table():
    adata = simulate_screen(**SMALL)
    features, truth = adata.uns["drug_features"], adata.uns["truth"]
    assert list(features.index) == list(truth["drugs"])
    assert features.shape[1] == truth["unseen_drug"]["features"].shape[1] == 8
    assert all(isinstance(c, str) for c in features.columns)
    np.testing.assert_array_equal(features, truth["motifs"])


def test_sciplex_carries_smiles_and_hides_motifs():
    adata = simulate_screen(**SMALL | {"chemistry": "sciplex"})
    library, truth = sciplex3_drugs()["smiles"], adata.uns["truth"]
    assert "drug_features" not in adata.uns
    smiles = adata.obs[["drug", "smiles"]].drop_duplicates().set_index("drug")["smiles"].astype(str)
    assert smiles.pop("DMSO") == ""
    assert smiles.to_dict() == library[truth["drugs"]].to_dict()
    for name in ("unseen_dose", "unseen_drug"):
        np.testing.assert_array_equal(truth[name]["smiles"], library[truth[name]["drug"]])
    assert not set(truth["new_drugs"]) & set(truth["drugs"])


def test_all_sciplex_names_round_trip(written_and_read, assert_same):
    adata = simulate_screen(
        **SMALL | {"chemistry": "sciplex", "n_drugs": 188, "n_new_drugs": 0, "n_cells": 1, "doses": [1]}
    )
    back = written_and_read(adata.copy())
    assert "(+)-JQ1" in set(back.obs["drug"])
    assert_same(adata, back)


@pytest.mark.parametrize("frac", [0.25, 0.5])
def test_dead_drugs_do_nothing(frac):
    truth = simulate_screen(**SMALL | {"frac_dead": frac}).uns["truth"]
    assert truth["dead"].sum() == 12 * frac
    dead = np.isin(truth["unseen_dose"]["drug"], truth["drugs"][truth["dead"]])
    assert not truth["unseen_dose"]["change"][dead].any()
    assert truth["unseen_dose"]["change"][~dead].any(axis=1).all()
