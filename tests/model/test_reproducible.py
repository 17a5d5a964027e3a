from __future__ import annotations

import os
import random
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

import scgim

TRAIN = """
import sys
import numpy as np, torch
torch.set_num_threads(1)
import scgim
options, setup, out = eval(sys.argv[1]), eval(sys.argv[2]), sys.argv[3]
adata = scgim.datasets.simulate_screen(**options)
scgim.setup_anndata(adata, **setup)
model = scgim.GIM(adata)
model.train(seed=3, train_size=0.8, enable_progress_bar=False, max_epochs=20)
np.savez(out, **{name: value.numpy() for name, value in model.module.state_dict().items()})
"""


def bits(model):
    return {name: value.numpy() for name, value in model.module.state_dict().items()}


def edges(model):
    return set(model.get_graph()[["source", "target"]].itertuples(index=False, name=None))


def deltas(model):
    """Predicted changes in control sd, as a table: drug and dose x gene."""
    pred = model.predict(as_="delta")
    sd = pd.Series(model.summary_.scale, index=model.summary_.genes)
    x = pd.DataFrame(
        pred.X.astype(float), index=pd.MultiIndex.from_frame(pred.obs[["drug", "dose"]].astype({"drug": str}))
    )
    x.columns = pred.var_names
    return (x / sd[pred.var_names]).sort_index().sort_index(axis=1)


@pytest.fixture(scope="module")
def reference(screen, fit):
    return fit(screen())


def test_same_seed_same_bits(screen, fit, reference, assert_same_bits):
    again = fit(screen())
    assert_same_bits(reference, again)
    assert again.summary_.data_hash == reference.summary_.data_hash
    for as_ in ("cells", "samples"):
        np.testing.assert_array_equal(again.predict(as_=as_).X, reference.predict(as_=as_).X)


@pytest.mark.slow  # two new processes import scvi-tools
def test_same_bits_in_two_processes(screen, setup_kwargs, tmp_path):
    options = {"n_genes": 6, "n_drugs": 10, "n_cells": 20, "n_control": 100, "doses": (0.5, 2.0), "n_new_drugs": 2}
    told = []
    for name, hash_seed in (("a", "1"), ("b", "2")):
        out = tmp_path / f"{name}.npz"
        command = [sys.executable, "-c", TRAIN, repr(options), repr(setup_kwargs), str(out)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONHASHSEED": hash_seed}
        )
        assert done.returncode == 0, done.stderr
        with np.load(out) as arrays:
            told.append({key: arrays[key] for key in arrays})
    for key in told[0]:
        np.testing.assert_array_equal(told[0][key], told[1][key], err_msg=key)


def test_order_of_genes_changes_no_bit(screen, fit, reference, assert_same_bits):
    order = np.random.default_rng(0).permutation(6)
    model = fit(screen()[:, order].copy())
    assert_same_bits(reference, model)
    for as_ in ("cells", "samples", "mean"):
        one, other = reference.predict(as_=as_), model.predict(as_=as_)
        assert other.var_names.tolist() == reference.adata.var_names[order].tolist()
        np.testing.assert_array_equal(other[:, reference.adata.var_names].X, one.X)
    pd.testing.assert_frame_equal(model.rank_targets(), reference.rank_targets())
    pd.testing.assert_frame_equal(model.get_graph(), reference.get_graph())
    reference.annotate(cells := screen())
    model.annotate()
    np.testing.assert_array_equal(model.adata.obsm["scgim_shift"], cells.obsm["scgim_shift"][:, order])
    np.testing.assert_array_equal(
        model.adata.varp["scgim_graph"].toarray(), cells.varp["scgim_graph"].toarray()[np.ix_(order, order)]
    )


def test_units_of_genes_change_nothing_but_units(screen, fit, reference):
    units = 10.0 ** np.array([-3, 0, 4, 1, -1, 2])
    adata = screen()
    adata.X = adata.X * units
    model = fit(adata)
    assert edges(model) == edges(reference)
    for as_ in ("cells", "samples", "mean", "delta"):
        one, other = reference.predict(as_=as_), model.predict(as_=as_)
        tolerance = 1e-5 * np.abs(one.X).max(0)
        assert (np.abs(other.X / units - one.X) < tolerance).all()
    columns = ["probability", "effect"]
    one, other = (m.rank_targets().set_index(["drug", "dose", "gene"]).sort_index() for m in (reference, model))
    np.testing.assert_allclose(other[columns], one[columns], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("features", ["drug_features", None])
def test_order_of_cells(screen, fit, features):
    adata, reference = screen(), fit(screen(), features_key=features)
    model = fit(adata[np.random.default_rng(0).permutation(adata.n_obs)].copy(), features_key=features)
    assert edges(model) == edges(reference)
    np.testing.assert_allclose(deltas(model), deltas(reference), atol=1e-4)
    one, other = (m.predict(as_="mean") for m in (reference, model))
    assert (np.abs(one.X - other.X) < 1e-4 * reference.summary_.scale).all()


def test_unit_of_the_dose_changes_nothing(screen, fit, reference):
    adata = screen()
    adata.obs["dose"] *= 1000
    model = fit(adata, dose_unit="nM")
    assert edges(model) == edges(reference)
    for as_ in ("cells", "mean"):
        one, other = reference.predict(as_=as_), model.predict(as_=as_)
        np.testing.assert_allclose(other.X, one.X, atol=1e-4)
        np.testing.assert_allclose(other.obs["dose"], one.obs["dose"] * 1000)
        assert (other.obs["trust"] == one.obs["trust"]).all()
    new = (m.predict(drug="drug-001", dose=0.7 * unit, as_="delta").X for m, unit in ((reference, 1), (model, 1000)))
    np.testing.assert_allclose(*new, atol=1e-4)


# without features every drug has parameters of its own, and a sum in another order tips the signs of some near zero
@pytest.mark.parametrize(("features", "tolerance"), [("drug_features", 1e-4), (None, 1e-2)])
def test_names_of_drugs_change_little(screen, fit, features, tolerance):
    reference = fit(screen(), features_key=features)
    names = {name: f"{97 * i % 101:03d}" for i, name in enumerate(reference.drugs)}
    adata = screen()
    adata.obs["drug"] = adata.obs["drug"].cat.rename_categories(names)
    adata.uns["drug_features"] = adata.uns["drug_features"].rename(index=names)
    model = fit(adata, features_key=features)
    assert sorted(names.values()) != list(names.values())
    assert edges(model) == edges(reference)
    renamed = deltas(reference).rename(index=names, level=0).sort_index()
    np.testing.assert_allclose(deltas(model), renamed, atol=tolerance)


def test_storage_changes_nothing(screen, fit, reference, tmp_path):
    import anndata as ad
    from scipy import sparse

    forms = {"float64": screen(), "csr": screen(), "csc": screen(), "layer": screen()}
    forms["float64"].X = forms["float64"].X.astype(np.float64)
    forms["csr"].X = sparse.csr_matrix(forms["csr"].X)
    forms["csc"].X = sparse.csc_matrix(forms["csc"].X)
    forms["layer"].layers["x"], forms["layer"].X = forms["layer"].X, np.zeros(forms["layer"].shape)
    screen().write_h5ad(tmp_path / "screen.h5ad")
    forms["backed"] = ad.read_h5ad(tmp_path / "screen.h5ad", backed="r")
    for form, adata in forms.items():
        model = fit(adata, layer="x" if form == "layer" else None)
        for name, value in bits(reference).items():
            np.testing.assert_array_equal(bits(model)[name], value, err_msg=f"{form}: {name}")
    forms["backed"].file.close()


def test_global_random_state_is_left_alone(screen, fit):
    def states():
        legacy = np.random.get_state()  # noqa: NPY002
        return random.getstate(), (legacy[0], legacy[1].tolist(), *legacy[2:]), torch.get_rng_state().tolist()

    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    before = states()
    model = fit(screen(), train={"train_size": 0.8})
    for as_ in ("cells", "samples"):
        model.predict(as_=as_, n_cells=5, targets="sample")
    model.do({"G0000": 1.0}, as_="samples")
    model.rank_targets()
    model.annotate()
    assert states() == before


@pytest.mark.parametrize("shuffle", [False, True])
def test_global_random_state_changes_nothing(screen, fit, reference, shuffle, assert_same_bits):
    if shuffle:
        random.seed(7)
        np.random.seed(7)  # noqa: NPY002
        torch.manual_seed(7)
    assert_same_bits(fit(screen()), reference)


@pytest.mark.parametrize("n_cells", [1, 127, 129, 257])
def test_any_number_of_cells(screen, fit, n_cells):
    model = fit(screen(n_genes=4, n_drugs=8, doses=(1.0, 2.0), n_cells=n_cells, n_control=max(n_cells, 20)))
    assert model.summary_.statistics.n.tolist() == [max(n_cells, 20)] + [n_cells] * 16
    assert np.isfinite(model.predict(as_="mean").X).all()
    assert np.isfinite(model.rank_targets()["score"]).all()


def test_seeds_differ(screen, fit, reference):
    other = fit(screen(), train={"seed": 1, "train_size": 0.5})
    third = fit(screen(), train={"seed": 2, "train_size": 0.5})
    assert set(map(tuple, other.summary_.design.names().to_numpy())) != set(
        map(tuple, third.summary_.design.names().to_numpy())
    )
    assert scgim.GIM is type(other)
