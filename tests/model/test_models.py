"""Every mechanism, intervention and generator, alone and together."""

from __future__ import annotations

from itertools import product

import anndata as ad
import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch
from anndata.tests.helpers import assert_equal

import scgim
from scgim.data import _requirements

pytestmark = pytest.mark.usefixtures("generator_alone")

FORMS = ["cells", "samples", "mean", "delta"]
PAIR = {"drug": ["drug-003", "drug-001"], "dose": [2.0, 0.5]}
KINDS = {
    " ".join([mechanism, intervention, *(["noise"] if noise else [])]): {
        "mechanism": mechanism,
        "intervention": intervention,
        "scale_shift": noise,
        "generator": "hill",
    }
    for mechanism, intervention, noise in product(("linear", "network"), ("shift", "hard"), (False, True))
}
LINEAR = [kind for kind in KINDS if kind.startswith("linear")]
HARD = [kind for kind in KINDS if "hard" in kind]
QUIET = [kind for kind in KINDS if "noise" not in kind]
GENERATORS = ["mean", "kernel", "hill", "network", "identity"]


@pytest.fixture(scope="module")
def models(screen, fit):
    """``models(kind)``: a trained model of each of ``KINDS``, shared."""
    done = {}

    def get(kind):
        if kind not in done:
            done[kind] = fit(screen(), gim=KINDS[kind])
        return done[kind]

    return get


@pytest.fixture(scope="module")
def by_generator(screen, fit):
    """``by_generator(name, **gim)``: trained with this generator, shared."""
    done = {}

    def get(name, **gim):
        key = (name, *sorted(gim.items()))
        if key not in done:
            done[key] = fit(screen(), gim={"generator": name} | gim)
        return done[key]

    return get


@pytest.fixture
def new(screen) -> pd.DataFrame:
    """Features of two drugs that were not measured."""
    columns = screen().uns["drug_features"].columns
    bits = np.random.default_rng(0).integers(2, size=(2, len(columns)))
    return pd.DataFrame(bits, index=["new", "newer"], columns=columns)


def controls(model):
    return model.adata[model.adata.obs["drug"] == "DMSO"].copy()


def edges(model):
    return set(model.get_graph()[["source", "target"]].itertuples(index=False, name=None))


def true_edges(adata):
    source, target = np.nonzero(adata.varp["true_graph"].toarray())
    return set(zip(adata.var_names[source], adata.var_names[target], strict=True))


def descendants(model, gene):
    graph = nx.DiGraph(sorted(edges(model)))
    return {gene} | (nx.descendants(graph, gene) if gene in graph else set())


def force(monkeypatch, model, logit, psi):
    """Let the generator say this of every drug."""
    logit, psi = (torch.as_tensor(np.asarray(a, dtype=np.float64)) for a in (logit, psi))
    forward = lambda conditions: tuple(a.expand(len(conditions.drug), -1) for a in (logit, psi))
    monkeypatch.setattr(model.module.generator, "forward", forward)


# ---- every kind ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_to_the_bit(models, tmp_path, kind, assert_same_bits):
    model = models(kind)
    model.save(tmp_path / "model")
    again = scgim.GIM.load(tmp_path / "model")
    assert_same_bits(model, again)
    for as_, targets in zip(FORMS, ("sample", "expectation", "map", "expectation"), strict=True):
        asked = PAIR | {"as_": as_, "targets": targets, "n_cells": 4}
        assert_equal(again.predict(**asked), model.predict(**asked))
    for evidence in ("data", "features"):
        pd.testing.assert_frame_equal(again.rank_targets(evidence=evidence), model.rank_targets(evidence=evidence))
    for total in ("direct", "total"):
        pd.testing.assert_frame_equal(again.get_graph(total), model.get_graph(total))
    assert again.settings_ == model.settings_
    assert repr(again).splitlines()[4:] == repr(model).splitlines()[4:]


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_bits_in_any_order_of_genes(models, screen, fit, kind, assert_same_bits):
    order = np.random.default_rng(0).permutation(6)
    one, other = models(kind), fit(screen()[:, order].copy(), gim=KINDS[kind])
    assert_same_bits(one, other)
    pd.testing.assert_frame_equal(one.get_graph(), other.get_graph())
    pd.testing.assert_frame_equal(one.rank_targets(), other.rank_targets())
    for as_ in FORMS:
        a, b = (m.predict(**PAIR, as_=as_) for m in (one, other))
        np.testing.assert_array_equal(b[:, a.var_names].X, a.X)


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind in QUIET else [pytest.mark.slow]) for kind in KINDS]
)
def test_units_of_genes_change_nothing_but_units(models, screen, fit, kind):
    units = 2.0 ** np.array([-9, 0, 13, 3, -4, 6])  # of which floats are exact
    adata = screen()
    adata.X = adata.X * units.astype(np.float32)
    model = fit(adata, gim=KINDS[kind])
    assert edges(model) == edges(models(kind))
    for as_ in FORMS:
        one, other = (m.predict(**PAIR, as_=as_).X for m in (models(kind), model))
        assert (np.abs(other / units - one) < 1e-4 * models(kind).summary_.scale).all()
    one, other = (m.rank_targets().set_index(["drug", "dose", "gene"]).sort_index() for m in (models(kind), model))
    columns = ["probability", "effect", "effect_se"]
    np.testing.assert_allclose(other[columns], one[columns], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [kind for kind in LINEAR if kind != "linear hard noise"])
def test_order_of_cells(screen, fit, kind):
    adata = screen()
    shuffled = adata[np.random.default_rng(0).permutation(adata.n_obs)].copy()
    # the whole schedule: cut short, its large steps tip the signs of effects near zero, as rounding does with hard noise
    one, model = (fit(cells, gim=KINDS[kind], train={"max_epochs": None}) for cells in (adata, shuffled))
    assert edges(model) == edges(one)
    one, other = (m.predict(**PAIR, as_="mean").X for m in (one, model))
    assert (np.abs(one - other) < 1e-4 * model.summary_.scale).all()


@pytest.mark.parametrize("how", ["shift", "set"])
@pytest.mark.parametrize("kind", QUIET)
def test_do_leaves_all_but_descendants_alone(models, kind, how):
    model = models(kind)
    assert edges(model)
    for gene in model.adata.var_names:
        pred = model.do({gene: -2.0}, kind=how)
        below = pred.var_names.isin(descendants(model, gene))
        np.testing.assert_array_equal(pred.X[:, ~below], pred.layers["control"][:, ~below])
        own = pred[:, gene]
        sd = dict(zip(model.summary_.genes, model.summary_.scale, strict=True))[gene]
        mean = controls(model)[:, gene].X.mean(dtype=float)
        expected = mean - 2 * sd if how == "set" else own.layers["control"] - 2 * sd
        np.testing.assert_allclose(own.X, np.broadcast_to(expected, own.X.shape), atol=1e-4 * (1 + abs(mean)))


@pytest.mark.parametrize("kind", KINDS)
def test_data_leave_an_error(models, kind):
    table = models(kind).rank_targets()
    assert set(table["evidence"]) == {"data"}
    assert (table["effect_se"] > 0).all()
    assert np.isfinite(table[["score", "probability", "effect", "effect_se"]]).all(axis=None)


@pytest.mark.parametrize("kind", KINDS)
def test_forms_of_an_answer_agree(models, kind):
    sd = models(kind).summary_.scale
    for targets in ("expectation", "map"):
        cells, mean, delta = (
            models(kind).predict(**PAIR, as_=as_, targets=targets) for as_ in ("cells", "mean", "delta")
        )
        assert_close = lambda a, b: np.testing.assert_allclose(a / sd, b / sd, atol=2e-4)
        assert_close(cells.X.reshape(4, -1, 6).mean(1, dtype=float), mean.X)
        assert_close(mean.X - mean.layers["control"], delta.X)
        samples = models(kind).predict(drug="drug-003", dose=2.0, as_="samples", targets=targets, n_cells=4000)
        # networks bend noise that is drawn unlike that of the controls
        near = 0.1 if kind.startswith("linear") else 0.3
        np.testing.assert_allclose(samples.X.mean(0, dtype=float) / sd, mean.X[0] / sd, atol=near)


@pytest.mark.parametrize("kind", QUIET)
@pytest.mark.parametrize("as_", FORMS)
def test_certain_targets_are_the_same_in_every_sense(models, kind, as_, monkeypatch):
    model = models(kind)
    force(monkeypatch, model, [40, -40, 40, -40, 40, -40], np.linspace(-2, 2, 6))
    one, *others = (
        model.predict(drug="drug-000", dose=1.0, as_=as_, n_cells=9, targets=targets)
        for targets in ("expectation", "map", "sample")
    )
    assert np.abs(one.X - one.layers["control"]).max() > 0.5
    if as_ != "samples":  # drawing targets moves the stream of the noise
        for other in others:
            np.testing.assert_allclose(other.X, one.X, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", QUIET)
def test_nothing_touched_nothing_changed(models, kind, monkeypatch):
    model = models(kind)
    force(monkeypatch, model, np.full(6, -800), np.full(6, 5.0))
    for targets in ("expectation", "map", "sample"):
        pred = model.predict(drug="drug-000", dose=1.0, targets=targets)
        np.testing.assert_allclose(pred.X, pred.layers["control"], atol=1e-5)


@pytest.mark.parametrize("kind", ["linear shift", "network shift"])
def test_a_row_that_samples_draws_its_targets_once(models, kind, monkeypatch):
    model = models(kind)
    force(monkeypatch, model, np.zeros(6), np.full(6, 2.0))
    roots = ~np.isin(model.summary_.genes, model.get_graph()["target"])
    for seed in range(5):
        delta = model.predict(drug="drug-000", dose=1.0, as_="delta", targets="sample", seed=seed).X[0]
        shift = (delta / model.summary_.scale)[roots]
        assert (np.isclose(shift, 0, atol=1e-5) | np.isclose(shift, 2, atol=1e-5)).all()


# ---- hard interventions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", HARD)
@pytest.mark.parametrize("targets", ["expectation", "map", "sample"])
def test_a_replaced_mechanism_sees_no_parents(models, kind, targets, monkeypatch):
    """A gene that is hit for sure is psi and its own noise, whatever its parents are."""
    model = models(kind)
    gene = model.get_graph()["target"][0]
    at = model.summary_.genes.tolist().index(gene)
    hit = np.arange(6) == at
    force(monkeypatch, model, np.where(hit, 800, -800), np.where(hit, 1.5, 0.0))
    mechanism, scale = model.module.mechanism, model.summary_.scale
    z = model.summary_.standardized_controls()
    noise = (z - mechanism(z))[:, at].numpy()
    if model.module.scale_map is not None:
        query = model._predictor().resolve(drug="drug-000", dose=1.0)
        noise = noise * model._predictor().interventions(query, "").noise[0, at]
    pred = model.predict(drug="drug-000", dose=1.0, targets=targets)
    mean = model.summary_.line_mean("")
    np.testing.assert_allclose(pred.X[:, at], mean[at] + scale[at] * (1.5 + noise), atol=1e-4 * scale[at])
    # nor do they matter where they are moved themselves
    parents = list(np.flatnonzero(mechanism.graph[:, at].numpy()))
    both = hit | np.isin(np.arange(6), parents)
    force(monkeypatch, model, np.where(both, 800, -800), np.where(hit, 1.5, 3.0))
    moved = model.predict(drug="drug-000", dose=1.0, targets=targets)
    assert np.abs(moved.X[:, parents] - pred.X[:, parents]).min() > 1e-3
    np.testing.assert_allclose(moved.X[:, at], pred.X[:, at], atol=1e-4 * scale[at])


@pytest.mark.parametrize("kind", ["linear hard", "network hard"])
def test_samples_of_a_replaced_gene_are_independent_of_its_parents(models, kind, monkeypatch):
    model = models(kind)
    graph = model.get_graph()
    edge = graph.iloc[0]
    source, at = (model.summary_.genes.tolist().index(edge[end]) for end in ("source", "target"))
    hit = np.arange(6) == at
    tied = {}
    for name, logit in (("untouched", np.full(6, -800)), ("hit", np.where(hit, 800, -800))):
        force(monkeypatch, model, logit, np.where(hit, 1.0, 0.0))
        x = model.predict(drug="drug-000", dose=1.0, as_="samples", n_cells=4000).X
        tied[name] = abs(np.corrcoef(x[:, source], x[:, at])[0, 1])
    assert tied["hit"] < 0.06
    assert tied["untouched"] > 0.15


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        pytest.param({"intervention": "hard"}, 31 * 6**2, id="hard"),
        pytest.param({"scale_shift": True}, 31 * 6**2, id="noise"),
        pytest.param({"intervention": "hard", "mechanism": "network"}, 31 * 24**2, id="network"),
    ],
)
def test_what_would_not_fit_into_memory_is_refused(screen, fit, monkeypatch, options, numbers):
    monkeypatch.setattr(_requirements, "MAX_OWN", numbers - 1)
    with pytest.raises(
        ValueError, match=r"each of 31 conditions.*: \d+ GB for 6 genes.*highly_variable.*intervention='shift'"
    ):
        fit(screen(), gim=options)
    fit(screen(), gim={"generator": "hill"}, train={"max_epochs": 5})
    monkeypatch.setattr(_requirements, "MAX_OWN", numbers)
    fit(screen(), gim=options, train={"max_epochs": 5})


# ---- noise that drugs scale ---------------------------------------------------------------------------------------------------

FACTORS = {"G1": 2.0, "G2": 0.5}


def noisy_screen(n=100, n_control=400):
    """A chain G0 -> G1 -> G2, G3 alone. Drugs of one motif shift G1 and double its noise, of the other G2 and halve it."""
    rng = np.random.default_rng(0)
    cells, drugs = [], []
    for drug in [*["DMSO"] * (n_control // n), *(f"{motif}-{i}" for motif in FACTORS for i in range(6))]:
        motif = drug.split("-")[0]
        noise, shift = (dict.fromkeys(FACTORS, value) for value in (1.0, 0.0))
        if motif in FACTORS:
            noise[motif], shift[motif] = FACTORS[motif], 2.0
        x = rng.normal(size=(n, 4))
        x[:, 1] = x[:, 0] + shift["G1"] + noise["G1"] * x[:, 1]
        x[:, 2] = x[:, 1] + shift["G2"] + noise["G2"] * x[:, 2]
        cells.append(x)
        drugs += [drug] * n
    adata = ad.AnnData(
        np.concatenate(cells).astype(np.float32),
        pd.DataFrame({"drug": drugs}, index=[f"c{i}" for i in range(len(drugs))]),
        pd.DataFrame(index=["G0", "G1", "G2", "G3"]),
    )
    names = sorted(set(drugs) - {"DMSO"})
    bits = {motif: [float(name.startswith(motif)) for name in names] for motif in FACTORS}
    adata.uns["drug_features"] = pd.DataFrame(bits, index=names)
    return adata


@pytest.mark.parametrize("mechanism", ["linear", "network"])
def test_noise_of_touched_mechanisms(fit, mechanism):
    adata = noisy_screen()
    undosed = {"dose_key": None, "dose_unit": None}
    chain = pd.DataFrame({"source": ["G0", "G1"], "target": ["G1", "G2"], "kind": "required"})
    options = {"generator": "hill", "mechanism": mechanism, "scale_shift": True, "prior_graph": chain}
    model = fit(adata, gim=options, train={"max_epochs": 60}, **undosed)
    sigma = model.module.mechanism.variance.sqrt().numpy() * model.summary_.scale
    np.testing.assert_allclose(sigma, 1.0, atol=0.15)
    for motif, factor in FACTORS.items():
        at, query = int(motif[1]), model._predictor().resolve(drug=f"{motif}-0")
        touch = model._predictor().interventions(query, "").row(0)
        assert touch.probability[at] > 0.9
        assert np.sign(np.log(touch.noise[at])) == np.sign(np.log(factor))
        np.testing.assert_allclose(touch.noise[at], factor, rtol=0.2)
        x = model.predict(drug=f"{motif}-0", as_="samples", n_cells=4000).X.astype(float)
        own = adata[adata.obs["drug"].str.startswith(motif)].X.astype(float)
        np.testing.assert_allclose(x[:, :3].std(0), own[:, :3].std(0), rtol=0.15)
        np.testing.assert_allclose(x[:, at].std(), np.sqrt([1, 1 + factor**2, 2 + factor**2][at]), rtol=0.15)
        cells = model.predict(drug=f"{motif}-0")
        parent = at - 1
        left = (cells.X[:, at] - cells.X[:, parent]).std()
        np.testing.assert_allclose(left, factor, rtol=0.25)
    plain = fit(noisy_screen(), gim=options | {"scale_shift": False}, train={"max_epochs": 20}, **undosed)
    assert set(plain._predictor().interventions(plain._predictor().resolve(), "").noise.ravel()) == {1.0}


# ---- recovery -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] if kind.startswith("network") else []) for kind in QUIET]
)
def test_most_of_the_truth_is_found(screen, fit, kind):
    options = {name: KINDS[kind][name] for name in ("mechanism", "intervention")}
    adata = screen(n_genes=10, n_drugs=24, n_cells=40, n_control=400, doses=(0.5, 2.0), **options)
    model = fit(adata, gim=KINDS[kind], train={"max_epochs": 100})
    true, found = true_edges(adata), edges(model)
    assert len(true & found) >= 0.8 * len(true)
    assert len(true & found) >= 0.75 * len(found)
    truth = adata.uns["truth"]
    hit = pd.DataFrame(truth["targets"] > 0, index=truth["drugs"], columns=adata.var_names).stack()
    called = model.rank_targets(dose=2.0).set_index(["drug", "gene"])["probability"] > 0.5
    known = hit.loc[called.index]
    assert (called & known).sum() >= 0.8 * known.sum()
    assert (called & known).sum() >= 0.8 * called.sum()


# ---- generators -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("intervention", ["shift", pytest.param("hard", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", [*GENERATORS, "auto"])
def test_every_generator_does_everything(by_generator, new, screen, tmp_path, name, intervention):
    model = by_generator(name, intervention=intervention)
    if name == "auto":
        assert model.generator_ in {"mean", "kernel", "hill"}
        assert model.generator_scores_.index.tolist() == ["mean", "kernel", "hill"]
    else:
        assert model.generator_ == name
    assert model.generator_ in repr(model)
    asked = {"drug": ["new", "newer"], "features": new, "dose": [0.1, 1.0, 30.0]}
    if name == "identity":
        with pytest.raises(ValueError, match="'new' was not measured"):
            model.predict(**asked)
        asked = {"drug": "drug-001", "dose": [0.1, 1.0, 30.0]}
    for as_ in FORMS:
        assert np.isfinite(model.predict(**asked, as_=as_, n_cells=3).X).all()
    for table in (model.rank_targets(**asked, evidence="features"), model.rank_targets()):
        assert np.isfinite(table[["score", "probability", "effect", "effect_se"]]).all(axis=None)
        assert table["probability"].between(0, 1).all()
        assert (table["effect_se"] >= 0).all()
    assert (model.rank_targets()["effect_se"] > 0).all()
    model.save(tmp_path / "model")
    again = scgim.GIM.load(tmp_path / "model", adata=screen())
    assert again.generator_ == model.generator_
    assert_equal(again.predict(**asked, as_="samples", n_cells=3), model.predict(**asked, as_="samples", n_cells=3))
    pd.testing.assert_frame_equal(again.rank_targets(), model.rank_targets())
    again.annotate()
    written = again.adata.uns["scgim"]
    assert written["settings"]["generator"] == name
    assert written["chosen"]["generator"] == model.generator_
    assert written["generator_choice"]["asked"] == name
    assert np.isfinite(again.adata.obsm["scgim_shift"]).all()
    again.adata.write_h5ad(tmp_path / "screen.h5ad")
    assert_equal(ad.read_h5ad(tmp_path / "screen.h5ad"), again.adata)


@pytest.mark.parametrize("name", ["kernel", "mean"])
@pytest.mark.parametrize("intervention", ["shift", "hard"])
def test_unmeasured_drugs_leave_more_open(by_generator, new, name, intervention):
    model = by_generator(name, intervention=intervention)
    error = model.rank_targets(drug="new", features=new, dose=1.0, evidence="features")["effect_se"]
    assert (error > 0).any()


@pytest.mark.parametrize("name", ["hill", "network", "identity"])
def test_generators_that_learn_by_gradient_know_their_error(by_generator, name):
    error = by_generator(name).rank_targets(evidence="features")["effect_se"]
    assert (error > 0).any()


@pytest.mark.parametrize(
    ("name", "intervention"), [*product(GENERATORS, ["shift"]), ("hill", "hard"), ("network", "hard")]
)
@pytest.mark.parametrize("response", ["hill", "free", "none"])
def test_every_generator_takes_every_dose_response(screen, fit, name, response, intervention):
    options = {"generator": name, "dose_response": response, "intervention": intervention}
    model = fit(screen(), gim=options, train={"max_epochs": 5})
    pred = model.predict(drug="drug-003", dose=[0.0, 0.3, 1.0, 1e4], as_="delta")
    assert np.isfinite(pred.X).all()
    np.testing.assert_allclose(pred.X[0], 0, atol=1e-5)
    assert np.abs(pred.X[-1]).max() > 0
    if response == "none" and model.generator_ in {"hill", "identity"}:
        np.testing.assert_allclose(pred.X[1], pred.X[3], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mechanism", ["linear", pytest.param("network", marks=pytest.mark.slow)])
@pytest.mark.parametrize("intervention", ["shift", "hard"])
@pytest.mark.parametrize("name", GENERATORS)
def test_dose_zero_is_the_control(by_generator, new, name, intervention, mechanism):
    options = {} if mechanism == "linear" else {"mechanism": mechanism}
    model = by_generator(name, intervention=intervention, **options)
    asked = {"drug": "drug-003"} if name == "identity" else {"drug": "new", "features": new}
    for targets in ("expectation", "map", "sample"):
        pred = model.predict(**asked, dose=0.0, targets=targets)
        np.testing.assert_allclose(pred.X, pred.layers["control"], atol=1e-4)


@pytest.mark.parametrize("kind", ["linear shift noise", "linear hard noise"])
def test_dose_zero_scales_no_noise(models, kind):
    pred = models(kind).predict(drug="drug-003", dose=0.0)
    np.testing.assert_allclose(pred.X, pred.layers["control"], atol=1e-4)


@pytest.mark.parametrize("kind", ["linear shift", pytest.param("network hard", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", GENERATORS)
def test_without_doses(screen, fit, name, kind):
    options = {"mechanism": kind.split()[0], "intervention": kind.split()[1], "generator": name}
    model = fit(screen(doses=(1.0,)), gim=options, train={"max_epochs": 5}, dose_key=None, dose_unit=None)
    pred = model.predict(as_="cells", n_cells=3)
    assert np.isfinite(pred.X).all()
    assert pred.obs["dose"].isna().all()


@pytest.mark.parametrize("name", ["mean", "identity", "auto"])
def test_without_features(screen, fit, name):
    model = fit(screen(), gim={"generator": name}, features_key=None)
    assert model.generator_ == ("identity" if name == "auto" else name)
    assert np.isfinite(model.predict(as_="delta").X).all()


def test_the_mean_knows_no_drug(by_generator, new):
    for intervention in ("shift", "hard"):
        model = by_generator("mean", intervention=intervention)
        one = model.predict(drug=["new", "newer"], features=new, dose=1.0, as_="delta").X
        np.testing.assert_array_equal(one[0], one[1])
        np.testing.assert_array_equal(one[0], model.predict(drug="drug-003", dose=1.0, as_="delta").X[0])


def test_the_mean_of_linear_shifts_is_the_mean_of_what_was_seen(by_generator):
    model = by_generator("mean")
    fitted, mechanism = model.summary_, model.module.mechanism
    at = fitted.design.dose == 1.0
    residual = fitted.measured["residual"][at]
    cells = fitted.statistics.n[:, None]
    n = 1 / (1 / cells[1:][at] + 1 / cells[0])
    # against the controls, whose mean is 0
    shift = (n * (residual + mechanism.bias.detach().numpy())).sum(0) / n.sum()
    w = mechanism.coefficients.numpy()
    expected = np.linalg.solve((np.eye(6) - w).T, shift) * fitted.scale
    np.testing.assert_allclose(
        model.predict(drug="drug-000", dose=1.0, as_="delta").X[0], expected, rtol=1e-3, atol=1e-4
    )


# ---- cell lines -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def in_two_lines(screen):
    """Every drug shifts the last gene, by 3 in one line and by -3 in the other."""

    def build():
        adata, rng = screen(), np.random.default_rng(1)
        adata.obs["line"] = np.array(["A549", "K562"])[rng.integers(2, size=adata.n_obs)]
        treated = (adata.obs["drug"] != "DMSO").to_numpy()
        sign = np.where(adata.obs["line"] == "A549", 1, -1)
        sd = np.asarray(adata.X[~treated, -1], dtype=float).std()
        adata.X[:, -1] += (3 * sd * sign * treated).astype(np.float32)
        return adata

    return build


def test_the_mean_differs_by_line(in_two_lines, fit):
    for intervention in ("shift", "hard"):
        model = fit(in_two_lines(), gim={"generator": "mean", "intervention": intervention}, cell_line_key="line")
        pred = model.predict(drug="drug-000", dose=1.0, as_="delta")
        assert pred.obs["cell_line"].tolist() == ["A549", "K562"]
        change = pred.X[:, -1] / model.summary_.scale[-1]
        assert change[0] > 1.5
        assert change[1] < -1.5


@pytest.mark.parametrize("kind", ["linear shift", pytest.param("network hard", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", GENERATORS)
def test_a_new_line_brings_its_own_controls(in_two_lines, fit, name, kind):
    options = {"mechanism": kind.split()[0], "intervention": kind.split()[1], "generator": name}
    model = fit(in_two_lines(), gim=options, train={"max_epochs": 8}, cell_line_key="line")
    own = controls(model)[:20].copy()
    own.obs["line"] = "HeLa"
    own.X = own.X + np.float32(10)
    for as_ in FORMS:
        pred = model.predict(own, drug="drug-000", dose=1.0, as_=as_, n_cells=5)
        assert np.isfinite(pred.X).all()
        assert set(pred.obs["cell_line"]) == {"HeLa"}
    if kind == "linear shift" and name == "mean":
        both = model.predict(drug="drug-000", dose=1.0, as_="delta").X
        new = model.predict(own, drug="drug-000", dose=1.0, as_="delta").X
        assert both[:, -1].min() < new[0, -1] < both[:, -1].max()  # all lines' mean
    away = own.copy()
    away.X = away.X + np.float32(5)
    one, other = (model.predict(cells, drug="drug-000", dose=1.0, as_="delta").X for cells in (own, away))
    np.testing.assert_allclose(one, other, atol=1e-3)  # where a line lies is not what a drug does to it
