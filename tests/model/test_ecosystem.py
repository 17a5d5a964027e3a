"""Input of the ecosystem: other containers are refused in a sentence, other storage and types give the same results."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import scgim

COLUMNS = {
    "drug_key": "drug",
    "control": "DMSO",
    "scale": "continuous",
    "dose_key": "dose",
    "dose_unit": "uM",
    "features_key": "drug_features",
    "cell_line_key": "line",
    "batch_key": "plate",
    "replicate_key": "well",
    "covariate_keys": ["cycle", "phase", "sorted"],
}


def typed(screen, change=lambda adata: None):
    """A screen with a column for every argument of set-up, changed in place."""
    adata, rng = screen(), np.random.default_rng(0)
    n = adata.n_obs
    columns = {"line": ["A", "B"], "plate": [1, 2], "well": [1, 2, 3, 4], "phase": ["G1", "S"], "sorted": [True, False]}
    adata.obs = adata.obs.assign(
        **{name: rng.choice(values, n) for name, values in columns.items()}, cycle=rng.normal(size=n)
    )
    adata.obs["drug"] = adata.obs["drug"].astype(str)
    adata.X = adata.X - adata.X.min() + np.float32(0.01)  # as a sparse matrix holds it
    change(adata)
    return adata


def results(adata) -> list[np.ndarray]:
    """Results of every verb that reads the AnnData."""
    scgim.pp.split(adata, control="DMSO", seed=0)
    assert scgim.pp.audit_split(adata, control="DMSO", dose_key="dose", cell_line_key="line").empty
    arguments = COLUMNS | {"split_key": "scgim_split"}
    assert not scgim.pp.check(adata, **arguments)["finding"].str.startswith("Could not").any()
    scgim.setup_anndata(adata, **arguments)
    model = scgim.GIM(adata, structure="none")
    model.train(max_epochs=6, enable_progress_bar=False)
    scores = model.evaluate(refit=False, distributions=False)
    model.annotate()
    controls = adata[(adata.obs["drug"] == "DMSO").to_numpy()]
    predicted = [model.predict(adata=each, drug="drug-001", as_="mean").X for each in (controls, None)]
    shift = scgim.get.shift_adata(adata)
    assert len(scgim.get.targets_df(adata))
    return [*predicted, shift.X, scores.select_dtypes("number").to_numpy()]


@pytest.fixture(scope="module")
def expected(screen):
    return results(typed(screen))


def set_obs(**types):
    def change(adata):
        for name, dtype in types.items():
            adata.obs[name] = adata.obs[name].astype(dtype)

    return change


def set_x(form):
    return lambda adata: setattr(adata, "X", form(adata.X))


def named(axis, name):
    return lambda adata: setattr(getattr(adata, axis).index, "name", name)


@pytest.mark.parametrize(
    "change",
    [
        *(pytest.param(set_x(form), id=form.__name__) for form in (sp.csr_array, sp.csc_array, sp.csr_matrix, np.asfortranarray)),
        pytest.param(set_x(lambda x: x.astype(">f4")), id="big endian"),
        pytest.param(set_obs(drug="string", line="string", phase="string"), id="string"),
        pytest.param(set_obs(drug="category", line="category", phase="category", plate="category"), id="category"),
        pytest.param(set_obs(plate="Int64", well="Int64", cycle="Float64", dose="Float64", sorted="boolean"), id="nullable"),
        pytest.param(set_obs(plate=float, well=float), id="whole numbers as floats"),
        pytest.param(set_obs(plate=object, well=object, cycle=object, dose=object, sorted=object), id="object"),
        pytest.param(set_obs(dose="float32"), id="single precision"),
        *(pytest.param(named("obs", name), id=f"obs index {name}") for name in ("drug", "dose", "line", "batch", "control", "train", "replicate", "cell_line")),
        pytest.param(named("var", "gene"), id="var index"),
        pytest.param(lambda a: setattr(a.obs.columns, "name", "drug"), id="name of columns"),
    ],
)  # fmt: skip
def test_storage_and_types_change_nothing(screen, expected, change):
    for one, other in zip(results(typed(screen, change)), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", ["r", "r+"])
@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix, sp.csc_matrix], ids=["dense", "csr", "csc"])
def test_backed_files_in_every_verb(screen, expected, tmp_path, form, mode):
    typed(screen, set_x(form)).write_h5ad(tmp_path / "x.h5ad")
    adata = ad.read_h5ad(tmp_path / "x.h5ad", backed=mode)
    for one, other in zip(results(adata), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    adata.file.close()


def test_lazy_tables_are_refused_with_the_line_that_reads_them(screen, expected, tmp_path):
    pytest.importorskip("xarray")
    typed(screen).write_h5ad(tmp_path / "x.h5ad")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of anndata and xarray
        adata = ad.experimental.read_lazy(tmp_path / "x.h5ad")
        with pytest.raises(TypeError, match="obs and var of adata are lazy tables") as error:
            scgim.setup_anndata(adata, **COLUMNS)
        exec(str(error.value).rpartition(": ")[2].removesuffix("."), {"adata": adata})
        found = results(adata)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


class MuData:
    """As much of the class of that name as a message reads."""

    def __init__(self, adata):
        self.mod, self.obs, self.n_obs, self.is_view, self.var_names = (
            {"rna": adata},
            adata.obs,
            adata.n_obs,
            False,
            adata.var_names,
        )


def collection(adata):
    return ad.experimental.AnnCollection([adata], join_vars="inner")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(MuData, r"not a MuData\. Pass one modality .there is 'rna'.*mdata\.mod\['rna'\]", id="MuData"),
        pytest.param(collection, r"not an AnnCollection\. .*to_adata\(\)", id="AnnCollection"),
        pytest.param(
            lambda a: collection(a)[:5], r"not an AnnCollectionView\. .*to_adata\(\)", id="view of a collection"
        ),
        pytest.param(
            lambda a: "screen.h5ad", r"not a str\. Read it: adata = anndata\.read_h5ad\('screen\.h5ad'\)", id="path"
        ),
        pytest.param(lambda a: a.to_df(), r"not a DataFrame\. Make one", id="DataFrame"),
        pytest.param(lambda a: a.X, "not a ndarray|not an ndarray", id="array"),
        pytest.param(lambda a: None, "not a NoneType", id="None"),
    ],
)
@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda m, x: scgim.setup_anndata(x, **COLUMNS), id="setup_anndata"),
        pytest.param(lambda m, x: scgim.pp.check(x, **COLUMNS), id="check"),
        pytest.param(lambda m, x: scgim.pp.split(x, control="DMSO"), id="split"),
        pytest.param(lambda m, x: scgim.pp.audit_split(x, control="DMSO"), id="audit_split"),
        pytest.param(lambda m, x: scgim.pp.featurize_drugs(x), id="featurize_drugs"),
        pytest.param(lambda m, x: scgim.tl.cross_validate(x), id="cross_validate"),
        pytest.param(lambda m, x: scgim.get.shift_adata(x), id="shift_adata"),
        pytest.param(lambda m, x: scgim.GIM(x) if x is not None else scgim.pp.split(x), id="GIM"),
        pytest.param(lambda m, x: m.predict(adata=x) if x is not None else scgim.pp.split(x), id="predict"),
        pytest.param(lambda m, x: m.annotate(x) if x is not None else scgim.pp.split(x), id="annotate"),
    ],
)
def test_other_containers_are_refused_in_a_sentence(screen, model, make, message, call):
    with pytest.raises(TypeError, match=f"adata must be an AnnData( of control cells)?, {message}"):
        call(model, make(screen()))


def test_a_real_mudata():
    mudata = pytest.importorskip("mudata")
    rna = ad.AnnData(np.ones((3, 2), dtype=np.float32), obs=pd.DataFrame(index=list("abc")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of mudata
        mdata = mudata.MuData({"rna": rna})
        mdata.obs["drug"] = "a"
        with pytest.raises(TypeError, match="not a MuData") as error:
            scgim.pp.check(mdata, control="a", scale="continuous")
        scope = {"mdata": mdata}
        exec(str(error.value).partition("needs: ")[2].removesuffix("."), scope)
    assert scope["adata"].obs["drug"].tolist() == ["a"] * 3


def test_fractional_counts_are_to_be_rounded(screen, setup_kwargs):
    adata = screen()
    adata.X = np.random.default_rng(0).poisson(3, adata.shape).astype(np.float32) + np.float32(0.25)
    with pytest.raises(
        ValueError, match=r"not integers .e\.g\. .*Fractional counts.*rounded first: adata\.X = np\.rint"
    ):
        scgim.setup_anndata(adata, **(setup_kwargs | {"scale": "counts"}))
    row = scgim.pp.check(adata, **(setup_kwargs | {"scale": "counts"})).set_index("check").loc["scale"]
    assert row["status"] == "FAIL"
    assert "round" in row["fix"]


# ---- data that change after set-up ----------------------------------------------------------------------------------------


def relabel(adata):
    adata.obs["drug"] = adata.obs["drug"].astype(str).replace({"drug-001": "drug-002"})


def double(adata):
    adata.obs["dose"] = adata.obs["dose"] * 2


def swap_genes(adata):
    adata.var_names = adata.var_names[::-1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(swap_genes, "the names of genes or their order changed", id="genes"),
        pytest.param(relabel, r"obs\['drug'\] changed", id="drugs"),
        pytest.param(double, r"obs\['dose'\] changed", id="doses"),
        pytest.param(lambda a: a._inplace_subset_obs(np.arange(600)), "it has 600 cells, and had 700", id="cells"),
        pytest.param(lambda a: a._inplace_subset_var(np.arange(4)), "the names of genes", id="fewer genes"),
        pytest.param(lambda a: setattr(a, "X", a.X * 2), "values in X changed", id="values"),
        pytest.param(
            lambda a: a.X.__setitem__((100, 2), np.nan), "missing or infinite, and were not at set-up", id="NaN"
        ),
    ],
)
def test_data_that_changed_after_set_up_are_noticed(screen, setup_kwargs, change, message):
    adata = screen()
    scgim.setup_anndata(adata, **setup_kwargs)
    model = scgim.GIM(adata)
    change(adata)
    with pytest.raises(ValueError, match=f"{message}.*setup_anndata"):
        model.train(max_epochs=6, enable_progress_bar=False)


def test_other_columns_may_change(screen, setup_kwargs, fit):
    adata = screen()
    scgim.setup_anndata(adata, **setup_kwargs)
    model = scgim.GIM(adata)
    adata.obs["leiden"], adata.obsm["X_pca"] = "1", np.zeros((adata.n_obs, 2))
    adata.layers["raw"] = adata.X.copy()
    adata.X = adata.X.astype(np.float64)
    model.train(max_epochs=6, enable_progress_bar=False)
    model.annotate()
    model.train(max_epochs=6, enable_progress_bar=False)


def test_a_test_condition_relabeled_after_training_is_noticed(screen, fit):
    adata = screen()
    scgim.pp.split(adata, control="DMSO", seed=0)
    model = fit(adata, split_key="scgim_split")
    scgim.pp.split(adata, control="DMSO", seed=1)
    with pytest.raises(ValueError, match=r"obs\['scgim_split'\] changed"):
        model.evaluate(refit=False)


@pytest.mark.parametrize(
    "wrong", [{"n_cells": "3"}, {"n_cells": 1.5}, {"n_cells": np.nan}, {"n_cells": 0}, {"seed": -1}, {"seed": None}]
)
def test_numbers_are_whole(model, wrong):
    with pytest.raises(ValueError, match="must be at least . and a whole number".replace(". ", "., ")):
        model.predict(drug="drug-001", **wrong)
    with pytest.raises(ValueError, match="whole number"):
        model.do({model.summary_.genes[0]: 1.0}, **wrong)


def test_an_intervention_that_overflows_is_refused(model):
    with pytest.raises(ValueError, match="cannot be moved by 1e[+]308"):
        model.do({model.summary_.genes[0]: 1e308})
