"""UMI counts end to end: learned from the conditions' means, asked on the training scale."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata.tests.helpers import assert_equal

import scgim
from scgim.data._mean_evidence import log_rate_slope

SCREEN = {"observation": "counts", "n_genes": 12, "n_drugs": 10, "doses": (1.0,), "n_cells": 60, "n_control": 300}
SCREEN |= {"n_new_drugs": 2, "depth": 5.0}
COUNTS = {"scale": "counts", "size_factor_key": "n_counts"}
FIXED = {"generator": "identity"}  # where it does not matter which


@pytest.fixture(scope="module")
def counts(screen):
    """``counts(**options)``: a fresh screen of UMI counts."""
    return lambda **options: screen(**(SCREEN | options))


@pytest.fixture(scope="module")
def train(counts, fit):
    """``train(adata=None, **gim)``: a model of the test's own."""

    def run(adata=None, setup=COUNTS, train=None, **gim):
        return fit(counts() if adata is None else adata, gim=FIXED | gim, train=train, **setup)

    return run


@pytest.fixture(scope="module")
def reference(train):
    """Shared by all tests, so none may change it."""
    return train(generator="auto")


@pytest.fixture(scope="module")
def plain(train):
    """As ``reference``, with a generator that trains in no time."""
    return train()


@pytest.fixture(scope="module")
def deep(counts, train):
    """Trained for longer, on many cells of many counts."""
    adata = counts(n_genes=10, n_cells=300, n_control=2000, depth=20.0, seed=1)
    return train(adata, train={"max_epochs": 60})


def logs(adata):
    return np.log1p(1e4 * adata.X.toarray().astype(float) / adata.obs["n_counts"].to_numpy()[:, None])


def observed(adata):
    """Observed changes on the training scale, drugs x genes, sorted by drug."""
    drug = adata.obs["drug"].astype(str).to_numpy()
    means = pd.DataFrame(logs(adata), columns=adata.var_names).groupby(drug).mean()
    return means.drop(index="DMSO") - means.loc["DMSO"]


def bits(model):
    return {name: value.numpy() for name, value in model.module.state_dict().items()}


def assert_same(one, other):
    a, b = bits(one), bits(other)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    pd.testing.assert_frame_equal(one.rank_targets(), other.rank_targets())


def deltas(model):
    pred = model.predict(as_="delta")
    return pd.DataFrame(pred.X, index=pred.obs["drug"].astype(str).to_numpy(), columns=pred.var_names).sort_index()


def assert_works(model):
    """Every verb gives finite numbers of the right shapes."""
    d = model.adata.n_vars
    for as_ in ("cells", "samples", "mean", "delta"):
        assert np.isfinite(model.predict(as_=as_, n_cells=5).X).all()
    table = model.rank_targets()
    assert np.isfinite(table[["score", "probability", "effect"]].to_numpy()).all()
    assert table["probability"].between(0, 1).all()
    assert set(table["gene"]) == set(model.adata.var_names)
    edges = model.get_graph()
    assert np.isfinite(edges["weight"]).all()
    assert len(edges) <= d * (d - 1) / 2
    model.annotate(adata := model.adata.copy())
    assert np.isfinite(adata.obsm["scgim_shift"]).all()
    assert np.isfinite(model.do({model.adata.var_names[0]: 1.0}, as_="mean").X).all()


# ---- what is learned -------------------------------------------------------------------------------------------------


def test_targets_and_edges_are_found(deep):
    adata, truth = deep.adata, deep.adata.uns["truth"]
    table = deep.rank_targets(evidence="data")
    found = table.pivot(index="drug", columns="gene", values="probability").loc[truth["drugs"], adata.var_names] > 0.5
    targets = truth["targets"] > 0
    assert found.to_numpy()[targets].mean() > 0.7
    assert found.to_numpy()[~targets].mean() < 0.1
    graph = adata.varp["true_graph"].toarray() > 0
    edges = deep.get_graph()
    place = {gene: i for i, gene in enumerate(adata.var_names)}
    right = [graph[place[a], place[b]] for a, b in zip(edges["source"], edges["target"], strict=True)]
    assert np.mean(right) > 0.6
    assert sum(right) > 0.5 * graph.sum()


def test_measured_changes_are_predicted_on_the_training_scale(deep):
    pred, seen = deltas(deep), observed(deep.adata)
    assert pred.columns.tolist() == seen.columns.tolist()
    assert np.corrcoef(pred.to_numpy().ravel(), seen.to_numpy().ravel())[0, 1] > 0.9
    slope = np.sum(pred.to_numpy() * seen.to_numpy()) / np.sum(seen.to_numpy() ** 2)
    assert 0.75 < slope < 1.1


@pytest.mark.usefixtures("generator_alone")
def test_dead_drugs_have_no_target(counts, train):
    adata = counts(frac_dead=0.5, seed=2, n_cells=100)
    model = train(adata)
    table = model.rank_targets(evidence="data")
    dead = adata.uns["truth"]["drugs"][adata.uns["truth"]["dead"].astype(bool)]
    assert len(dead) == 5
    assert table.loc[table["drug"].isin(dead), "probability"].max() < 0.5
    assert table.loc[~table["drug"].isin(dead), "probability"].max() > 0.9
    assert np.abs(deltas(model).loc[dead].to_numpy()).max() < 0.1 * np.abs(deltas(model).to_numpy()).max()


@pytest.mark.parametrize("rate", [0.05, 1.0, 30.0])
@pytest.mark.parametrize("vary", [0.0, 0.5])
def test_a_small_change_of_rates_moves_the_training_scale_by_its_slope(rate, vary):
    rng = np.random.default_rng(0)
    size = 2000 * rng.lognormal(0, 0.3, 400_000)
    cell = rate * size / 2000 * rng.lognormal(-(vary**2) / 2, vary, len(size))
    step = 0.2
    low, middle, high = (rng.poisson(cell * np.exp(change)) for change in (-step, 0, step))
    scale = np.array([0.7])
    slope = log_rate_slope(sp.csr_matrix(np.column_stack([middle, size])), scale)
    gap = np.log1p(1e4 * high / size).mean() - np.log1p(1e4 * low / size).mean()
    np.testing.assert_allclose(slope, gap / (2 * step) / scale, rtol=0.05)


# ---- what can be asked -----------------------------------------------------------------------------------------------


def test_controls_and_changes_are_on_the_training_scale(reference):
    adata = reference.adata
    control = (adata.obs["drug"] == "DMSO").to_numpy()
    mean = logs(adata)[control].mean(0)
    pred = reference.predict(as_="mean")
    np.testing.assert_allclose(pred.layers["control"], np.tile(mean, (pred.n_obs, 1)), rtol=1e-4)
    np.testing.assert_allclose(pred.X - pred.layers["control"], reference.predict(as_="delta").X, atol=1e-5)
    cells = reference.predict(drug=reference.drugs[0])
    np.testing.assert_allclose(np.sort(cells.layers["control"], 0), np.sort(logs(adata)[control], 0), atol=1e-5)
    assert pred.uns["scgim"]["prediction"]["scale"] == "counts"


@pytest.mark.usefixtures("generator_alone")  # on one graph; on average over several a few thousandths reach others
@pytest.mark.parametrize("kind", ["shift", "set"])
def test_do(reference, kind):
    gene = reference.adata.var_names[3]
    sd = pd.Series(reference.summary_.scale, reference.summary_.genes)
    cells = reference.do({gene: 2.0}, kind=kind, as_="cells")
    change = pd.DataFrame(cells.X - cells.layers["control"], columns=cells.var_names)
    if kind == "shift":
        np.testing.assert_allclose(change[gene], 2 * sd[gene], rtol=1e-4)
    else:
        assert cells[:, gene].X.mean() == pytest.approx(cells.layers["control"].mean(0)[3] + 2 * sd[gene], rel=1e-3)
        assert cells[:, gene].X.std() < 1e-3
    edges = reference.get_graph(kind="total")
    below = set(edges.loc[edges["source"] == gene, "target"])
    without = [name for name in change if name != gene and name not in below]
    np.testing.assert_allclose(change[without], 0, atol=1e-5)


def test_every_verb_works(reference):
    assert_works(reference)
    assert "from means" in repr(reference)
    new = reference.drug_table_.frame.iloc[:1].rename(index={reference.drugs[0]: "new"})
    assert np.isfinite(reference.predict(drug="new", features=new, dose=1.0, as_="delta").X).all()


def test_annotate_says_how_targets_were_charged(counts, train, tmp_path):
    adata = counts()
    model = train(adata)
    model.annotate()
    target_penalty = adata.uns["scgim"]["target_penalty"]
    assert {"target_penalty_median", "placebos", "level", "overdispersion_max"} <= set(target_penalty)
    assert target_penalty["placebos"] == 200
    assert (
        5
        <= target_penalty["target_penalty_min"]
        <= target_penalty["target_penalty_median"]
        <= target_penalty["target_penalty_max"]
    )
    assert target_penalty["target_penalty_median"] == pytest.approx(np.median(model.module.target_penalty.numpy()))
    for kind in ("h5ad", "zarr"):
        getattr(adata, f"write_{kind}")(tmp_path / kind)
        assert_equal(getattr(ad, f"read_{kind}")(tmp_path / kind).uns["scgim"], adata.uns["scgim"])


# ---- what is kept ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "gim",
    [
        pytest.param({}, id="shift"),
        pytest.param({"intervention": "hard"}, id="hard"),
        pytest.param({"mechanism": "network"}, id="network"),
    ],
)
def test_a_saved_model_gives_the_same_bits(train, tmp_path, gim):
    model = train(**gim)
    model.save(tmp_path / "model")
    again = scgim.GIM.load(tmp_path / "model")
    assert_same(again, model)
    for as_ in ("cells", "samples", "mean", "delta"):
        assert_equal(again.predict(as_=as_, n_cells=20), model.predict(as_=as_, n_cells=20))
    pd.testing.assert_frame_equal(again.get_graph(), model.get_graph())
    assert repr(again) == repr(model)
    again.annotate(one := model.adata.copy())
    model.annotate(two := model.adata.copy())
    assert_equal(one.uns["scgim"], two.uns["scgim"])


def test_bound_data_train_again_to_the_same_bits(counts, plain, tmp_path):
    plain.save(tmp_path / "model")
    again = scgim.GIM.load(tmp_path / "model", counts())
    again.train(max_epochs=20, enable_progress_bar=False)
    assert_same(again, plain)


# ---- what must not matter --------------------------------------------------------------------------------------------


def test_same_seed_same_bits(counts, fit, reference):
    assert_same(fit(counts(), **COUNTS), reference)


def test_order_of_genes(counts, fit, reference):
    order = np.random.default_rng(0).permutation(12)
    model = fit(counts()[:, order].copy(), **COUNTS)
    assert_same(model, reference)
    one, other = reference.predict(as_="mean"), model.predict(as_="mean")
    assert other.var_names.tolist() == reference.adata.var_names[order].tolist()
    np.testing.assert_array_equal(other[:, one.var_names].X, one.X)
    pd.testing.assert_frame_equal(model.get_graph(), reference.get_graph())


def test_order_of_cells(counts, train, plain):
    order = np.random.default_rng(0).permutation(plain.adata.n_obs)
    model = train(counts()[order].copy())
    edges = [set(m.get_graph()[["source", "target"]].itertuples(index=False, name=None)) for m in (plain, model)]
    assert edges[0] == edges[1]
    np.testing.assert_allclose(deltas(model), deltas(plain), atol=0.02)


@pytest.mark.parametrize("kind", ["dense", "csc", "int32", "layer", "backed"])
def test_any_storage_of_the_same_counts(counts, train, plain, tmp_path, kind):
    adata, setup = counts(), dict(COUNTS)
    if kind == "dense":
        adata.X = adata.X.toarray()
    elif kind == "csc":
        adata.X = sp.csc_matrix(adata.X)
    elif kind == "int32":
        adata.X = adata.X.astype(np.int32)
    elif kind == "layer":
        adata.layers["counts"], adata.X = adata.X, sp.csr_matrix(logs(adata))
        setup["layer"] = "counts"
    else:
        adata.write_h5ad(tmp_path / "backed.h5ad")
        adata = ad.read_h5ad(tmp_path / "backed.h5ad", backed="r")
    assert_same(train(adata, setup), plain)
    if kind == "backed":
        adata.file.close()


def test_dask(counts, train, plain):
    da = pytest.importorskip("dask.array")
    adata = counts()
    adata.X = da.from_array(adata.X.toarray(), chunks=(200, -1))
    np.testing.assert_allclose(deltas(train(adata)), deltas(plain), atol=0.02)


def test_single_precision_of_large_data(train, plain, monkeypatch):
    monkeypatch.setattr("scgim.data._reader.DOUBLE_PRODUCTS", 0)
    np.testing.assert_allclose(deltas(train()), deltas(plain), atol=0.02)


def test_small_chunks(train, plain, monkeypatch):
    monkeypatch.setattr("scgim.data._matrix.CHUNK", 37)
    np.testing.assert_allclose(deltas(train()), deltas(plain), atol=0.02)


def test_test_rows_are_not_learned_from(counts, train):
    adata = counts()
    gone = adata.obs["drug"].isin(["drug-001", "drug-004"]).to_numpy()
    adata.obs["split"] = np.where(gone, "test", "train")
    spoilt = adata.copy()
    spoilt.X = sp.csr_matrix(np.where(gone[:, None], 7 * adata.X.toarray(), adata.X.toarray()))
    setup = COUNTS | {"split_key": "split"}
    one, two = (train(each, setup, generator="mean") for each in (adata, spoilt))
    assert_same(one, two)


# ---- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["counts", "lognorm", "continuous"])
def test_likelihoods_on_every_scale(counts, train, scale):
    adata, setup = counts(), dict(COUNTS)
    if scale != "counts":
        adata.X = logs(adata) - (3 if scale == "continuous" else 0)
        setup = {"scale": scale}
    models = {each: train(adata.copy(), setup, likelihood=each) for each in ("auto", "cells", "means")}
    for name, model in models.items():
        assert_works(model)
        means = name == "means" or (name == "auto" and scale == "counts")
        assert ("from means" in repr(model)) == means
    assert_same(models["auto"], models["means" if scale == "counts" else "cells"])
    assert any((a != b).any() for a, b in zip(*(bits(models[k]).values() for k in ("cells", "means")), strict=True))


@pytest.mark.parametrize(
    "gim",
    [
        pytest.param({"intervention": "hard"}, id="hard"),
        pytest.param({"mechanism": "network"}, id="network"),
        pytest.param({"mechanism": "network", "intervention": "hard"}, id="hard networks"),
        pytest.param({"mechanism": "network", "scale_shift": True}, id="noise of networks"),
        pytest.param({"likelihood": "cells", "scale_shift": True}, id="noise from cells"),
        pytest.param({"structure": "none"}, id="no edges"),
        pytest.param({"regulators": ["G0003", "G0005"]}, id="regulators"),
        *(pytest.param({"generator": name}, id=name) for name in ("mean", "kernel", "hill", "network")),
    ],
)
def test_settings(train, gim):
    model = train(**gim)
    assert_works(model)
    if "structure" in gim:
        assert model.get_graph().empty
    if "regulators" in gim:
        assert set(model.get_graph()["source"]) <= set(gim["regulators"])


@pytest.mark.parametrize(
    ("scale", "likelihood"), [("counts", "auto"), ("counts", "means"), ("lognorm", "means"), ("continuous", "means")]
)
def test_noise_that_means_do_not_show_is_refused(counts, setup_kwargs, scale, likelihood):
    adata = counts()
    if scale != "counts":
        adata.X = logs(adata)
    extra = COUNTS if scale == "counts" else {"scale": scale}
    scgim.setup_anndata(adata, **(setup_kwargs | extra))
    with pytest.raises(ValueError, match="scale_shift=True needs every cell.*likelihood='cells'"):
        scgim.GIM(adata, scale_shift=True, likelihood=likelihood)


def test_an_unknown_likelihood_is_refused(counts, setup_kwargs):
    scgim.setup_anndata(adata := counts(), **(setup_kwargs | COUNTS))
    with pytest.raises(ValueError, match="'mean'.*'means'"):
        scgim.GIM(adata, likelihood="mean")


def test_a_required_edge_stays(train):
    prior = pd.DataFrame({"source": ["G0003"], "target": ["G0001"], "kind": ["required"]})
    edges = train(prior_graph=prior).get_graph()
    assert ((edges["source"] == "G0003") & (edges["target"] == "G0001")).any()


@pytest.mark.parametrize("gim", [{}, {"intervention": "hard"}, {"mechanism": "network"}], ids=str)
def test_validation_contexts(train, gim):
    model = train(generator="hill", train={"train_size": 0.7, "early_stopping": True}, **gim)
    assert np.isfinite(model.history["nll_validation"].to_numpy(float)).all()
    assert len(model.summary_.design.drug) == 7
    assert_works(model)


# ---- screens of other shapes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cells", [1, 2])
@pytest.mark.parametrize("gim", [{}, {"intervention": "hard"}, {"mechanism": "network"}], ids=str)
def test_contexts_of_few_cells(counts, train, cells, gim):
    """They may say little, but nothing infinite."""
    adata = counts(n_cells=cells)
    model = train(adata, **gim)
    assert_works(model)
    assert model.rank_targets(evidence="data").groupby("drug")["probability"].sum().mean() < 2


def test_one_context_of_one_cell_beside_others(counts, train):
    adata = counts()
    rare = np.flatnonzero(adata.obs["drug"] == "drug-003")[1:]
    adata = adata[np.setdiff1d(np.arange(adata.n_obs), rare)].copy()
    model = train(adata)
    assert_works(model)
    assert (model.summary_.measured["n"][model.summary_.design.drug == 3] < 10).all()


@pytest.mark.filterwarnings("ignore:Only 3 control cells")
def test_few_controls(counts, train):
    assert_works(train(counts(n_control=3)))


def in_groups(adata, seed=0):
    """In two lines and two batches, whose controls have other rates of every gene."""
    rng = np.random.default_rng(seed)
    line, batch = rng.integers(2, size=(2, adata.n_obs))
    keep = rng.uniform(0.3, 1, size=(2, 2, adata.n_vars))[line, batch]
    adata.X = sp.csr_matrix(rng.binomial(adata.X.toarray().astype(int), keep).astype(np.float32))
    adata.obs["line"], adata.obs["plate"] = np.array(["A549", "K562"])[line], np.array(["p1", "p2"])[batch]
    return adata


def test_lines_and_batches(counts, train):
    adata = in_groups(counts(depth=20.0, n_cells=200, n_control=1000))
    model = train(adata, COUNTS | {"cell_line_key": "line", "batch_key": "plate"})
    assert_works(model)
    pred = model.predict(as_="delta")
    seen = []
    for line in ("A549", "K562"):
        each = [observed(adata[(adata.obs["line"] == line) & (adata.obs["plate"] == p)]) for p in ("p1", "p2")]
        seen.append((each[0] + each[1]) / 2)
    for line, change in zip(("A549", "K562"), seen, strict=True):
        rows = pred[pred.obs["cell_line"] == line]
        told = pd.DataFrame(rows.X, index=rows.obs["drug"].astype(str).to_numpy()).sort_index()
        assert np.corrcoef(told.to_numpy().ravel(), change.to_numpy().ravel())[0, 1] > 0.8


def test_row_sums_are_sizes_by_default(counts, train):
    with pytest.warns(UserWarning, match="row sums over only 12 genes"):
        model = train(counts(), {"scale": "counts"})
    assert_works(model)


def test_one_gene_or_one_drug(counts, train):
    adata = counts()
    one = adata[:, :1].copy()
    one = one[np.random.default_rng(0).permutation(one.n_obs)].copy()
    assert train(one).get_graph().empty
    alone = adata[adata.obs["drug"].isin(["DMSO", "drug-002"])].copy()
    assert_works(train(alone))


def test_setup_and_training_leave_the_data_alone(counts, train):
    adata, before = counts(), counts()
    train(adata)
    for key in [key for key in adata.uns if key.startswith("_scvi")]:
        del adata.uns[key]
    assert_equal(adata, before)


def test_contexts_too_weak_to_pay_learn_together_what_they_share():
    """At 3 counts a gene a condition brings a few nats for a target, less than it costs, and forty that share a motif bring many."""
    adata = scgim.datasets.simulate_screen(observation="counts", depth=3, seed=5)
    unseen = adata.uns["truth"]["unseen_drug"]
    drug = unseen["drug"].astype(str)
    features = pd.DataFrame(unseen["features"], drug, adata.uns["drug_features"].columns)
    features = features[~features.index.duplicated()].astype(float)
    scgim.setup_anndata(
        adata, drug_key="drug", control="DMSO", dose_key="dose", dose_unit="uM", features_key="drug_features", **COUNTS
    )
    f1 = []
    for target_penalty in (0.5, np.inf):
        model = scgim.GIM(adata, generator="hill")
        model.train(enable_progress_bar=False, plan_kwargs={"generator_target_penalty": target_penalty})
        ranking = model.rank_targets(
            drug=list(features.index), features=features, evidence="features", dose=sorted(set(unseen["dose"]))
        )
        called = ranking.pivot(index=["drug", "dose"], columns="gene", values="probability")[adata.var_names] > 0.5
        called = called.loc[list(zip(drug, unseen["dose"], strict=True))].to_numpy()
        truth = unseen["targets"] != 0
        f1.append(2 * (called & truth).sum() / (called.sum() + truth.sum()))
    assert f1[0] > 0.75
    assert f1[0] > f1[1] + 0.1
