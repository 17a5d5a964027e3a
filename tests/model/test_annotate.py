from __future__ import annotations

import warnings
from contextlib import nullcontext

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata.tests.helpers import assert_equal
from scipy import sparse

import scgim
from scgim.model._annotate import write_targets

AWKWARD = {"drug-000": "(+/-)-JQ1", "drug-001": "Akti-1/2", "drug-002": "BMS202 (PD-1/PD-L1 inhibitor 2)"}
AWKWARD |= {"drug-003": "β-Lapachone", "drug-004": ".. ", "drug-006": "5-FU, 10 %"}
LINES = {"cell_line_key": "line", "batch_key": "plate"}
WRITTEN = {
    "obsm": {"scgim_shift", "scgim_pred", "scgim_genes"},
    "varp": {"scgim_graph"},
    "var": {"scgim_in_degree", "scgim_out_degree"},
    "uns": {"scgim_targets", "scgim"},
}


@pytest.fixture(scope="module")
def awkward(in_lines):
    """A screen in two lines whose drugs have names that are no keys of files."""
    adata = in_lines(2.0)
    adata.obs["drug"] = adata.obs["drug"].cat.rename_categories(AWKWARD)
    adata.uns["drug_features"] = adata.uns["drug_features"].rename(index=AWKWARD)
    return adata


@pytest.fixture(scope="module")
def annotated(awkward, fit):
    """The model of that screen, annotated."""
    model = fit(awkward.copy(), **LINES)
    model.annotate()
    return model


def test_writes_what_is_documented_and_nothing_else(awkward, annotated):
    after = annotated.adata
    for slot, keys in WRITTEN.items():
        new = set(getattr(after, slot)) - set(getattr(awkward, slot))
        assert {key for key in new if not key.startswith("_scvi")} == keys
    rest = after.copy()
    for slot, keys in WRITTEN.items():
        for key in keys | {k for k in rest.uns if slot == "uns" and k.startswith("_scvi")}:
            del getattr(rest, slot)[key]
    assert_equal(rest, awkward)
    assert list(rest.uns) == list(awkward.uns)


def test_shift_is_the_prediction_for_the_cells_own_context(annotated):
    adata, obs = annotated.adata, annotated.adata.obs
    shift, pred = adata.obsm["scgim_shift"], adata.obsm["scgim_pred"]
    assert shift.dtype == pred.dtype == np.float32
    assert shift.shape == pred.shape == adata.shape
    control = (obs["drug"] == "DMSO").to_numpy()
    assert (shift[control] == 0).all()
    delta = annotated.predict(as_="delta")
    key = ["drug", "dose", "cell_line"]
    row = delta.obs[key].astype({"drug": str, "cell_line": str}).reset_index(drop=True).reset_index().set_index(key)
    at = row.loc[list(zip(obs["drug"][~control], obs["dose"][~control], obs["line"][~control], strict=True)), "index"]
    np.testing.assert_array_equal(shift[~control], delta.X[at])
    means = pd.DataFrame(adata.X[control].astype(float)).groupby(
        [obs["line"][control].to_numpy(), obs["plate"][control].to_numpy()]
    )
    expected = means.mean().loc[list(zip(obs["line"], obs["plate"], strict=True))].to_numpy() + shift
    np.testing.assert_allclose(pred, expected, rtol=1e-4, atol=1e-4)


def test_graph_and_degrees(annotated):
    adata, edges = annotated.adata, annotated.get_graph()
    graph = adata.varp["scgim_graph"]
    assert sparse.issparse(graph)
    table = scgim.get.graph_df(adata).sort_values(["source", "target"])[["source", "target", "weight", "sign"]]
    expected = edges.sort_values(["source", "target"])[["source", "target", "weight", "sign"]]
    pd.testing.assert_frame_equal(table.reset_index(drop=True), expected.reset_index(drop=True))
    for column, end in (("scgim_in_degree", "target"), ("scgim_out_degree", "source")):
        count = edges[end].value_counts().reindex(adata.var_names, fill_value=0)
        assert adata.var[column].tolist() == count.tolist()


def test_targets_are_the_best_over_doses_and_lines(annotated):
    tables = annotated.adata.uns["scgim_targets"]
    names = tables["names"].dtype.names
    assert set(names) == {*annotated.drugs, "DMSO"}
    assert tables["params"]["groupby"] == "drug"
    assert tables["params"]["reference"] == "DMSO"
    everything = annotated.rank_targets()
    best = everything.groupby(["drug", "gene"])["score"].max()
    for drug in annotated.drugs:
        assert set(tables["names"][drug]) == set(annotated.adata.var_names)
        assert (np.diff(tables["scores"][drug]) <= 0).all()
        np.testing.assert_array_equal(tables["scores"][drug], best[drug][tables["names"][drug]])
        np.testing.assert_allclose(
            tables["scores"][drug], tables["probabilities"][drug] * np.abs(tables["logfoldchanges"][drug])
        )
        row = everything[
            (everything["drug"] == drug)
            & (everything["gene"] == tables["names"][drug][0])
            & (everything["dose"] == tables["doses"][drug][0])
            & (everything["cell_line"] == tables["cell_lines"][drug][0])
        ]
        assert row["score"].item() == tables["scores"][drug][0]
    assert (tables["scores"]["DMSO"] == 0).all()
    assert (tables["logfoldchanges"]["DMSO"] == 0).all()
    assert set(tables["names"]["DMSO"]) == set(annotated.adata.var_names)
    for name in names:
        assert np.isnan(tables["pvals"][name]).all()
        assert np.isnan(tables["pvals_adj"][name]).all()


def test_provenance(annotated):
    about = annotated.adata.uns["scgim"]
    assert about["version"] == scgim.__version__
    assert about["seed"] == 0
    assert about["data_hash"] == annotated.summary_.data_hash
    settings = about["settings"]
    assert settings["drug_key"] == "drug"
    assert settings["scale"] == "continuous"
    assert settings["smiles_key"] == ""
    assert settings["generator"] == annotated.settings_["generator"]
    assert about["chosen"]["generator"] == annotated.generator_
    assert about["training"] == {"n_conditions": 60, "n_cells": 700, "n_edges": len(annotated.get_graph())}


@pytest.mark.parametrize("setup", [LINES, {}, {"dose_key": None, "dose_unit": None, "features_key": None}], ids=str)
@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_round_trip(awkward, fit, tmp_path, kind, setup):
    model = fit(awkward.copy(), **setup)
    model.annotate()
    adata, path = model.adata, tmp_path / f"screen.{kind}"
    getattr(adata, f"write_{kind}")(path)
    back = getattr(ad, f"read_{kind}")(path)
    assert_equal(back, adata)
    pd.testing.assert_frame_equal(scgim.get.targets_df(back), scgim.get.targets_df(adata))
    pd.testing.assert_frame_equal(scgim.get.graph_df(back), scgim.get.graph_df(adata))
    assert set(scgim.get.targets_df(back)["drug"]) == set(model.drugs)


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_scanpy_reads_it(annotated, tmp_path, kind):
    path = tmp_path / f"screen.{kind}"
    getattr(annotated.adata, f"write_{kind}")(path)
    adata = getattr(ad, f"read_{kind}")(path)
    table = sc.get.rank_genes_groups_df(adata, group="(+/-)-JQ1", key="scgim_targets")
    best = scgim.get.targets_df(adata, drug="(+/-)-JQ1")
    assert table["names"].tolist() == best["gene"].tolist()
    np.testing.assert_array_equal(table["scores"], best["score"])
    shift, genes = scgim.get.shift_adata(adata), list(adata.var_names[:3])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scanpy 1.11 warns of its own pandas and matplotlib calls
        for plot in (sc.pl.dotplot, sc.pl.matrixplot):
            plot(shift, genes, groupby="drug", show=False)
        axes = sc.pl.rank_genes_groups_matrixplot(shift, n_genes=2, key="scgim_targets", show=False)
    rows = [label.get_text() for label in axes["mainplot_ax"].get_yticklabels()]
    assert set(rows) == {"DMSO", *annotated.drugs}
    plt.close("all")


def test_says_which_names_zarr_cannot_hold(awkward, fit, tmp_path):
    adata = awkward.copy()
    adata.obs["drug"] = adata.obs["drug"].cat.rename_categories({"drug-007": "C1:C2"})
    model = fit(adata, features_key=None)
    with pytest.warns(UserWarning, match="'C1:C2' become .*write_zarr does not") as caught:
        model.annotate()
    assert caught[0].filename == __file__
    adata.write_h5ad(tmp_path / "screen.h5ad")
    assert_equal(ad.read_h5ad(tmp_path / "screen.h5ad"), adata)


@pytest.mark.parametrize(("n", "letters"), [(1000, 8), (700, 70), (900, 8)])
@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_any_number_of_drugs_goes_into_a_file(n, letters, kind, tmp_path):
    drugs = [f"{i:0{letters}d}" for i in range(n)]
    values = np.random.default_rng(0).uniform(size=2 * n)
    table = pd.DataFrame({"drug": np.repeat(drugs, 2), "gene": ["A", "B"] * n, "score": values, "effect": -values})
    table = table.assign(probability=values, dose=np.nan, cell_line="")
    adata = ad.AnnData(np.zeros((2, 2), dtype=np.float32))
    large = (n, letters) != (900, 8)
    with pytest.warns(UserWarning, match=f"h5ad cannot hold {n + 1:,} groups") if large else nullcontext():
        write_targets(adata, table, drug_key="drug", controls=["DMSO"])
    write, read = {"h5ad": (adata.write_h5ad, ad.read_h5ad), "zarr": (adata.write_zarr, ad.read_zarr)}[kind]
    with warnings.catch_warnings(action="ignore"):  # anndata's on versions of zarr
        write(tmp_path / "x")
    found = scgim.get.targets_df(read(tmp_path / "x"))
    wanted = table.sort_values(["drug", "score"], ascending=[True, False])
    for column in ("drug", "gene", "score", "effect"):
        assert found[column].tolist() == wanted[column].tolist()
    pd.testing.assert_frame_equal(found, scgim.get.targets_df(adata))


def test_again_and_after_reading(annotated, tmp_path):
    before = annotated.adata.copy()
    annotated.annotate()
    assert_equal(annotated.adata, before)
    annotated.adata.write_h5ad(tmp_path / "screen.h5ad")
    back = ad.read_h5ad(tmp_path / "screen.h5ad")
    annotated.annotate(back)
    before.strings_to_categoricals()  # as writing does
    assert_equal(back, before)


def test_other_genes_order_and_fewer_drugs(annotated):
    order = np.random.default_rng(0).permutation(annotated.adata.n_vars)
    some = annotated.adata.obs["drug"].isin(["DMSO", "Akti-1/2", "drug-005"])
    other = ad.AnnData(annotated.adata[some, order].X, annotated.adata.obs[some], annotated.adata.var.iloc[order])
    annotated.annotate(other)
    np.testing.assert_array_equal(other.obsm["scgim_shift"], annotated.adata.obsm["scgim_shift"][some][:, order])
    np.testing.assert_array_equal(other.obsm["scgim_pred"], annotated.adata.obsm["scgim_pred"][some][:, order])
    graph = annotated.adata.varp["scgim_graph"].toarray()[np.ix_(order, order)]
    np.testing.assert_array_equal(other.varp["scgim_graph"].toarray(), graph)
    assert other.var["scgim_in_degree"].equals(annotated.adata.var["scgim_in_degree"].iloc[order])
    assert set(other.uns["scgim_targets"]["names"].dtype.names) == {"DMSO", "Akti-1/2", "drug-005"}
    assert np.isfinite(sc.get.rank_genes_groups_df(other, group="DMSO", key="scgim_targets")["scores"]).all()


# ---- a split ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def split(screen):
    """A screen, two of whose drugs are held out, and one dose of a third."""
    adata = screen()
    test = adata.obs["drug"].isin(["drug-002", "drug-008"])
    test |= (adata.obs["drug"] == "drug-005") & (adata.obs["dose"] == 2.0)
    adata.obs["side"] = np.where(test, "test", "train")
    return adata


def test_test_rows_are_covered_and_nothing_is_learned_from_them(split, fit):
    test = (split.obs["side"] == "test").to_numpy()
    other = split.copy()
    other.X[test] = np.random.default_rng(0).normal(50, 1000, size=(test.sum(), 6)).astype(np.float32)
    without = split[~test].copy()
    models = [fit(adata, split_key="side") for adata in (split.copy(), other, without)]
    for model in models[1:]:
        for name, value in models[0].module.state_dict().items():
            np.testing.assert_array_equal(value, model.module.state_dict()[name], err_msg=name)
        pd.testing.assert_frame_equal(models[0].rank_targets(), model.rank_targets())
        assert_equal(models[0].predict(drug="drug-001"), model.predict(drug="drug-001"))
    assert models[0].summary_.data_hash == models[1].summary_.data_hash

    models[0].annotate()
    adata = models[0].adata
    shift = adata.obsm["scgim_shift"]
    assert np.isfinite(shift).all()
    asked = (adata.obs["drug"] == "drug-002") & (adata.obs["dose"] == 1.0)
    expected = models[0].predict(drug="drug-002", dose=1.0, as_="delta").X[0]
    np.testing.assert_array_equal(shift[asked], np.tile(expected, (asked.sum(), 1)))
    table = scgim.get.targets_df(adata)
    assert set(table["drug"]) == set(models[0].drugs)
    own = models[0].rank_targets(drug="drug-002").groupby("gene")["score"].max()
    assert table[table["drug"] == "drug-002"].set_index("gene")["score"].to_dict() == pytest.approx(own.to_dict())


def test_identity_says_that_it_knows_nothing_of_test_drugs(split, fit):
    model = fit(split.copy(), split_key="side", features_key=None)
    with pytest.warns(UserWarning, match="No prediction for 120 cells of .*drug-002.*NaN") as caught:
        model.annotate()
    assert caught[0].filename == __file__
    muted = model.adata.obs["drug"].isin(["drug-002", "drug-008"]).to_numpy()
    shift = model.adata.obsm["scgim_shift"]
    assert np.isnan(shift[muted]).all()
    assert np.isfinite(shift[~muted]).all()
    assert set(scgim.get.targets_df(model.adata)["drug"]) == set(model.drugs) - {"drug-002", "drug-008"}


def test_new_data_needs_no_split(split, fit):
    model = fit(split.copy(), split_key="side")
    new = split[:, ::-1].copy()
    del new.obs["side"]
    model.annotate(new)
    assert np.isfinite(new.obsm["scgim_shift"]).all()


# ---- refusals --------------------------------------------------------------------------------------------------------


def without_genes(adata):
    return adata[:, :4].copy()


def with_another_gene(adata):
    adata.var_names = [*adata.var_names[:-1], "XIST"]
    return adata


def in_another_line(adata):
    adata.obs["line"] = "MCF7"
    return adata


def without_drugs(adata):
    return adata[adata.obs["drug"] == "DMSO"].copy()


def without_doses(adata):
    return adata[:, :].copy() if adata.obs.pop("dose") is not None else adata


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        pytest.param(lambda a: a[:50], ValueError, r"view.*adata\.copy\(\)", id="view"),
        pytest.param(
            without_genes,
            ValueError,
            "2 missing: 'G0004', 'G0005' .nearest to 'G0004': 'G0003'.; 0 new",
            id="missing genes",
        ),
        pytest.param(with_another_gene, ValueError, "1 missing: 'G0005' .*; 1 new: 'XIST'", id="gene"),
        pytest.param(in_another_line, ValueError, "No training controls for line, batch = .'MCF7'", id="line"),
        pytest.param(without_drugs, ValueError, "no cell of a drug that the model knows", id="controls only"),
        pytest.param(without_doses, KeyError, "obs has no column 'dose'", id="no doses"),
    ],
)
def test_refusals_write_nothing(annotated, awkward, spoil, error, message):
    adata = spoil(awkward.copy())
    before = adata.copy()
    with pytest.raises(error, match=message):
        annotated.annotate(adata)
    assert_equal(adata.copy(), before)


def test_genes_that_moved_after_annotation_keep_their_shift(annotated):
    adata = annotated.adata
    expected = pd.DataFrame(adata.obsm["scgim_shift"], adata.obs_names, adata.var_names)
    for genes in (adata.var_names[::-1], adata.var_names[1:4]):
        shift = scgim.get.shift_adata(adata[:, genes].copy())
        pd.testing.assert_frame_equal(shift.to_df(), expected[genes], check_names=False)
    other = adata[:, ::-1].copy()
    other.obs_names = "second-" + other.obs_names
    annotated.annotate(other)
    shift = scgim.get.shift_adata(ad.concat([adata, other], uns_merge="first"))
    for prefix in ("", "second-"):
        rows = (prefix + adata.obs_names).tolist()
        np.testing.assert_array_equal(shift[rows].to_df()[adata.var_names].to_numpy(), expected.to_numpy())
    control_mean = scgim.get.shift_adata(other, key="scgim_pred")[:, adata.var_names].X - expected.to_numpy()
    np.testing.assert_allclose(control_mean, adata.obsm["scgim_pred"] - expected.to_numpy(), atol=1e-6)


def test_arrays_that_do_not_fit_are_refused_and_parts_are_not(screen, fit, monkeypatch):
    model = fit(screen())
    adata = model.adata
    monkeypatch.setattr("scgim._memory.available_memory", lambda: 6e4)
    with pytest.raises(MemoryError, match=r"700 cells x 6 genes need .* available: annotate some .*as_='delta'"):
        model.annotate()
    assert not adata.obsm.keys() & WRITTEN["obsm"]
    parts = [adata[rows].copy() for rows in np.array_split(np.arange(adata.n_obs), 4)]
    for part in parts:
        model.annotate(part)
    monkeypatch.undo()
    model.annotate()
    shift = np.vstack([part.obsm["scgim_shift"] for part in parts])
    np.testing.assert_array_equal(shift, adata.obsm["scgim_shift"])
