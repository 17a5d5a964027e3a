"""Several drugs at once."""

from __future__ import annotations

from itertools import product

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from anndata.tests.helpers import assert_equal

from scgim.module import TreatmentInputs

pytestmark = pytest.mark.usefixtures("generator_alone")

A, B, C = "drug-001", "drug-004", "drug-007"
FORMS = ["cells", "samples", "mean", "delta"]
KINDS = {
    "linear shift": {},
    "linear hard": {"intervention": "hard"},
    "network shift": {"mechanism": "network"},
    "network hard": {"mechanism": "network", "intervention": "hard"},
    "noise": {"scale_shift": True},
}


@pytest.fixture(scope="module")
def models(screen, fit):
    """``models(kind)``: a trained model of each of ``KINDS``, shared."""
    done = {}

    def get(kind):
        if kind not in done:
            done[kind] = fit(screen(), gim={"generator": "hill"} | KINDS[kind], train={"max_epochs": 20})
        return done[kind]

    return get


@pytest.fixture(scope="module")
def chemical(screen, fit):
    return fit(screen(chemistry="sciplex"), gim={"generator": "hill"}, smiles_key="smiles", features_key=None)


@pytest.fixture(scope="module")
def undosed(screen, fit):
    return fit(screen(doses=(1.0,)), gim={"generator": "hill"}, dose_key=None, dose_unit=None)


@pytest.fixture
def new(models) -> pd.DataFrame:
    """Features of two drugs that were not measured."""
    columns = models("linear shift").drug_table_.frame.columns
    bits = np.random.default_rng(0).integers(2, size=(2, len(columns)))
    return pd.DataFrame(bits, index=["new", "newer"], columns=columns)


def said(model, *parts):
    """Of single drugs at doses, by the generator itself: p, psi, log noise scale, ``(parts, genes)`` each."""
    design = model.summary_.design
    index = np.array([design.drugs.tolist().index(name) for name, _ in parts])
    dose = np.array([value for _, value in parts])
    rows = len(parts)
    conditions = TreatmentInputs(
        torch.as_tensor(design.features[index]),
        torch.as_tensor(index),
        torch.as_tensor(np.log(dose / np.exp(np.log(design.dose).mean()))),
        torch.zeros(rows, dtype=torch.int64),
    )
    with torch.no_grad():
        logits, psi = model.module.generator(conditions)
        scale = torch.zeros_like(psi) if model.module.scale_map is None else model.module.scale_map(conditions)
    return 1 / (1 + np.exp(-logits.numpy())), psi.numpy(), scale.numpy()


def by_gene(model, column, **query):
    """A column of `rank_targets`, genes sorted."""
    return model.rank_targets(**query).sort_values("gene")[column].to_numpy()


# ---- what comes back -----------------------------------------------------------------------------------------------------


def test_layout(models):
    pred = models("linear shift").predict(drug=[(B, A), C], dose=[(2.0, 0.5), (1.0, 1.0), 0.5], as_="mean")
    assert pred.obs["drug"].tolist() == [f"{A} + {B}"] * 2 + [C]
    assert pred.obs["doses"].tolist() == ["0.5 + 2", "1 + 1", "0.5"]
    np.testing.assert_array_equal(pred.obs["dose"], [np.nan, np.nan, 0.5])
    assert pred.layers["additive"].dtype == np.float32
    assert pred.layers["additive"].shape == pred.shape
    assert pred.obs_names.is_unique


@pytest.mark.parametrize("as_", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_order_of_drugs_changes_no_bit(models, kind, as_):
    options = {"as_": as_, "n_cells": 5}
    one, other = (
        models(kind).predict(drug=drugs, dose=dose, **options)
        for drugs, dose in [((A, B, C), (0.5, 1.0, 2.0)), ((C, A, B), (2.0, 0.5, 1.0))]
    )
    assert_equal(one, other)
    assert set(one.obs["drug"]) == {f"{A} + {B} + {C}"}
    assert set(one.obs["doses"]) == {"0.5 + 1 + 2"}


def test_doses_go_with_the_drug_beside_which_they_stand(models):
    model = models("linear shift")
    one, other = (model.predict(drug=(A, B), dose=dose, as_="delta").X for dose in [(0.5, 2.0), (2.0, 0.5)])
    assert np.abs(one - other).max() > 1e-3


def test_all_pairs_of_the_drugs_own_doses_by_default(screen, fit):
    adata = screen()
    adata = adata[~((adata.obs["drug"] == B) & (adata.obs["dose"] == 1.0))].copy()
    model = fit(adata)
    pred = model.predict(drug=(B, A), as_="mean")
    expected = [f"{a:g} + {b:g}" for b, a in product((0.5, 2.0), (0.5, 1.0, 2.0))]  # in the order asked
    assert pred.obs["doses"].tolist() == expected


@pytest.mark.parametrize("as_", FORMS)
@pytest.mark.parametrize("targets", ["expectation", "map", "sample"])
@pytest.mark.parametrize("kind", ["linear shift", "network hard", "noise"])
def test_single_drugs_keep_their_bits_beside_combinations(models, kind, targets, as_):
    options = {"as_": as_, "targets": targets, "n_cells": 5}
    mixed = models(kind).predict(drug=[A, (A, B), B], dose=[1.0, (1.0, 2.0)], **options)
    for drugs, dose in [(A, 1.0), (B, 1.0), ((A, B), (1.0, 2.0))]:
        alone = models(kind).predict(drug=drugs, dose=dose, **options)
        name = drugs if isinstance(drugs, str) else " + ".join(drugs)
        part = mixed[mixed.obs["drug"] == name]
        np.testing.assert_array_equal(part.X, alone.X)
        np.testing.assert_array_equal(part.layers["control"], alone.layers["control"])
        additive = alone.X if isinstance(drugs, str) else alone.layers["additive"]
        np.testing.assert_array_equal(part.layers["additive"], additive)
    table = models(kind).rank_targets(drug=[A, (A, B)], dose=[1.0, (1.0, 2.0)])
    single = models(kind).rank_targets(drug=A, dose=1.0)
    pd.testing.assert_frame_equal(table[table["drug"] == A].drop(columns="doses"), single)


def test_a_tuple_of_one_is_that_drug(models):
    model = models("linear shift")
    one, other = (model.predict(drug=drug, dose=1.0, as_="cells") for drug in ((A,), A))
    assert_equal(one, other)
    assert "additive" not in other.layers
    assert "doses" not in other.obs


@pytest.mark.parametrize("as_", ["cells", "mean"])
@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_round_trip(models, tmp_path, kind, as_):
    pred = models("network hard").predict(drug=[(A, B), C], dose=[(1.0, 2.0), 0.5], as_=as_, n_cells=3)
    getattr(pred, f"write_{kind}")(tmp_path / kind)
    assert_equal(getattr(ad, f"read_{kind}")(tmp_path / kind), pred)


def test_saved_models_combine_alike(models, tmp_path):
    model = models("noise")
    model.save(tmp_path / "model")
    again = type(model).load(tmp_path / "model")
    assert_equal(*(m.predict(drug=(A, B), dose=(1.0, 2.0), as_="samples", n_cells=4) for m in (model, again)))


# ---- what it is ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_noisy_or_and_how_effects_add(models, kind):
    model, parts = models(kind), [(A, 0.5), (B, 2.0), (C, 1.0)]
    p, psi, _ = said(model, *parts)
    together = {"drug": (A, B, C), "dose": (0.5, 2.0, 1.0)}
    any_of = 1 - (1 - p).prod(0)
    expected = (p * psi).sum(0) / (any_of if model.settings_["intervention"] == "shift" else p.sum(0))
    np.testing.assert_allclose(by_gene(model, "probability", **together), any_of, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(by_gene(model, "effect", **together), expected, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(by_gene(model, "score", **together), any_of * abs(expected), rtol=1e-6, atol=1e-9)
    assert (by_gene(model, "probability", **together) <= 1).all()


def test_linear_shifts_add_up(models):
    model = models("linear shift")
    for as_ in ("cells", "mean", "delta"):
        pred = model.predict(drug=(A, B, C), dose=(0.5, 2.0, 1.0), as_=as_)
        np.testing.assert_allclose(pred.X, pred.layers["additive"], rtol=1e-5, atol=1e-5)
    alone = [model.predict(drug=d, dose=x, as_="delta").X for d, x in ((A, 0.5), (B, 2.0), (C, 1.0))]
    np.testing.assert_allclose(pred.X, sum(alone), rtol=1e-5, atol=1e-5)
    assert np.abs(pred.X).max() > 0.1


def strong(model, psi):
    """Let every drug touch every gene for sure, and by that much."""

    def forward(conditions):
        rows = len(conditions.drug)
        return torch.full((rows, len(psi)), 30.0).double(), torch.as_tensor(psi).double().expand(rows, -1)

    return forward


@pytest.mark.parametrize("kind", ["linear hard", "network hard"])
def test_values_that_are_set_do_not_add_up(models, kind, monkeypatch):
    model, psi = models(kind), np.linspace(1, 2, 6)
    monkeypatch.setattr(model.module.generator, "forward", strong(model, psi))
    pred = model.predict(drug=(A, B), dose=(1.0, 2.0), as_="delta")
    alone = model.predict(drug=A, dose=1.0, as_="delta")
    np.testing.assert_allclose(pred.X, alone.X, rtol=1e-4, atol=1e-4)  # the average of equal values
    assert np.abs(pred.X).max() > 0.5
    np.testing.assert_allclose(pred.layers["additive"], 2 * pred.X, rtol=1e-4, atol=1e-4)


def test_networks_do_not_add_up(screen, fit, monkeypatch):
    model = fit(screen(mechanism="network", n_cells=60), gim={"mechanism": "network", "generator": "hill"})
    assert len(model.get_graph())
    monkeypatch.setattr(model.module.generator, "forward", strong(model, np.full(6, 1.5)))
    pred = model.predict(drug=(A, B), dose=(1.0, 2.0), as_="delta")
    alone = model.predict(drug=A, dose=1.0, as_="delta").X
    np.testing.assert_allclose(pred.layers["additive"], 2 * alone, rtol=1e-5, atol=1e-5)
    off = np.abs(pred.X - pred.layers["additive"])[0] / model.summary_.scale
    roots = ~np.isin(model.adata.var_names, model.get_graph()["target"])
    assert (off[roots] < 1e-4).all()
    assert off.max() > 0.01


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("as_", FORMS)
@pytest.mark.parametrize("targets", ["expectation", "map"])
def test_the_additive_baseline_is_what_the_drugs_do_alone(models, kind, as_, targets):
    options = {"as_": as_, "n_cells": 6, "targets": targets}
    pred = models(kind).predict(drug=(A, B), dose=(1.0, 2.0), **options)
    each = options | {"as_": "cells" if as_ == "cells" else "delta"}
    total = 0
    for drug, dose in ((A, 1.0), (B, 2.0)):
        alone = models(kind).predict(drug=drug, dose=dose, **each)
        total = total + (alone.X - alone.layers["control"] if as_ == "cells" else alone.X)
    expected = total if as_ == "delta" else pred.layers["control"] + total
    np.testing.assert_allclose(pred.layers["additive"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_mean_of_cells_is_the_mean(models, kind):
    asked = {"drug": (A, B), "dose": (1.0, 2.0)}
    cells, mean, delta = (models(kind).predict(**asked, as_=as_) for as_ in ("cells", "mean", "delta"))
    sd = models(kind).summary_.scale
    np.testing.assert_allclose(cells.X.mean(0, dtype=float) / sd, mean.X[0] / sd, atol=1e-4)
    np.testing.assert_allclose(mean.X - mean.layers["control"], delta.X, atol=1e-4)


@pytest.mark.parametrize("kind", ["linear shift", "linear hard", "network shift", "network hard"])
def test_a_drug_at_dose_zero_adds_nothing(models, kind):
    model = models(kind)
    pred = model.predict(drug=(A, B), dose=(1.0, 0.0), as_="delta")
    alone = model.predict(drug=A, dose=1.0, as_="delta")
    np.testing.assert_allclose(pred.X, alone.X, rtol=1e-4, atol=1e-5)
    assert pred.obs["doses"].tolist() == ["1 + 0"]


def test_scales_of_noise_multiply_out(models):
    """A mechanism touched by two drugs for sure is scaled by their geometric mean."""
    model, parts = models("noise"), [(A, 1.0), (B, 2.0)]
    p, _, scale = said(model, *parts)
    expected = np.exp((p * scale).sum(0) / p.sum(0))
    query = model._predictor().resolve(drug=(A, B), dose=(1.0, 2.0))
    np.testing.assert_allclose(model._predictor().interventions(query, "").noise[0], expected, rtol=1e-6)


def test_every_line_combines_on_its_own(in_lines, fit):
    model = fit(in_lines(3.0), gim={"generator": "mean"}, cell_line_key="line", batch_key="plate")
    pred = model.predict(drug=[(A, B), C], dose=[(1.0, 2.0), 0.5], as_="mean")
    assert pred.obs["cell_line"].tolist() == ["A549", "K562"] * 2
    table = model.rank_targets(drug=[(A, B), C], dose=[(1.0, 2.0), 0.5])
    pairs = table[["drug", "cell_line", "doses"]].drop_duplicates()
    assert pairs["doses"].tolist() == ["1 + 2", "1 + 2", "0.5", "0.5"]
    own = model.adata[(model.adata.obs["drug"] == "DMSO") & (model.adata.obs["line"] == "A549")].copy()
    own.obs["line"] = "HeLa"
    assert np.isfinite(model.predict(own, drug=(A, B), dose=(1.0, 2.0)).layers["additive"]).all()


# ---- targets ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("evidence", ["auto", "features"])
def test_targets_of_combinations_come_from_features(models, evidence):
    table = models("linear shift").rank_targets(drug=[(B, A), C], dose=[(1.0, 2.0), 0.5], evidence=evidence)
    assert table["drug"].unique().tolist() == [f"{A} + {B}", C]
    both = table[table["drug"] != C]
    assert set(both["evidence"]) == {"features"}
    assert both["rank"].tolist() == list(range(1, 7))
    assert set(both["doses"]) == {"2 + 1"}
    assert both["dose"].isna().all()
    assert (both["score"].diff().dropna() <= 0).all()
    assert set(table.loc[table["drug"] == C, "evidence"]) == {"data" if evidence == "auto" else "features"}


def test_no_data_of_combinations(models):
    with pytest.raises(ValueError, match=rf"needs a measured condition, and '{A} \+ {B}'.*Use evidence='auto'"):
        models("linear shift").rank_targets(drug=(B, A), dose=(1.0, 2.0), evidence="data")


def test_trust_in_combinations(models, new):
    model = models("linear shift")
    asked = {"features": pd.concat([new, model.drug_table_.frame.loc[[A, B]]]), "as_": "mean"}
    for drugs, dose, trust in [
        ((A, B), (1.0, 2.0), "edge"),
        ((A, B), (1.0, 4.0), "edge"),
        ((A, B), (1.0, 40.0), "extrapolation"),
    ]:
        obs = model.predict(drug=drugs, dose=dose, **asked).obs
        assert obs["trust"].tolist() == [trust]
        assert obs["dose_in_range"].tolist() == [max(dose) <= 2]
    alone = model.predict(drug="new", dose=1.0, **asked).obs
    both = model.predict(drug=("new", A), dose=(1.0, 1.0), **asked).obs
    assert both["similarity"].tolist() == alone["similarity"].tolist()  # that of the least known
    assert both["nearest_drug"].tolist() == alone["nearest_drug"].tolist()


# ---- drugs that were not measured ------------------------------------------------------------------------------------------


def test_new_drugs_by_features(models, new):
    model = models("linear shift")
    both = model.predict(drug=("newer", "new"), features=new, dose=(0.5, 2.0), as_="delta")
    alone = [model.predict(drug=d, features=new, dose=x, as_="delta").X for d, x in (("newer", 0.5), ("new", 2.0))]
    assert both.obs["drug"].tolist() == ["new + newer"]
    np.testing.assert_allclose(both.X, sum(alone), rtol=1e-4, atol=1e-5)
    mixed = model.predict(drug=(A, "new"), features=pd.concat([new, model.drug_table_.frame.loc[[A]]]), as_="mean")
    assert mixed.obs["doses"].tolist() == [f"{a:g} + {b:g}" for a, b in product((0.5, 1.0, 2.0), repeat=2)]


def test_new_drugs_by_smiles(chemical):
    pred = chemical.predict(
        drug=[("Y", "X"), "Z"], smiles=[("CCO", "CCCN"), "c1ccccc1O"], dose=[(1.0, 2.0), 0.5], as_="delta"
    )
    assert pred.obs["smiles"].tolist() == ["CCCN.CCO", "c1ccccc1O"]
    alone = [
        chemical.predict(drug=d, smiles=s, dose=x, as_="delta").X for d, s, x in (("Y", "CCO", 1.0), ("X", "CCCN", 2.0))
    ]
    np.testing.assert_allclose(pred.X[:1], sum(alone), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        pytest.param({"drug": ("X", "Y"), "smiles": "CCO"}, r"'X \+ Y' has 2 drugs but 1 SMILES", id="too few"),
        pytest.param({"drug": [("X", "Y")], "smiles": [("CCO", "CCN", "C")]}, "2 drugs but 3 SMILES", id="too many"),
        pytest.param(
            {"drug": [("X", "Y"), "X"], "smiles": [("CCO", "CCN"), "CCC"]}, "'X' came with two SMILES", id="two"
        ),
        pytest.param({"drug": ("X", "Y"), "smiles": ("CCO", "C1CC")}, "'Y'.*not a SMILES", id="unparseable"),
    ],
)
def test_smiles_that_do_not_fit(chemical, asked, message):
    with pytest.raises(ValueError, match=message):
        chemical.predict(**asked)


# ---- refusals --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        pytest.param({"drug": (A, A)}, ValueError, f"different drugs, got .'{A}', '{A}'", id="itself"),
        pytest.param({"drug": ()}, ValueError, r"different drugs, got \(\)", id="empty"),
        pytest.param({"drug": [(A, B), (B, A)]}, ValueError, rf"'{A} \+ {B}' was asked for more than once", id="twice"),
        pytest.param({"drug": (A, "DMSO")}, ValueError, "'DMSO' is the control", id="control"),
        pytest.param({"drug": (A, "drug-0O4")}, KeyError, "'drug-0O4' is unknown.*nearest", id="unknown"),
        pytest.param({"drug": (A, 4)}, TypeError, "A drug is a name.*4", id="number"),
        pytest.param({"drug": ((A, B), C)}, TypeError, "A drug is a name.*tuple", id="nested"),
        pytest.param({"drug": (A, B), "dose": 1.0}, ValueError, r"No dose.*dose=\(1.0, 1.0\)", id="a number"),
        pytest.param({"drug": (A, B), "dose": [1.0, 2.0]}, ValueError, r"No dose.*dose=\(1.0, 1.0\)", id="a list"),
        pytest.param({"drug": (A, B), "dose": (1.0, 1.0, 1.0)}, ValueError, r"No dose.*dose=\(1.0, 1.0\)", id="longer"),
        pytest.param({"drug": (A, B), "dose": [(1.0,)]}, ValueError, r"No dose.*dose=\(1.0, 1.0\)", id="shorter"),
        pytest.param({"drug": (A, B), "dose": ()}, ValueError, r"got \(\)", id="no doses"),
        pytest.param({"drug": (A, B), "dose": (1.0, -1.0)}, ValueError, "not negative.*-1", id="negative"),
        pytest.param({"drug": (A, B), "dose": (1.0, np.nan)}, ValueError, "finite.*nan", id="NaN"),
        pytest.param({"drug": (A, B), "dose": (1.0, "much")}, ValueError, "numbers.*'much'", id="text"),
        pytest.param({"drug": (A, B), "dose": [(1.0, 2.0)] * 2}, ValueError, "more than once", id="same doses"),
        pytest.param({"drug": [A, (A, B)], "dose": (1.0, 1.0)}, ValueError, f"No dose.*'{A}': pass a number", id="single"),
        pytest.param({"drug": [A, (A, B)], "dose": 1.0}, ValueError, r"No dose.*\+.*dose=\(1.0, 1.0\)", id="pair"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("verb", ["predict", "rank_targets"])
def test_refuses(models, verb, asked, error, message):
    with pytest.raises(error, match=message):
        getattr(models("linear shift"), verb)(**asked)


@pytest.mark.parametrize("dose", [((1.0, 2.0), (2.0, 1.0)), ([1.0], [2.0])], ids=["tuple of tuples", "tuple of lists"])
def test_doses_in_the_wrong_brackets(models, dose):
    with pytest.raises(ValueError, match=r"[Dd]ose"):
        models("linear shift").predict(drug=(A, B), dose=dose)


def test_identity_combines_measured_drugs_only(screen, fit):
    model = fit(screen(), gim={"generator": "identity"})
    pred = model.predict(drug=(A, B), dose=(1.0, 2.0), as_="delta")
    np.testing.assert_allclose(pred.X, pred.layers["additive"], rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="'new' was not measured"):
        model.predict(drug=(A, "new"), dose=(1.0, 2.0))


def test_without_doses(undosed, tmp_path):
    pred = undosed.predict(drug=[(B, A), C], as_="mean")
    assert pred.obs["drug"].tolist() == [f"{A} + {B}", C]
    assert pred.obs["dose"].isna().all()
    np.testing.assert_allclose(pred.X, pred.layers["additive"], rtol=1e-5, atol=1e-5)
    for kind in ("h5ad", "zarr"):
        getattr(pred, f"write_{kind}")(tmp_path / kind)
        assert_equal(getattr(ad, f"read_{kind}")(tmp_path / kind), pred)
    with pytest.raises(ValueError, match="without dose_key"):
        undosed.predict(drug=(A, B), dose=(1.0, 1.0))


def test_without_doses_none_are_told(undosed):
    assert "nan" not in "".join(undosed.predict(drug=(B, A), as_="mean").obs["doses"])
    assert "nan" not in "".join(undosed.rank_targets(drug=(B, A))["doses"])
