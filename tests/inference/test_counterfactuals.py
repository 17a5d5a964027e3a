from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata.tests.helpers import assert_equal
from scipy import sparse

import scgim

pytestmark = pytest.mark.usefixtures("generator_alone")

COLUMNS = [
    "drug",
    "smiles",
    "dose",
    "cell_line",
    "source_cell",
    "nearest_drug",
    "similarity",
    "dose_in_range",
    "trust",
    "evidence",
]
FORMS = ["cells", "samples", "mean", "delta"]
PAIR = {"drug": ["drug-003", "drug-001"], "dose": [2.0, 0.5]}
LINES = {"cell_line_key": "line", "batch_key": "plate"}


def controls_of(adata):
    return np.asarray(adata.X[(adata.obs["drug"] == "DMSO").to_numpy()])


def controls(model):
    return model.adata[model.adata.obs["drug"] == "DMSO"].copy()


def matrix(model):
    """Coefficients in the order of the AnnData's genes."""
    table = model.get_graph()
    w = pd.DataFrame(0.0, index=model.adata.var_names, columns=model.adata.var_names)
    for edge in table.itertuples():
        w.loc[edge.source, edge.target] = edge.weight
    return w.to_numpy()


def interventions(model, **query):
    """Probabilities and effects of one drug at one dose, as `rank_targets` tells them."""
    table = model.rank_targets(evidence="features", **query).set_index("gene").loc[model.adata.var_names]
    return table["probability"].to_numpy(), table["effect"].to_numpy()


def sd(model):
    return np.asarray(controls(model).X, dtype=float).std(0)


@pytest.fixture(scope="module")
def lines(in_lines, fit):
    return fit(in_lines(3.0), **LINES)


@pytest.fixture(scope="module")
def chemical(screen, fit):
    """Trained on compounds with SMILES. (To the kernel a new name is a new drug, whatever its structure.)"""
    return fit(screen(chemistry="sciplex"), gim={"generator": "hill"}, smiles_key="smiles", features_key=None)


# ---- what comes back -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_", FORMS)
def test_layout(model, as_):
    pred = model.predict(**PAIR, as_=as_, n_cells=None if as_ != "samples" else 7)
    n = {"cells": 100, "samples": 7, "mean": 1, "delta": 1}[as_]
    assert pred.shape == (4 * n, 6)
    assert pred.var_names.tolist() == model.adata.var_names.tolist()
    assert isinstance(pred.X, np.ndarray)
    assert pred.X.dtype == pred.layers["control"].dtype == np.float32
    assert list(pred.obs) == COLUMNS
    assert pred.obs_names.is_unique
    assert pred.obs["drug"].tolist() == np.repeat(["drug-003", "drug-003", "drug-001", "drug-001"], n).tolist()
    assert pred.obs["dose"].dtype == np.float64
    assert pred.obs["dose"].tolist() == np.repeat([2.0, 0.5, 2.0, 0.5], n).tolist()
    source = controls(model).obs_names.tolist() * 4 if as_ == "cells" else [""] * (4 * n)
    assert pred.obs["source_cell"].tolist() == source
    about = pred.uns["scgim"]["prediction"]
    assert about["kind"] == as_
    assert about["scale"] == "continuous"
    assert about["dose_unit"] == "uM"


@pytest.mark.parametrize("as_", FORMS)
@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_round_trip(lines, tmp_path, kind, as_):
    pred = lines.predict(**PAIR, as_=as_, n_cells=3)
    path = tmp_path / f"pred.{kind}"
    getattr(pred, f"write_{kind}")(path)
    assert_equal(getattr(ad, f"read_{kind}")(path), pred)


def test_plain_names_round_trip(model, tmp_path):
    pred = model.predict(**PAIR, as_="mean")  # no lines, no SMILES: columns of empty strings
    pred.write_h5ad(tmp_path / "pred.h5ad")
    pred.write_zarr(tmp_path / "pred.zarr")
    assert_equal(ad.read_h5ad(tmp_path / "pred.h5ad"), pred)
    assert_equal(ad.read_zarr(tmp_path / "pred.zarr"), pred)


def test_everything_by_default(model):
    pred = model.predict(as_="mean")
    asked = list(zip(pred.obs["drug"], pred.obs["dose"], strict=True))
    assert asked == [(drug, dose) for drug in model.drugs for dose in (0.5, 1.0, 2.0)]


# ---- what it is ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("targets", ["expectation", "map"])
def test_delta_solves_the_structural_equations(model, targets):
    w = matrix(model)
    for drug, dose in [("drug-000", 0.5), ("drug-007", 2.0)]:
        probability, effect = interventions(model, drug=drug, dose=dose)
        weight = probability if targets == "expectation" else probability > 0.5
        expected = sd(model) * np.linalg.solve((np.eye(6) - w).T, weight * effect)
        delta = model.predict(drug=drug, dose=dose, as_="delta", targets=targets).X[0]
        assert np.abs(delta).max() > 0.1
        np.testing.assert_allclose(delta, expected, rtol=1e-4, atol=1e-5)


def test_mean_is_control_mean_plus_delta(model):
    mean, delta = (model.predict(**PAIR, as_=as_) for as_ in ("mean", "delta"))
    expected = np.asarray(controls(model).X, dtype=float).mean(0)
    for pred in (mean, delta):
        np.testing.assert_allclose(pred.layers["control"], np.tile(expected, (4, 1)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(mean.X, mean.layers["control"] + delta.X, rtol=1e-5, atol=1e-6)


def test_cells_keep_their_own_noise(model):
    pred, delta = (model.predict(**PAIR, as_=as_) for as_ in ("cells", "delta"))
    np.testing.assert_array_equal(pred.layers["control"], np.tile(controls(model).X, (4, 1)))
    change = (pred.X - pred.layers["control"]).reshape(4, 100, 6)
    np.testing.assert_allclose(change, np.broadcast_to(delta.X[:, None], change.shape), atol=1e-5)


def test_samples_have_the_models_mean_and_covariance(model):
    n, w = 20_000, matrix(model)
    pred = model.predict(drug="drug-000", dose=2.0, as_="samples", n_cells=n)
    mean = model.predict(drug="drug-000", dose=2.0, as_="mean").X[0]
    total = np.linalg.inv(np.eye(6) - w)
    noise = model.module.mechanism.variance.numpy()  # genes of this screen are sorted
    covariance = total.T @ np.diag(noise) @ total * np.outer(sd(model), sd(model))
    error = np.sqrt(np.diag(covariance) / n)
    assert (np.abs(pred.X.mean(0, dtype=float) - mean) < 5 * error).all()
    np.testing.assert_allclose(np.cov(pred.X.T.astype(float)), covariance, atol=0.05 * covariance.diagonal().max())
    np.testing.assert_allclose(pred.layers["control"][0], controls(model).X.mean(0), atol=1e-5)


def test_sampled_targets_are_all_or_nothing(model):
    w = matrix(model)
    probability, effect = interventions(model, drug="drug-000", dose=2.0)
    pred = model.predict(drug="drug-000", dose=2.0, targets="sample")
    own = (pred.X - pred.layers["control"]).astype(float) / sd(model)
    psi = own - own @ w
    hit = np.abs(psi - effect) < np.abs(psi)
    np.testing.assert_allclose(psi, hit * effect, atol=1e-4)
    assert (hit[:, (probability > 0.999) & (np.abs(effect) > 0.1)]).all()
    many = model.predict(drug="drug-000", dose=2.0, targets="sample", as_="samples", n_cells=20_000)
    one = model.predict(drug="drug-000", dose=2.0, as_="mean")
    np.testing.assert_allclose(many.X.mean(0, dtype=float), one.X[0], atol=0.05 * sd(model).max())


def test_logarithms_are_called_that(screen, fit, tmp_path):
    adata = screen(observation="counts")
    logs = adata.copy()
    size = adata.obs["n_counts"].to_numpy()[:, None]
    logs.X = np.log1p(1e4 * adata.X.toarray() / size).astype(np.float32)
    by_counts = fit(adata, scale="counts", size_factor_key="n_counts", gim={"likelihood": "cells"}).predict(**PAIR)
    by_logs = fit(logs, scale="lognorm", gim={"likelihood": "cells"}).predict(**PAIR)
    np.testing.assert_allclose(by_counts.X, np.maximum(by_logs.X, 0), atol=1e-4)  # of counts, and so not below 0
    np.testing.assert_allclose(by_counts.layers["control"][:100], controls_of(logs), atol=1e-6)
    assert by_counts.uns["log1p"] == by_logs.uns["log1p"] == {}
    assert by_counts.uns["scgim"]["prediction"]["scale"] == "counts"
    for kind in ("h5ad", "zarr"):
        getattr(by_counts, f"write_{kind}")(tmp_path / kind)
        assert_equal(getattr(ad, f"read_{kind}")(tmp_path / kind), by_counts)


def test_differences_and_other_scales_are_no_logarithms(model):
    assert "log1p" not in model.predict(**PAIR, as_="mean").uns
    assert "log1p" not in model.predict(**PAIR, as_="delta").uns


# ---- draws and seeds -------------------------------------------------------------------------------------------------


def test_n_cells(model):
    few = model.predict(**PAIR, n_cells=7)
    sources = few.obs["source_cell"].to_numpy().reshape(4, 7)
    assert (sources == sources[0]).all()
    assert sources[0].tolist() == sorted(set(sources[0]))
    everything = model.predict(**PAIR)
    np.testing.assert_array_equal(few.X[:7], everything[everything.obs["source_cell"].isin(sources[0])].X[:7])
    assert model.predict(**PAIR, n_cells=10**6).n_obs == 4 * 100
    assert model.predict(**PAIR, as_="samples").n_obs == 4 * 100


@pytest.mark.parametrize("options", [{"as_": "cells", "n_cells": 7}, {"as_": "samples"}, {"targets": "sample"}])
def test_seed(model, options):
    one, same, other = (model.predict(**PAIR, **options, seed=seed) for seed in (1, 1, 2))
    assert_equal(one, same)
    assert (one.X != other.X).any()


@pytest.mark.parametrize("as_", FORMS)
@pytest.mark.parametrize("targets", ["expectation", "map", "sample"])
def test_nothing_depends_on_what_else_is_asked(lines, as_, targets):
    options = {"as_": as_, "targets": targets, "n_cells": 5}
    company, alone = lines.predict(**PAIR, **options), lines.predict(drug="drug-001", dose=0.5, **options)
    part = company[(company.obs["drug"] == "drug-001") & (company.obs["dose"] == 0.5)]
    np.testing.assert_array_equal(part.X, alone.X)
    assert part.obs["source_cell"].tolist() == alone.obs["source_cell"].tolist()
    k562 = controls(lines)
    k562 = k562[k562.obs["line"] == "K562"]
    both, one = (lines.predict(cells, **PAIR, **options) for cells in (controls(lines), k562))
    np.testing.assert_array_equal(both[both.obs["cell_line"] == "K562"].X, one.X)


def test_samples_of_different_drugs_share_no_noise(model):
    pred = model.predict(**PAIR, as_="samples")
    noise = (pred.X.reshape(4, -1, 6) - pred.X.reshape(4, -1, 6).mean(1, keepdims=True)).reshape(4, -1)
    assert np.abs(np.corrcoef(noise) - np.eye(4)).max() < 0.3


# ---- drugs that were not measured ------------------------------------------------------------------------------------


def test_unseen_drug_by_features(model):
    table = model.adata.uns["drug_features"]
    rng = np.random.default_rng(0)
    bits = pd.DataFrame(rng.integers(2, size=(2, table.shape[1])), index=["twin", "new"], columns=table.columns)
    bits.loc["twin"] = table.loc["drug-004"].astype(int)
    shuffled = bits[rng.permutation(bits.columns)]
    pred = model.predict(drug=["new", "twin"], features=shuffled, as_="mean")
    assert pred.obs["dose"].tolist() == [0.5, 1.0, 2.0] * 2  # all training doses
    np.testing.assert_array_equal(pred.X[3:], model.predict(drug="drug-004", as_="mean").X)
    known, new = table.to_numpy() > 0, bits.loc["new"].to_numpy() > 0
    tanimoto = (known & new).sum(1) / (known | new).sum(1)
    assert pred.obs["nearest_drug"].tolist() == [table.index[tanimoto.argmax()]] * 3 + ["drug-004"] * 3
    np.testing.assert_allclose(pred.obs["similarity"], [tanimoto.max()] * 3 + [1.0] * 3)
    assert set(pred.obs["trust"][3:]) == {"edge"}


def test_unseen_drug_by_smiles(chemical):
    smiles = "CC(=O)Nc1ccc(O)cc1"
    pred = chemical.predict(drug="paracetamol", smiles=smiles, dose=1.0, as_="mean")
    assert pred.obs["smiles"].tolist() == [smiles]
    row = scgim.pp.fingerprints({"paracetamol": smiles})[0]
    by_features = chemical.predict(drug="paracetamol", features=row, dose=1.0, as_="mean")
    np.testing.assert_array_equal(pred.X, by_features.X)
    drug = chemical.drugs[0]
    own = chemical.adata.obs.loc[chemical.adata.obs["drug"] == drug, "smiles"].iloc[0]
    renamed = chemical.predict(drug="another name", smiles=own, as_="mean")
    np.testing.assert_array_equal(renamed.X, chemical.predict(drug=drug, as_="mean").X)
    assert renamed.obs["nearest_drug"].tolist() == [drug] * 3
    assert chemical.predict(drug=drug, as_="mean").obs["smiles"].tolist() == [own] * 3


@pytest.mark.parametrize(
    ("dose", "inside", "trust"),
    [
        pytest.param(0.5, True, "in-domain", id="lowest"),
        pytest.param(0.7, True, "in-domain", id="between"),
        pytest.param(4.0, False, "edge", id="twice the highest"),
        pytest.param(0.2, False, "extrapolation", id="far below"),
    ],
)
def test_trust_in_a_dose(model, dose, inside, trust):
    obs = model.predict(drug="drug-000", dose=dose, as_="mean").obs
    assert obs["dose_in_range"].tolist() == [inside]
    assert obs["trust"].tolist() == [trust]
    assert obs["similarity"].tolist() == [1.0]


def test_dose_response_is_monotone(model):
    delta = np.abs(model.predict(drug="drug-000", dose=[0.1, 1.0, 10.0, 100.0], as_="delta").X)
    assert (np.diff(delta, axis=0) >= -1e-6).all()


def test_without_doses(screen, fit):
    model = fit(screen(doses=(1.0,)), dose_key=None, dose_unit=None)
    pred = model.predict(drug="drug-002", as_="mean")
    assert pred.obs["dose"].isna().all()
    assert pred.obs["dose"].dtype == np.float64
    assert pred.obs["trust"].tolist() == ["in-domain"]
    with pytest.raises(ValueError, match="without dose_key"):
        model.predict(drug="drug-002", dose=1.0)


# ---- control cells of the user's -------------------------------------------------------------------------------------


def test_own_controls_in_any_form(model):
    own = controls(model)
    expected = model.predict(own, **PAIR)
    np.testing.assert_allclose(expected.X, model.predict(**PAIR).X, atol=1e-5)
    rng = np.random.default_rng(0)
    forms = {
        "genes in another order": own[:, rng.permutation(own.n_vars)],
        "further genes": ad.concat([own, ad.AnnData(own.X, own.obs, pd.DataFrame(index=list("abcdef")))], axis=1),
        "sparse": ad.AnnData(sparse.csr_matrix(own.X), own.obs, own.var),
        "without columns": ad.AnnData(own.X, pd.DataFrame(index=own.obs_names), own.var),
    }
    for form, cells in forms.items():
        np.testing.assert_allclose(model.predict(cells, **PAIR).X, expected.X, atol=1e-5, err_msg=form)


def test_own_controls_are_the_start(model):
    own = controls(model)[:30].copy()
    own.X = own.X + np.float32(5)
    pred = model.predict(own, drug="drug-000", dose=1.0)
    np.testing.assert_array_equal(pred.layers["control"], own.X)
    assert pred.obs["source_cell"].tolist() == own.obs_names.tolist()
    delta = model.predict(drug="drug-000", dose=1.0, as_="delta").X
    np.testing.assert_allclose(pred.X - own.X, np.repeat(delta, 30, axis=0), atol=1e-5)
    mean = model.predict(own, drug="drug-000", dose=1.0, as_="mean")
    np.testing.assert_allclose(mean.layers["control"][0], own.X.mean(0), rtol=1e-5)


def test_treated_cells_are_refused(model):
    with pytest.raises(ValueError, match="needs control cells, but 600 of 700 rows"):
        model.predict(model.adata, drug="drug-000")


# ---- cell lines ------------------------------------------------------------------------------------------------------


def test_every_line_starts_from_its_own_controls(lines):
    obs, x = lines.adata.obs, pd.DataFrame(lines.adata.X.astype(float), index=lines.adata.obs_names)
    control = obs["drug"] == "DMSO"
    pred = lines.predict(**PAIR, as_="mean")
    assert pred.obs["cell_line"].tolist() == ["A549", "K562"] * 4
    for line in ("A549", "K562"):
        expected = x[control & (obs["line"] == line)].mean()
        here = pred[pred.obs["cell_line"] == line].layers["control"]
        np.testing.assert_allclose(here, np.tile(expected, (4, 1)), rtol=1e-4, atol=1e-4)
    cells = lines.predict(**PAIR)
    assert (obs["line"][cells.obs["source_cell"]].to_numpy() == cells.obs["cell_line"].to_numpy()).all()
    np.testing.assert_array_equal(cells.layers["control"], lines.adata[cells.obs["source_cell"].to_numpy()].X)


def test_offsets_of_lines_and_batches_change_nothing(in_lines, lines, fit):
    plain = fit(in_lines(0.0), **LINES)
    a, b = plain.get_graph(), lines.get_graph()
    assert a[["source", "target"]].equals(b[["source", "target"]])
    a, b = plain.rank_targets(), lines.rank_targets()
    pd.testing.assert_frame_equal(a, b, atol=1e-3, rtol=1e-3)
    a, b = (m.predict(as_="delta").X for m in (plain, lines))
    np.testing.assert_allclose(a, b, atol=1e-3)


def test_an_unseen_line_needs_its_controls(lines):
    cells = controls(lines)
    cells.obs["line"] = "MCF7"
    pred = lines.predict(cells, drug="drug-000", as_="delta")
    assert set(pred.obs["cell_line"]) == {"MCF7"}
    assert np.isfinite(pred.X).all()


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "error", "message"),
    [
        pytest.param({"as_": "cell"}, ValueError, "as_='cell' does not exist. Did you mean 'cells'", id="as_"),
        pytest.param({"targets": "MAP"}, ValueError, "Did you mean 'map'", id="targets"),
        pytest.param({"n_cells": 0}, ValueError, "n_cells must be at least 1, and a whole number, got 0", id="n_cells"),
        pytest.param({"drug": "drug-0O3"}, KeyError, "drug-003", id="unknown drug"),
        pytest.param({"drug": "DMSO"}, ValueError, "'DMSO' is the control", id="control"),
        pytest.param({"dose": -1.0}, ValueError, "not negative", id="dose"),
        pytest.param({"drug": "x", "smiles": "CCO"}, ValueError, "do not come from SMILES", id="SMILES"),
    ],
)
def test_refusals(model, query, error, message):
    with pytest.raises(error, match=message):
        model.predict(**({"drug": "drug-000"} | query))
